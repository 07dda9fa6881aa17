/** `saetta compare`: what it finds of autoencoders of which it is known what they share. */

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CLASSES, type Comparison, classify } from "../../src/explorer/shared/comparison.ts";
import { Rng } from "../../src/util/rng.ts";
import { writeActivations } from "../support/activations.ts";
import { writeTiedSae } from "../support/planted.ts";
import { saetta } from "./saetta.ts";

const WIDTH = 16;
let folder = "";

/** A unit vector along the given axes. */
const along = (...axes: number[]) =>
  Array.from({ length: WIDTH }, (_, i) => (axes.includes(i) ? 1 / Math.sqrt(axes.length) : 0));
/** 0.8 of one axis and 0.6 of another: a cosine of 0.8 with the first. */
const near = (axis: number, other: number) =>
  Array.from({ length: WIDTH }, (_, i) => (i === axis ? 0.8 : i === other ? 0.6 : 0));
// A0 is B2. A1 is split into B0 and B1. A2 and A3 are one in B3. A4 is lost, B4 and B5 are new.
const A = [along(0), along(1), near(2, 10), near(2, 11), along(4)];
const B = [near(1, 12), near(1, 13), along(0), along(2), along(5), along(6)];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-compare-"));
  for (const [name, rows] of [
    ["a", A],
    ["b", B],
  ] as const) {
    await mkdir(join(folder, name));
    await writeTiedSae(join(folder, name), WIDTH, 2, Float32Array.from(rows.flat()), new Float32Array(rows.length));
  }
  await mkdir(join(folder, "wide"));
  await writeTiedSae(
    join(folder, "wide"),
    8,
    1,
    Float32Array.from({ length: 8 }, (_, i) => +(i === 0)),
    new Float32Array(1),
  );
  const rng = new Rng(5);
  const rows = Float32Array.from({ length: 600 * WIDTH }, () => rng.normal());
  await writeActivations(join(folder, "acts.h5"), rows, [600, WIDTH]);
});
afterAll(() => rm(folder, { recursive: true }));

const compare = (...words: string[]) => saetta(folder, "compare", "a/sae", "b/sae", "--engine", "reference", ...words);
const named = ({ a, b }: Comparison, measure: "cosine" | "correlation") => ({
  a: a.by[measure]!.class.map((each) => CLASSES.a[each]),
  b: b.by[measure]!.class.map((each) => CLASSES.b[each]),
});

describe("saetta compare", () => {
  it("finds what matches, is split, absorbed, lost and new, by the decoders alone", async () => {
    const { code, out, err } = await compare("--decoders", "--json");
    expect([code, err]).toEqual([0, ""]);
    const found = JSON.parse(out) as Comparison & { definitions: Record<string, string> };
    expect(named(found, "cosine")).toEqual({
      a: ["match", "split", "absorbed", "absorbed", "lost"],
      b: ["part", "part", "match", "merged", "new", "new"],
    });
    expect(found.a.by.cosine!.value).toEqual([1, 0.8, 0.8, 0.8, 0]);
    expect([found.rows, found.a.by.correlation, found.least]).toEqual([null, undefined, 0.7]);
    expect(Object.keys(found.definitions)).toEqual(expect.arrayContaining([...CLASSES.a, ...CLASSES.b, "cosine"]));
    const strict = JSON.parse((await compare("--decoders", "--json", "--least", "0.9")).out) as Comparison;
    expect(named(strict, "cosine").a).toEqual(["match", "lost", "lost", "lost", "lost"]);
  });

  it("correlates activations on the same rows, and says what each number is", async () => {
    const { out, err } = await compare("--data", "acts.h5", "--json");
    expect(err).toBe("");
    const found = JSON.parse(out) as Comparison;
    expect(found.rows).toBe(600);
    expect(found.a.by.correlation!.best[0]).toBe(2);
    expect(found.a.density!.every((each) => each > 0 && each < 1)).toBe(true);
    const text = (await compare("--data", "acts.h5")).out;
    expect(text).toMatch(/^A {14}a\/sae: 5 latents\nB {14}b\/sae: 6 latents\nrows {11}600 of /);
    expect(text).toContain(
      "by cosine\n  A  match 1 (20 %), split 1 (20 %), absorbed 2 (40 %), lost 1 (20 %); median of the best 0.800",
    );
    expect(text).toMatch(/^correlation {4}Pearson's/m);
    const lines = (await compare("--data", "acts.h5", "--csv")).out.trimEnd().split("\n");
    expect(lines[0]).toBe(
      "side,latent,best_by_cosine,cosine,class_by_cosine,best_by_correlation,correlation,class_by_correlation,density",
    );
    expect(lines[1]).toMatch(/^a,0,2,1,match,2,/);
    expect(lines).toHaveLength(1 + A.length + B.length);
  });

  it("an autoencoder with itself has matches alone", async () => {
    const { out } = await saetta(folder, "compare", "a/sae", "a/sae", "--decoders", "--json", "--engine", "reference");
    expect(new Set(named(JSON.parse(out) as Comparison, "cosine").a)).toEqual(new Set(["match"]));
  });

  it("writes a page, and refuses what cannot be in one line", async () => {
    const made = await compare("--data", "acts.h5", "--out", "compare.html");
    expect(made.code).toBe(0);
    expect(made.err).toContain("a/sae has no report: its latents are shown by number");
    expect(made.out).toMatch(/\n\npage {11}compare\.html\n$/);
    expect(await readFile(join(folder, "compare.html"), "utf8")).toMatch(/^<!doctype html>\n.*<\/html>\n$/s);
    for (const [words, code, message] of [
      [["--data", "acts.h5", "--out", "compare.html"], 1, "compare.html: exists already"],
      [["--least", "0"], 2, '--least must be a number above 0 and at most 1, but is "0"'],
      [["--least", "NaN"], 2, "--least must be a number above 0 and at most 1"],
      [[], 2, "belongs to no run, so there is no hold-out; name the activations with --data, or compare --decoders"],
    ] as const) {
      const ended = await compare(...words);
      expect([words, ended.code, ended.err.trimEnd().split("\n").length]).toEqual([words, code, 1]);
      expect(ended.err).toContain(message);
    }
    const wide = await saetta(folder, "compare", "a/sae", "wide/sae", "--decoders", "--engine", "reference");
    expect([wide.code, wide.err]).toEqual([
      2,
      "saetta: a/sae has 16 outputs and wide/sae 8: decoders of different widths; compare autoencoders of the same tensor\n",
    ]);
  });
});

it("a best that has a nearer one is no match", () => {
  // A0 -> B0, but B0 -> A1 -> B1: as in a chain.
  const a = { best: [0, 1], value: [0.8, 0.95] };
  const b = { best: [1, 1], value: [0.9, 0.95] };
  expect(classify(a, b, 0.7)).toEqual({ a: [2, 1], b: [2, 2] });
  expect(classify(a, b, 0.99)).toEqual({ a: [3, 3], b: [3, 3] });
});

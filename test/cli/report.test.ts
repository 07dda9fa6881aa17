import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openFeatures } from "../../src/explorer/open.ts";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { saetta } from "./saetta.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-report-"));
  await writeActivations(join(folder, "acts.h5"), learnableRows(3000, 8, 16), [60, 50, 8]);
  await writeActivations(join(folder, "wide.h5"), learnableRows(100, 9, 16), [100, 9]);
  const { code } = await saetta(folder, "train", "acts.h5", "--latents", "32", "--k", "2", "--out", "run");
  expect(code).toBe(0);
});
afterAll(() => rm(folder, { recursive: true }));

it("makes a page of a run's hold-out, and keeps the features with the run", async () => {
  const { code, out, err } = await saetta(folder, "report", "run", "--out", "pages/a.html");
  expect(err).toBe(`saetta: note: ${join(folder, "acts.h5")} has no tokens: latents are shown without text\n`);
  expect(out).toMatch(/^report {7}pages\/a\.html: 32 latents on \d+ rows; it opens with latent \d+\n$/);
  expect(code).toBe(0);
  expect(await readdir(join(folder, "pages"))).toEqual(["a.html"]);
  const file = await openFeatures(join(folder, "run", "features", "features.saetta"));
  expect(file.index.summary).toMatchObject({
    title: "run",
    latents: 32,
    k: 2,
    text: false,
    logits: false,
    sequence: 50,
  });
  await file.close();
  // Nobody who is given the page learns where it was made.
  expect(file.index.summary.data).toBe(`${basename(folder)}/acts.h5: 3,000 x 8 f32`);
  expect(await readFile(join(folder, "pages", "a.html"), "utf8")).toMatch(/^<!doctype html>\n.*<\/html>\n$/s);
});

it("takes all rows of the data that are named, or so many, and leaves nothing beside the page of an autoencoder without a run", async () => {
  const [checkpoint = ""] = await readdir(join(folder, "run", "checkpoints"));
  const sae = join(folder, "sae");
  await cp(join(folder, "run", "checkpoints", checkpoint), sae, { recursive: true });
  const whole = await saetta(folder, "report", sae, "--data", "acts.h5");
  expect(whole.out).toMatch(/^report {7}features\.html: 32 latents on 3,000 rows; /);
  const some = await saetta(folder, "report", sae, "--data", "acts.h5", "--max-rows", "1k", "--out", "some.html");
  expect(some.out).toMatch(/^report {7}some\.html: 32 latents on [89]\d\d rows; |on 1,000 rows; /);
  expect((await readdir(folder)).toSorted()).toEqual([
    "acts.h5",
    "features.html",
    "pages",
    "run",
    "sae",
    "some.html",
    "wide.h5",
  ]);
});

it("leaves a file that is there as it is, unless --force is given", async () => {
  const page = join(folder, "pages", "kept.html");
  await writeFile(page, "of another run");
  const refused = await saetta(folder, "report", "run", "--out", "pages/kept.html");
  expect(refused).toEqual({
    code: 1,
    out: "",
    err: "saetta: pages/kept.html: exists already; choose another --out, or pass --force to replace it\n",
  });
  expect(await readFile(page, "utf8")).toBe("of another run");
  const forced = await saetta(folder, "report", "run", "--out", "pages/kept.html", "--force");
  expect(forced.out).toMatch(/^report {7}pages\/kept\.html: 32 latents on /);
  expect(forced.code).toBe(0);
  expect(await readFile(page, "utf8")).toMatch(/^<!doctype html>/);
  await rm(page);
});

it("says in one line what cannot be", async () => {
  const fails = async (...words: string[]) => {
    const { code, out, err } = await saetta(folder, "report", "run", ...words);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    return err.replace(/^saetta: note: .*\n/gm, "");
  };
  await rm(join(folder, "features.html"), { force: true });
  expect(await fails("--data", "wide.h5")).toMatch(
    /^saetta: wide\.h5: rows have 9 numbers, but the autoencoder in .*run\S* takes 8\n$/,
  );
  expect(await fails("--model", "none")).toMatch(/^saetta: .*none: there is no such file; name a \.onnx file.*\n$/);
  await writeFile(join(folder, "file"), "");
  expect(await fails("--out", "file/a.html")).toMatch(/^saetta: [^\n]*\n$/);
  await rm(join(folder, "file"));
  expect(await stat(join(folder, "run", "features")).then((found) => found.isDirectory())).toBe(true);
});

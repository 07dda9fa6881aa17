import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { saetta } from "./saetta.ts";

const D = 8;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-bad-"));
  const at = (name: string) => join(folder, name);
  const good = learnableRows(640, D, 12);
  await writeActivations(at("good.h5"), good, [32, 20, D]);
  await writeActivations(at("other-width.h5"), learnableRows(64, D + 2, 12), [64, D + 2]);
  await writeActivations(at("target.h5"), learnableRows(640, D + 2, 12), [32, 20, D + 2]);
  await writeActivations(at("rank-1.h5"), good, [good.length]);
  await writeActivations(at("rank-4.h5"), good, [4, 8, 20, D]);
  await writeActivations(at("constant.h5"), new Float32Array(640 * D).fill(3), [640, D]);
  const spoilt = good.slice();
  spoilt[321 * D + 3] = Number.NaN;
  await writeActivations(at("nan.h5"), spoilt, [32, 20, D]);
  await writeFile(at("empty.h5"), "");
  await writeFile(
    at("text.h5"),
    "this is no HDF5 file, but some text that is long enough to hold a superblock. ".repeat(40),
  );
  const whole = await readFile(at("good.h5"));
  await writeFile(at("truncated.h5"), whole.subarray(0, Math.floor(whole.length / 2)));
  await writeFile(at("head-only.h5"), whole.subarray(0, 60));
  await writeFile(at("broken.json"), "{");
  await writeFile(at("file"), "mine");
  await mkdir(at("taken"));
  await writeFile(join(at("taken"), "mine"), "");
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

const SMALL = ["--engine", "reference", "--latents", "24", "--k", "3", "--batch", "32"];

describe("bad input exits 1 or 2 with one line that says what, where and how to mend it", () => {
  it.each<[string, number, string[], RegExp]>([
    ["no such file", 1, ["nowhere.h5"], /^saetta: nowhere\.h5: no such file; /],
    ["a folder", 1, ["taken"], /^saetta: taken: /],
    ["an empty file", 1, ["empty.h5"], /^saetta: empty\.h5: .*; /],
    ["no HDF5 file", 1, ["text.h5"], /^saetta: text\.h5: .*HDF5/],
    ["a truncated file", 1, ["truncated.h5"], /^saetta: truncated\.h5: /],
    ["a file that is cut off in its head", 1, ["head-only.h5"], /^saetta: head-only\.h5: /],
    [
      "a missing dataset",
      1,
      ["good.h5", "--dataset", "acts"],
      /^saetta: good\.h5: no dataset acts; the file has hidden_states .*; name one with --dataset$/,
    ],
    ["one axis", 1, ["rank-1.h5"], /^saetta: rank-1\.h5: .*1 ax.*; give activations of shape/],
    ["four axes", 1, ["rank-4.h5"], /^saetta: rank-4\.h5: .*4 axes; give activations of shape/],
    [
      "files of different width",
      1,
      ["good.h5", "other-width.h5"],
      /^saetta: good\.h5 and other-width\.h5 do not go together: rows of 8 and of 10 numbers; /,
    ],
    [
      "targets of other rows",
      1,
      ["good.h5", "--target", "other-width.h5"],
      /^saetta: other-width\.h5: does not go with good\.h5: 64 rows for 640 inputs; harvest both/,
    ],
    [
      "targets that are the inputs",
      1,
      ["good.h5", "--target", "good.h5"],
      /^saetta: good\.h5: does not go with good\.h5: the targets are the inputs; leave out --target/,
    ],
    ["targets that are not there", 1, ["good.h5", "--target", "nowhere.h5"], /^saetta: nowhere\.h5: no such file; /],
    [
      "a skip connection without targets",
      2,
      ["good.h5", "--skip"],
      /^saetta: --skip is of a transcoder, which --target trains; give --target, or leave out --skip$/,
    ],
    [
      "targets with a normalisation of rows",
      2,
      ["good.h5", "--target", "target.h5", "--normalize", "unit"],
      /^saetta: --normalize unit and --target exclude each other: .*; give --normalize scale or none$/,
    ],
    [
      "a row with NaN",
      1,
      ["nan.h5"],
      /^saetta: nan\.h5, row 321 \(sequence 16, position 1\): holds NaN or Inf; .*--non-finite skip/,
    ],
    ["rows that are all the same", 1, ["constant.h5"], /^saetta: the variance of \d+ sampled rows is 0: /],
    ["k > n", 2, ["good.h5", "--k", "25"], /^saetta: --k 25 is more than the 24 latents; /],
    [
      "a batch beyond the budget",
      2,
      ["good.h5", "--batch", "1M"],
      /^saetta: a budget of \d+ rows does not fill one batch of 1000000; lower --batch/,
    ],
    [
      "two budgets",
      2,
      ["good.h5", "--tokens", "1", "--epochs", "1"],
      /^saetta: --tokens and --epochs exclude each other; /,
    ],
    [
      "too many latents",
      1,
      ["good.h5", "--latents", "1G"],
      /^saetta: .*(needs [\d.]+ [GT]iB of memory and .*; lower --latents|holds at most \d+ parameters)/,
    ],
    [
      "too large a batch",
      1,
      ["good.h5", "--batch", "10G", "--tokens", "20G"],
      /^saetta: the run needs [\d.]+ [GT]iB of memory and .*; lower --batch$/,
    ],
    [
      "an output folder that exists",
      1,
      ["good.h5", "--out", "taken"],
      /^saetta: taken: exists already, and a run never writes over another; choose another --out/,
    ],
    [
      "an unwritable output folder",
      1,
      ["good.h5", "--out", "file/run"],
      /^saetta: file\/run: could not be written \(a part of the path is a file, not a folder\); choose another --out/,
    ],
    [
      "an output folder where there can be none",
      1,
      ["good.h5", "--out", "/proc/saetta/run"],
      /^saetta: \/proc\/saetta: could not be written \(no such file or folder\); choose another --out/,
    ],
    [
      "a missing config",
      1,
      ["good.h5", "--config", "no.json"],
      /^saetta: no\.json: the file is missing; name a JSON file/,
    ],
    ["a config that is none", 2, ["good.h5", "--config", "broken.json"], /^saetta: broken\.json: not valid JSON/],
    ["no autoencoder to start from", 1, ["good.h5", "--init", "taken"], /^saetta: taken: holds no autoencoder/],
  ])("%s", async (_, expected, argv, line) => {
    const run = argv.includes("--out") ? [] : ["--out", "never"];
    // Of a flag that is given twice the last counts.
    const { code, out, err } = await saetta(folder, "train", ...SMALL, ...argv, ...run);
    expect(err).toMatch(/^[^\n]+\n$/);
    expect(err.trimEnd()).toMatch(line);
    expect({ code, out }).toEqual({ code: expected, out: "" });
    expect(await readdir(folder)).not.toContain("never");
  });

  it("and nothing that was there is touched", async () => {
    expect(await readFile(join(folder, "file"), "utf8")).toBe("mine");
    expect(await readdir(join(folder, "taken"))).toEqual(["mine"]);
  });
});

it("rows that are not finite are skipped and counted when asked", async () => {
  const { code, out } = await saetta(
    folder,
    "train",
    "nan.h5",
    ...SMALL,
    "--non-finite",
    "skip",
    "--holdout",
    "0",
    "--epochs",
    "2",
    "--out",
    "skipping",
    "--json",
  );
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({
    report: { skipped_rows: expect.toSatisfy((rows: number) => rows === 1 || rows === 2) },
  });
});

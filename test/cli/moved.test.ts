/** Activations, their model and a run that are moved after they were made. */

import { cp, mkdir, mkdtemp, realpath, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { saetta } from "./saetta.ts";

const EXAMPLES = fileURLToPath(new URL("../../examples", import.meta.url));

let folder = "";
const at = (...parts: string[]): string => join(folder, ...parts);
beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), "saetta-moved-")));
  await mkdir(at("old"));
  await cp(join(EXAMPLES, "brown-gpt"), at("old", "gpt"), { recursive: true });
  const made = ["--tensor", "/transformer/h.3/Add_1_output_0", "--tokens", "640", "--context", "16"];
  const text = ["--text", join(EXAMPLES, "brown.txt.gz"), "--out", "acts/a.h5"];
  expect(await saetta(at("old"), "harvest", "--model", "gpt", ...made, ...text)).toMatchObject({ code: 0 });
  const run = ["--latents", "64", "--k", "8", "--batch", "64", "--engine", "reference", "--out", "run"];
  expect(await saetta(at("old"), "train", "acts/a.h5", ...run)).toMatchObject({ code: 0 });
});
afterAll(() => rm(folder, { recursive: true }));

/** Exit code, and the lines of stderr about the model or the tokenizer. */
async function said(cwd: string, ...words: string[]): Promise<[number | null, string[]]> {
  const { code, err } = await saetta(cwd, ...words, "--engine", "reference");
  return [code, err.split("\n").filter((line) => /the model|tokenizer/.test(line))];
}

/** What is printed where the model is no longer in its folder but in `now`. */
const modelNote = (now: string) =>
  `saetta: note: ${at("old", "gpt", "model.onnx")} is not there any more; the model is read from ${join(now, "model.onnx")}`;
const tokenizerNote = (now: string) =>
  `saetta: note: ${at("old", "gpt", "tokenizer.json")} is not there any more; the tokenizer is read from ${join(now, "tokenizer.json")}`;

const LOSS = ["--loss", "--loss-tokens", "16"];

it("a model and a tokenizer are found where the activations were moved with them", async () => {
  await rename(at("old"), at("new"));
  const now = at("new", "gpt");
  expect(await said(at("new"), "eval", "run", "--features", "1")).toEqual([0, [tokenizerNote(now)]]);
  expect(await said(at("new"), "eval", "run", ...LOSS)).toEqual([0, [modelNote(now)]]);
  expect(await said(at("new"), "report", "run")).toEqual([0, [modelNote(now), tokenizerNote(now)]]);
});

it("they are found next to the activations", async () => {
  for (const file of ["model.onnx", "tokenizer.json"]) await rename(at("new", "gpt", file), at("new", "acts", file));
  const now = at("new", "acts");
  expect(await said(at("new"), "eval", "run", "--features", "1")).toEqual([0, [tokenizerNote(now)]]);
  expect(await said(at("new"), "eval", "run", ...LOSS)).toEqual([0, [modelNote(now)]]);
  expect(await said(at("new"), "report", "run", "--out", "b.html")).toEqual([0, [modelNote(now), tokenizerNote(now)]]);
});

it("one line names the flag where they are gone, and the flag helps", async () => {
  await rename(at("new", "acts", "model.onnx"), at("new", "gpt", "model.onnx"));
  await rename(at("new", "acts", "tokenizer.json"), at("new", "gpt", "tokenizer.json"));
  await rename(at("new", "gpt"), at("elsewhere"));
  const gone = (file: string, what: string, flag: string) =>
    `${at("old", "gpt", file)}: the ${what} that the activations were made with is not there any more; name it with ${flag} PATH`;
  const noTokenizer = gone("tokenizer.json", "tokenizer", "--tokenizer");
  const noModel = gone("model.onnx", "model", "--model");
  expect(await said(at("new"), "eval", "run", "--features", "1")).toEqual([1, [`saetta: ${noTokenizer}`]]);
  expect(await said(at("new"), "eval", "run", ...LOSS)).toEqual([1, [`saetta: ${noModel}`]]);
  expect(await said(at("new"), "report", "run", "--out", "c.html")).toEqual([
    0,
    [
      `saetta: note: the model ${at("old", "gpt", "model.onnx")} is not here: which tokens latents promote is left out; --model names the model`,
      `saetta: note: the tokenizer cannot be read (${noTokenizer}): tokens are shown as numbers`,
    ],
  ]);
  const [model, tokenizer] = ["../elsewhere", "../elsewhere/tokenizer.json"];
  expect(await said(at("new"), "eval", "run", "--features", "1", "--tokenizer", tokenizer)).toEqual([0, []]);
  expect(await said(at("new"), "eval", "run", ...LOSS, "--model", model)).toEqual([0, []]);
  const both = ["--model", model, "--tokenizer", tokenizer];
  expect(await said(at("new"), "report", "run", "--out", "d.html", ...both)).toEqual([0, []]);
});

/**
 * Activations of another tensor or model than the autoencoder was trained on: one note in every
 * command that meets them.
 */

import { cp, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { saetta } from "./saetta.ts";

const GPT2 = "/m/gpt2/model.onnx";
const PYTHIA = "/m/pythia/model.onnx";
/** File name, tensor and model; the run is trained on the first. */
const FILES = [
  ["own.h5", "h.3", GPT2],
  ["hook.h5", "h.4", GPT2],
  ["both.h5", "h.4", PYTHIA],
  ["moved.h5", "h.3", "/elsewhere/gpt2/model.onnx"],
] as const;
const ENGINE = ["--engine", "reference"];

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-origin-"));
  const rows = learnableRows(3000, 8, 16);
  for (const [file, tensor, model] of FILES)
    await writeActivations(join(folder, file), rows, [60, 50, 8], { attributes: { tensor, model } });
  const shape = ["--latents", "32", "--k", "2", "--tokens", "320", "--batch", "32"];
  expect(await saetta(folder, "train", "own.h5", ...shape, ...ENGINE, "--out", "run")).toMatchObject({ code: 0 });
});
afterAll(() => rm(folder, { recursive: true }));

/** The notes about the origin of rows that a command writes. */
async function noted(...words: string[]): Promise<string[]> {
  const { code, err } = await saetta(folder, ...words, ...ENGINE);
  expect(code, err).toBe(0);
  return err.split("\n").filter((line) => line.includes("was trained on"));
}

/** `resume` of a copy of the run, on another file. */
async function resumed(file: string): Promise<string[]> {
  const copy = `resumed-${file}`;
  await cp(join(folder, "run"), join(folder, copy), { recursive: true });
  return noted("resume", copy, "--data", file, "--tokens", "640");
}

const checkpoint = async () => {
  const [last = ""] = (await readdir(join(folder, "run", "checkpoints"))).toSorted().reverse();
  return `run/checkpoints/${last}`;
};

describe.each([
  ["hook.h5", "the tensor 'h.4'", "the tensor 'h.3'"],
  ["both.h5", `the tensor 'h.4' and the model ${PYTHIA}`, `the tensor 'h.3' and the model ${GPT2}`],
])("%s is noted", (file, now, then) => {
  const line = (data: string, sae: string) =>
    `saetta: note: ${data} is of ${now}, but ${sae} was trained on ${then}: its latents may mean nothing there`;

  it("by eval", async () => {
    expect(await noted("eval", "run", file)).toEqual([line(file, await checkpoint())]);
  });

  it("by report", async () => {
    const page = ["--out", `${file}.html`];
    expect(await noted("report", "run", "--data", file, ...page)).toEqual([line(file, await checkpoint())]);
  });

  it("by train --init", async () => {
    const run = ["--init", "run", "--tokens", "64", "--batch", "32", "--out", `from-${file}`];
    expect(await noted("train", file, ...run)).toEqual([line(file, "run")]);
  });

  it("by resume", async () => {
    expect(await resumed(file)).toEqual([line(file, `resumed-${file}`)]);
  });
});

it("rows of the same tensor and model are not, even where the model was moved", async () => {
  for (const file of ["own.h5", "moved.h5"]) {
    expect(await noted("eval", "run", file)).toEqual([]);
    expect(await noted("report", "run", "--data", file, "--out", `${file}.html`)).toEqual([]);
  }
  expect(await noted("train", "moved.h5", "--init", "run", "--tokens", "64", "--batch", "32", "--out", "same")).toEqual(
    [],
  );
  expect(await resumed("moved.h5")).toEqual([]);
});

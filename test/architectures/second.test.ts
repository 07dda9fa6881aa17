/**
 * The seam holds a second architecture: plain ReLU over thresholds, with a parameter that TopK has
 * not. It is one object and one line of the table here; checkpoints, cfg.json, loading, the forward
 * pass and the engine take it as they are.
 */

import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { saveCheckpoint } from "../../src/checkpoint/save.ts";
import { NONE } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { loadSae } from "../../src/inference/sae.ts";
import type { ArchitectureSpec } from "../../src/sae/architectures/table.ts";
import { autoencoderDims } from "../../src/sae/dims.ts";
import { allocState, writeReals } from "../../src/train/state.ts";
import { relu } from "./relu.ts";

vi.mock("../../src/sae/architectures/table.ts", async (original) => {
  const { TABLE } = await original<typeof import("../../src/sae/architectures/table.ts")>();
  const { relu } = await import("./relu.ts");
  return { TABLE: { ...TABLE, relu } };
});

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-relu-"));
});
afterEach(() => rm(folder, { recursive: true }));

it("is saved, loaded and computes, from its own file and a line of the table", async () => {
  await using engine = createReferenceEngine();
  const dims = autoencoderDims(3, 4);
  const state = allocState(engine, dims, relu.params({ architecture: "relu" }), false);
  const weights = {
    encoder: [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1],
    latentBias: [0, 0, 0, -30],
    decoder: [1, 0, 0, 0, 1, 0, 0, 0, 1, 0.6, 0.8, 0],
    preBias: [10, 20, 30],
    threshold: [0.5, 2, 0, 1],
  };
  for (const [name, values] of Object.entries(weights)) {
    const tensor = state.params[name as keyof typeof weights];
    if (tensor === undefined) throw new Error(`no ${name}`);
    writeReals(engine, tensor, Float64Array.from(values));
  }
  const spec = { architecture: "relu" } as unknown as ArchitectureSpec;
  const saetta = { version: "0", engine: "reference", normalization: "none" } as const;
  const description = { dims, spec, saetta };
  const path = await saveCheckpoint(folder, { engine, state, step: 1, description, progress: {} });
  // No other program takes it for TopK.
  expect(await readdir(path)).toContain("saetta.safetensors");

  await using sae = await loadSae(folder, { engine });
  expect(sae.description.spec).toEqual(spec);
  // Values 0.5 (not above 0.5), 2.5, 1, -26: and 11, 14.5, 20, 15.5.
  const codes = await sae.encode(Float32Array.of(10.5, 22.5, 31, 21, 34.5, 50));
  expect(codes.k).toBe(4);
  expect([...codes.latent]).toEqual([1, 2, NONE, NONE, 0, 1, 2, 3]);
  expect([...codes.value]).toEqual([2.5, 1, 0, 0, 11, 14.5, 20, 15.5]);
  const back = await sae.decode(codes);
  const expected = [10, 22.5, 31, 21 + 0.6 * 15.5, 34.5 + 0.8 * 15.5, 50];
  for (const [i, value] of expected.entries()) expect(back[i]).toBeCloseTo(value, 5);
});

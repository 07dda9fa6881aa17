import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratch } from "../../test/support/scratch.ts";
import type { Engine, State } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { paramNames, parseDescription, type SaeDescription } from "../sae/description.ts";
import { autoencoderDims, type Dims, transcoderDims } from "../sae/dims.ts";
import { type ParamName, paramEntries } from "../sae/params.ts";
import { allocState, readReals, unfold, writeReals } from "../train/state.ts";
import { bytesOf, float64Of } from "../util/bytes.ts";
import { Rng } from "../util/rng.ts";
import { divided, foldOf } from "./fold.ts";
import { openCheckpoint, restoreState } from "./load.ts";
import { saveCheckpoint } from "./save.ts";
import { verifyCheckpoint } from "./verify.ts";

const [FX, FY] = [3, 0.07];

function described(dims: Dims, targetFactor?: number): SaeDescription {
  const scaled = { normalization: "scale", normalizationFactor: FX } as const;
  const saetta = { version: "0", engine: "e", ...scaled, ...(targetFactor === undefined ? {} : { targetFactor }) };
  return {
    dims,
    ...(targetFactor === undefined ? {} : { skip: true }),
    spec: { architecture: "topk", k: 2, auxk: 1 },
    saetta,
  };
}
const transcoder = described(transcoderDims(3, 5, 2), FY);
const autoencoder = described(autoencoderDims(3, 5));

let run: string;
let engine: Engine;
beforeEach(async () => {
  run = await scratch("fold");
  engine = createReferenceEngine();
});
afterEach(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(run, { recursive: true });
});

function filled(description: SaeDescription, seed: number, ema = false): State {
  const state = allocState(engine, description.dims, paramNames(description), ema);
  const rng = new Rng(seed, 7);
  for (const group of [state.params, state.m, state.v, ...(state.ema === undefined ? [] : [state.ema])])
    for (const [, , tensor] of paramEntries(group)) {
      const size = tensor.shape.reduce((a, b) => a * b, 1);
      writeReals(
        engine,
        tensor,
        Float64Array.from({ length: size }, () => rng.normal()),
      );
    }
  return state;
}

type Arrays = { readonly [N in ParamName]?: Float64Array };

async function arraysOf({ params }: State): Promise<Arrays> {
  const read = paramEntries(params).map(async ([name, , tensor]) => [name, await readReals(engine, tensor)] as const);
  return Object.fromEntries((await Promise.all(read)).map(([name, values]) => [name, Float64Array.from(values)]));
}

/** y_hat [dOut] of one row x [dIn], all latents above 0 being on. */
function outputOf({ dIn, n, dOut, untied = false }: Dims, w: Arrays, x: readonly number[]): number[] {
  const z = Array.from({ length: n }, (_, j) => {
    const pre = x.reduce(
      (sum, value, i) => sum + w.encoder![j * dIn + i]! * (value - (untied ? 0 : w.preBias![i]!)),
      0,
    );
    return Math.max(0, pre + w.latentBias![j]!);
  });
  return Array.from({ length: dOut }, (_, o) => {
    const skipped = x.reduce((sum, value, i) => sum + (w.skip === undefined ? 0 : w.skip[o * dIn + i]! * value), 0);
    return z.reduce((sum, value, j) => sum + value * w.decoder![j * dOut + o]!, w.preBias![o]! + skipped);
  });
}

describe("folding", () => {
  it.each([
    ["an autoencoder", autoencoder, FX],
    ["a transcoder", transcoder, FY],
  ] as const)("gives %s that does to raw rows what training did to scaled ones", async (_, description, outFactor) => {
    const trained = await arraysOf(filled(description, 1));
    const fold = foldOf(description);
    const saved = Object.fromEntries(
      Object.entries(trained).map(([name, values]) => [
        name,
        float64Of(divided(bytesOf(values), "f64", fold.divisor(name as ParamName))),
      ]),
    );
    const rng = new Rng(2, 7);
    for (let row = 0; row < 20; row++) {
      const x = Array.from({ length: 3 }, () => 2 * rng.normal());
      const scaled = outputOf(
        description.dims,
        trained,
        x.map((value) => FX * value),
      );
      const raw = outputOf(description.dims, saved, x);
      for (const [i, value] of scaled.entries()) expect(raw[i]).toBeCloseTo(value / outFactor, 10);
    }
  });

  it("changes of an autoencoder the biases alone", () => {
    const names = ["encoder", "latentBias", "decoder", "preBias"] as const;
    expect(names.map((name) => foldOf(autoencoder).divisor(name))).toEqual([1, FX, 1, FX]);
    expect(names.map((name) => foldOf(autoencoder).folds(name))).toEqual([false, true, false, true]);
    const plain = { ...autoencoder, saetta: { version: "0", engine: "e", normalization: "none" as const } };
    expect(names.map((name) => foldOf(plain).folds(name))).toEqual([false, false, false, false]);
  });
});

describe("a checkpoint of a transcoder", () => {
  it.each([true, false])("gives the state back bit by bit (average: %s), with raw weights in its file", async (ema) => {
    const state = filled(transcoder, 3, ema);
    const path = await saveCheckpoint(run, { engine, state, step: 1, description: transcoder, progress: {} });
    expect((await verifyCheckpoint(path)).problem).toBeUndefined();
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint.description).toEqual(transcoder);
    const restored = allocState(engine, transcoder.dims, paramNames(transcoder), ema);
    await restoreState(engine, checkpoint, restored);
    for (const group of ["params", "m", "v", "ema"] as const) {
      if (state[group] === undefined) continue;
      const [before, after] = [paramEntries(state[group]), paramEntries(restored[group]!)];
      expect(after.map(([name]) => name)).toEqual(["encoder", "latentBias", "decoder", "preBias", "skip"]);
      for (const [i, [, , tensor]] of before.entries())
        expect(await engine.read(after[i]![2])).toEqual(await engine.read(tensor));
    }
    // Not sparsify's file: its transcoders write as many numbers as they read.
    const file = await openSafetensors(join(path, "saetta.safetensors"));
    const saved = float64Of(await file.read("W_skip"));
    expect(file.tensors.get("W_skip")?.shape).toEqual([2, 3]);
    await file.close();
    const { skip } = await arraysOf(state);
    for (const [i, value] of saved.entries()) expect(value).toBeCloseTo((skip![i]! * FX) / FY, 10);
    const text = JSON.parse(await readFile(join(path, "state.json"), "utf8"));
    expect(text.shape).toMatchObject({ d: 3, d_out: 2, n: 5 });
  });

  it("is brought back to the scale of training from what was saved", async () => {
    const state = filled(transcoder, 4);
    const before = await arraysOf(state);
    const fold = foldOf(transcoder);
    for (const [name, , tensor] of paramEntries(state.params))
      engine.write(tensor, divided(await engine.read(tensor), "f64", fold.divisor(name)));
    expect((await arraysOf(state)).decoder).not.toEqual(before.decoder);
    await unfold(engine, state.params, fold);
    for (const [name, values] of Object.entries(await arraysOf(state)))
      for (const [i, value] of values.entries()) expect(value).toBeCloseTo(before[name as ParamName]![i]!, 12);
  });

  it("is in sparsify's file where it has its shapes", async () => {
    const square = described(transcoderDims(3, 5, 3), FY);
    const state = filled(square, 5);
    const path = await saveCheckpoint(run, { engine, state, step: 1, description: square, progress: {} });
    const file = await openSafetensors(join(path, "sae.safetensors"));
    expect([...file.tensors.keys()].sort()).toEqual(["W_dec", "W_skip", "b_dec", "encoder.bias", "encoder.weight"]);
    await file.close();
    const cfg = JSON.parse(await readFile(join(path, "cfg.json"), "utf8"));
    expect(cfg).toMatchObject({ transcode: true, skip_connection: true, normalize_decoder: false, d_in: 3 });
    expect(cfg.saetta).toMatchObject({ d_out: 3, normalization_factor: FX, target_normalization_factor: FY });
    const { saetta: _, ...theirs } = cfg;
    expect(parseDescription(theirs, "cfg.json").dims).toEqual(square.dims);
  });
});

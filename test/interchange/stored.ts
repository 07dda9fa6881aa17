/** Checkpoints of any architecture with drawn weights, and the bits of what is read from a path. */

import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { saveCheckpoint } from "../../src/checkpoint/save.ts";
import { COUNTERS, type Engine } from "../../src/engine/engine.ts";
import { findSae, readParam } from "../../src/inference/weights.ts";
import { paramNames, type SaeDescription } from "../../src/sae/description.ts";
import { type ParamName, paramEntries } from "../../src/sae/params.ts";
import { allocState, writeReals } from "../../src/train/state.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";

/** What each parameter is drawn from: a scale and, for thresholds, a mean. */
const DRAWN: { readonly [N in ParamName]: readonly [scale: number, mean: number] } = {
  ...{ encoder: [0.3, 0], latentBias: [0.1, 0], decoder: [1, 0], preBias: [1, 0] },
  ...{ threshold: [0.3, 0.5], cut: [0, 0.75], sparsity: [0, 1], skip: [0.3, 0] },
};

/**
 * A checkpoint in a new folder; decoder rows of an autoencoder have norm 1. `set`: values of a
 * parameter.
 */
export async function stored(
  engine: Engine,
  description: SaeDescription,
  set: { readonly [N in ParamName]?: number } = {},
): Promise<string> {
  const { dims } = description;
  const state = allocState(engine, dims, paramNames(description), false);
  for (const [name, , tensor] of paramEntries(state.params)) {
    const rng = new Rng(1, name.length);
    const [scale, mean] = DRAWN[name];
    const count = tensor.shape.reduce((a, b) => a * b, 1);
    const values = Float64Array.from({ length: count }, () => set[name] ?? mean + scale * rng.normal());
    if (name === "decoder" && dims.untied !== true) unit(values, dims.dOut);
    writeReals(engine, tensor, values);
  }
  engine.write(state.counters, bytesOf(Float64Array.from(COUNTERS, () => 10)));
  const folder = await mkdtemp(join(tmpdir(), "saetta-stored-"));
  return saveCheckpoint(folder, { engine, state, step: 10, description, progress: {} });
}

function unit(rows: Float64Array, width: number): void {
  for (let start = 0; start < rows.length; start += width) {
    const row = rows.subarray(start, start + width);
    const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
    for (let i = 0; i < width; i++) row[i]! /= norm;
  }
}

/** Each parameter of what is at the path, as bits. */
export async function bitsAt(path: string): Promise<{ readonly [N in ParamName]?: string }> {
  const found = await findSae(path);
  const out: { [N in ParamName]?: string } = {};
  for (const name of paramNames(found.description))
    out[name] = Buffer.from(bytesOf(await readParam(found, name))).toString("hex");
  return out;
}

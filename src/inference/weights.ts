/** Where the weights of an autoencoder are, and the way into an engine: a run folder, a checkpoint, or a folder or file of sparsify. */

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { AVERAGE, CFG, OWN_WEIGHTS, TENSOR_NAMES, WEIGHTS, weightsFile } from "../checkpoint/layout.ts";
import { INFERENCE_FILES, newestCheckpoint, openCheckpoint, type Refusal } from "../checkpoint/load.ts";
import { disk } from "../checkpoint/storage.ts";
import { rowsToFloat32 } from "../data/convert.ts";
import { type Engine, PARAM_NAMES, type Params, paramShapes } from "../engine/engine.ts";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { normalizationOf, parseDescription, type SaeDescription } from "../sae/description.ts";
import { bytesOf, float64Of } from "../util/bytes.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import { readJsonFile } from "../util/json.ts";

export type WeightsKind = "ema" | "raw";

/** Where weights come from. */
export interface SaeOrigin {
  /** The folder that holds the weights; undefined where they were never saved. */
  readonly path: string | undefined;
  readonly description: SaeDescription;
  /** "ema": the running average of the weights. */
  readonly weights: WeightsKind;
  /** Training steps; undefined in files of others. */
  readonly step: number | undefined;
  /** Newer checkpoints of the run that are damaged. */
  readonly refusals: readonly Refusal[];
}

export interface FoundSae extends SaeOrigin {
  readonly path: string;
}

/**
 * Finds an autoencoder: in a run folder the newest whole checkpoint. `weights` default: the average where there is one. Throws when the path
 * holds none, or no average though it was asked for.
 */
export async function findSae(path: string, weights?: WeightsKind): Promise<FoundSae> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new SaettaError("there is no such file or folder", { where: path, cause });
  });
  const folder = found.isDirectory() ? path : dirname(path);
  const names = new Set(await disk.list(folder));
  if (!found.isDirectory() && ![WEIGHTS, OWN_WEIGHTS, CFG].includes(basename(path))) {
    throw new SaettaError(`is no autoencoder that Saetta reads: a folder with ${CFG} and ${WEIGHTS}, or a run folder`, { where: path });
  }
  if (names.has("checkpoints") && !names.has(CFG)) {
    const { checkpoint, refusals } = await newestCheckpoint(folder, INFERENCE_FILES);
    if (checkpoint === undefined) throw refusals[0]?.error ?? new SaettaError("the run has no checkpoint yet", { where: path });
    const { step, description, files } = checkpoint;
    return { path: checkpoint.path, description, weights: chosen(checkpoint.path, files.has(AVERAGE), weights), step, refusals };
  }
  if (!names.has(CFG) || (!names.has(WEIGHTS) && !names.has(OWN_WEIGHTS))) {
    throw new SaettaError(`holds no autoencoder: no checkpoints, and no ${CFG} with ${WEIGHTS}`, { where: path });
  }
  if (names.has("manifest.json")) {
    const { step, description, files } = await openCheckpoint(folder, INFERENCE_FILES);
    return { path: folder, description, weights: chosen(folder, files.has(AVERAGE), weights), step, refusals: [] };
  }
  const where = join(folder, CFG);
  const description = parseDescription(await readJsonFile(where), where);
  const file = weightsFile(description);
  if (!names.has(file)) {
    const { kind } = normalizationOf(description);
    throw new FormatError(`says that rows were normalised by ${kind}, so the weights must be in ${file}, which is not there`, { where });
  }
  return { path: folder, description, weights: chosen(folder, names.has(AVERAGE), weights), step: undefined, refusals: [] };
}

/** Whether a path names an autoencoder (whole or not) and not activations: a run folder, a folder with cfg.json, or one of the files beside it. */
export async function namesSae(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) return [WEIGHTS, OWN_WEIGHTS, CFG].includes(basename(path));
  const names = await disk.list(path);
  return names.includes(CFG) || names.includes("checkpoints");
}

function chosen(path: string, hasAverage: boolean, asked: WeightsKind | undefined): WeightsKind {
  if (asked === "ema" && !hasAverage) {
    throw new UsageError("no running average of the weights was kept", { where: path, mend: "use --weights raw, or train with --ema" });
  }
  return asked ?? (hasAverage ? "ema" : "raw");
}

/**
 * Writes the weights into the engine's `params`, as saved: where training multiplied rows by one factor, they take rows as they are (checkpoint/fold.ts).
 * The average is bias-corrected by 1 - m^t (Adam's correction, Kingma and Ba 2015) and, unless `unitDecoder` is false, its decoder rows are brought back to norm 1, which averaging shortens. `params` may be a shard's, from `firstLatent` on. Throws when a shape is wrong or a weight is not finite.
 */
export async function writeParams(engine: Engine, found: FoundSae, params: Params, unitDecoder = true, firstLatent = 0): Promise<void> {
  const file = await openSafetensors(join(found.path, found.weights === "ema" ? AVERAGE : weightsFile(found.description)));
  try {
    const average = found.weights === "ema" ? averageOf(file) : undefined;
    const shapes = paramShapes(found.description.shape);
    for (const name of PARAM_NAMES) {
      const all = await floats(file, TENSOR_NAMES[name], shapes[name]);
      const { shape } = params[name];
      const values = shape[0] === shapes[name][0] ? all : partOf(all, firstLatent, shape);
      if (average !== undefined) corrected(name, values, found.description.shape.d, average, unitDecoder);
      const same = (values instanceof Float32Array ? "f32" : "f64") === engine.real;
      engine.write(params[name], bytesOf(same ? values : engine.real === "f32" ? Float32Array.from(values) : Float64Array.from(values)));
    }
  } finally {
    await file.close();
  }
}

/** The latents [first, first + shape[0]) of [n] or [n,d]. */
function partOf<T extends Float32Array | Float64Array>(values: T, first: number, [count = 0, width = 1]: readonly number[]): T {
  return values.subarray(first * width, (first + count) * width) as T;
}

/** The decay m of a running average that began with zeros, and the number t of its updates. */
export interface Average {
  readonly decay: number;
  readonly updates: number;
}

/** Divides an average, in place, by 1 - m^t, the share of it that is weights and not the zeros it started from; rows of the decoder get norm 1. */
export function corrected<T extends Float32Array | Float64Array>(
  name: keyof Params,
  values: T,
  d: number,
  { decay, updates }: Average,
  unitDecoder = true,
): T {
  const factor = -1 / Math.expm1(updates * Math.log(decay));
  for (let i = 0; i < values.length; i++) values[i] = values[i]! * factor;
  if (name === "decoder" && unitDecoder) unitRows(values, d);
  return values;
}

function averageOf(file: Safetensors): Average {
  const decay = Number(file.metadata.get("decay"));
  const updates = Number(file.metadata.get("updates"));
  if (!(decay > 0 && decay < 1)) throw new FormatError("its metadata do not say the decay of the average", { where: file.path });
  if (!Number.isSafeInteger(updates) || updates < 1) {
    throw new FormatError("the average holds no step yet", { where: file.path, mend: "use --weights raw" });
  }
  return { decay, updates };
}

async function floats(file: Safetensors, name: string, shape: readonly number[]): Promise<Float32Array | Float64Array> {
  const entry = file.tensors.get(name);
  if (entry !== undefined && entry.shape.join() !== shape.join()) {
    throw new FormatError(`tensor "${name}" is [${entry.shape.join(", ")}], but cfg.json says [${shape.join(", ")}]`, { where: file.path });
  }
  const bytes = await file.read(name);
  const dtype = entry?.dtype.toLowerCase();
  if (dtype !== "f64" && dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") {
    throw new FormatError(`tensor "${name}" is ${entry?.dtype}; weights are F64, F32, F16 or BF16`, { where: file.path });
  }
  const count = shape.reduce((a, b) => a * b, 1);
  const bad = firstNonFinite(bytes, dtype, 0, count);
  if (bad >= 0) throw new FormatError(`tensor "${name}", element ${bad} is not finite`, { where: file.path });
  return dtype === "f64" ? float64Of(bytes) : rowsToFloat32(bytes, dtype, count);
}

function unitRows(values: Float32Array | Float64Array, d: number): void {
  for (let start = 0; start < values.length; start += d) {
    const row = values.subarray(start, start + d);
    let square = 0;
    for (const value of row) square += value * value;
    if (square > 0) for (let i = 0; i < d; i++) row[i] = row[i] / Math.sqrt(square);
  }
}

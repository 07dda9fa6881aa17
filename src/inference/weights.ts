/**
 * Where the weights of an autoencoder are, and the way into an engine: a run folder, a checkpoint,
 * or a folder or file of another program.
 */

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isRunFolder, weightsFile } from "../checkpoint/layout.ts";
import { INFERENCE_FILES, newestCheckpoint, openCheckpoint, type Refusal } from "../checkpoint/load.ts";
import { disk } from "../checkpoint/storage.ts";
import type { Engine, Params } from "../engine/engine.ts";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { isHubPath, parseHubPath } from "../hub/address.ts";
import type { Told } from "../interchange/format.ts";
import type { FoundForeign } from "../interchange/index.ts";
import { checkShape, safetensorsFloats } from "../interchange/tensors.ts";
import { AVERAGE, CFG, CHECKPOINTS, MANIFEST, OWN_WEIGHTS, WEIGHTS } from "../run-files/names.ts";
import {
  hasUnitDecoder,
  normalizationOf,
  paramNames,
  parseDescription,
  type SaeDescription,
} from "../sae/description.ts";
import { PARAMS, type ParamName, paramEntries } from "../sae/params.ts";
import { bytesOf } from "../util/bytes.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { readJsonFile } from "../util/json.ts";

// The readers of other formats take time to load, and most runs have none.
const interchange = () => import("../interchange/index.ts");
const belowFolders = () => import("./find-below.ts");

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
  /**
   * What the file of another program holds that is not carried over, and what was done so that the
   * weights say the same here.
   */
  readonly notes?: readonly string[];
}

export interface FoundSae extends SaeOrigin {
  readonly path: string;
  /** Set for a file of another program: how it is opened again. */
  readonly foreign?: FoundForeign & { readonly told: Told };
}

/** What may have been meant by "org/repo", where there is no folder "org" here. */
async function hubHint(path: string): Promise<{ readonly mend?: string }> {
  const [, org] = /^(\w[\w.-]*)\/\w[\w.-]*(?:\/|$)/.exec(path) ?? [];
  if (org === undefined || (await stat(org).catch(() => undefined)) !== undefined) return {};
  return { mend: `if it is on the Hugging Face Hub, name it hf://${path}` };
}

/**
 * Finds an autoencoder: in a run folder the newest whole checkpoint; else a checkpoint, or what
 * another program wrote. What is on the Hub is fetched first. `weights` default: the average where
 * there is one. `told` is for files that do not say all. A path that is not there may choose one
 * below a folder that is (find-below.ts). Throws when the path holds none, or no average though it
 * was asked for.
 */
export async function findSae(path: string, weights?: WeightsKind, told: Told = {}): Promise<FoundSae> {
  if (isHubPath(path)) return findSae(await (await import("../interchange/from-hub.ts")).fetchSae(path), weights, told);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    const chosen = await (await belowFolders()).chosenBelow(path);
    if (chosen !== undefined) return findSae(chosen, weights, told);
    throw new SaettaError("there is no such file or folder", { where: path, ...(await hubHint(path)) });
  }
  const folder = found.isDirectory() ? path : dirname(path);
  const names = new Set(await disk.list(folder));
  const own = found.isDirectory() || [WEIGHTS, OWN_WEIGHTS, CFG].includes(basename(path));
  const weightsThere = own && names.has(CFG) && (names.has(WEIGHTS) || names.has(OWN_WEIGHTS));
  const isRun = found.isDirectory() && !weightsThere && (await isRunFolder(path, names));
  const foreign = weightsThere || isRun ? undefined : await (await interchange()).findForeign(path, names);
  if (foreign !== undefined) return fromForeign(foreign, folder, weights, told);
  if (!weightsThere && !isRun && !(own && names.has(CHECKPOINTS))) {
    if (found.isDirectory()) await (await belowFolders()).refuseFolderOfSaes(path);
    const what = found.isDirectory()
      ? "holds no autoencoder: no checkpoints, and"
      : "is no autoencoder that Saetta reads:";
    throw new SaettaError(`${what} ${FORMATS_IN_WORDS}`, { where: path });
  }
  if (!weightsThere) {
    const { checkpoint, refusals } = await newestCheckpoint(folder, INFERENCE_FILES);
    if (checkpoint === undefined)
      throw refusals[0]?.error ?? new SaettaError("the run has no checkpoint yet", { where: path });
    const { step, description, files } = checkpoint;
    return {
      path: checkpoint.path,
      description,
      weights: chosen(checkpoint.path, files.has(AVERAGE), weights),
      step,
      refusals,
    };
  }
  if (names.has(MANIFEST)) {
    const { step, description, files } = await openCheckpoint(folder, INFERENCE_FILES);
    return {
      path: folder,
      description,
      weights: chosen(folder, files.has(AVERAGE), weights),
      step,
      refusals: [],
    };
  }
  const where = join(folder, CFG);
  const json = await readJsonFile(where);
  const isOwn = typeof json === "object" && json !== null && "saetta" in json;
  const description = isOwn
    ? parseDescription(json, where)
    : await (await import("../interchange/sparsify.ts")).readDescription(folder);
  const file = weightsFile(description);
  if (!names.has(file)) {
    const { kind } = normalizationOf(description);
    throw new FormatError(
      `says that rows were normalised by ${kind}, so the weights must be in ${file}, which is not there`,
      { where },
    );
  }
  return {
    path: folder,
    description,
    weights: chosen(folder, names.has(AVERAGE), weights),
    step: undefined,
    refusals: [],
  };
}

/**
 * Whether a path names an autoencoder (whole or not) and not activations: a run folder, a folder of
 * an autoencoder or of several, or one of their files.
 */
export async function namesSae(path: string): Promise<boolean> {
  // Nothing is asked of the Hub yet: activations are in datasets, or called as such.
  if (isHubPath(path)) return parseHubPath(path).kind === "model" && !/\.(npy|h5|hdf5|arrow)$/.test(path);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return [WEIGHTS, OWN_WEIGHTS, CFG].includes(basename(path));
  const names = new Set(await disk.list(found.isDirectory() ? path : dirname(path)));
  const own = found.isDirectory()
    ? names.has(CFG) || names.has(CHECKPOINTS)
    : [WEIGHTS, OWN_WEIGHTS, CFG].includes(basename(path));
  return own || (await interchange()).isForeign(path, names);
}

const FORMATS_IN_WORDS = `no ${CFG} with ${WEIGHTS} (Saetta, sparsify) or sae_weights.safetensors (SAELens), no params.npz or params.safetensors (Gemma Scope), no hyperparams.json (Llama Scope), no torch file (OpenAI, dictionary_learning, Qwen-Scope, Goodfire)`;

async function fromForeign(
  foreign: FoundForeign,
  path: string,
  weights: WeightsKind | undefined,
  told: Told,
): Promise<FoundSae> {
  const { description, notes, close } = await (await interchange()).openForeign(foreign, told);
  await close();
  const about = { description, weights: chosen(path, false, weights), step: undefined, refusals: [] };
  return { path, ...about, notes, foreign: { ...foreign, told } };
}

function chosen(path: string, hasAverage: boolean, asked: WeightsKind | undefined): WeightsKind {
  if (asked === "ema" && !hasAverage) {
    throw new UsageError("no running average of the weights was kept", {
      where: path,
      mend: "use --weights raw, or train with --ema",
    });
  }
  return asked ?? (hasAverage ? "ema" : "raw");
}

/**
 * Writes the weights into the engine's `params`, as saved: where training multiplied rows by one
 * factor, they take rows as they are (checkpoint/fold.ts). The average is bias-corrected by 1 - m^t
 * (Adam's correction, Kingma and Ba 2015) and, unless `unitDecoder` is false or training left them
 * free, its decoder rows are brought back to norm 1, which averaging shortens. `params` may be a
 * shard's, from `firstLatent` on; parameters that the autoencoder does not have stay as they are.
 * Throws when a shape is wrong or a weight is not finite.
 */
export async function writeParams(
  engine: Engine,
  found: FoundSae,
  params: Params,
  unitDecoder = true,
  firstLatent = 0,
): Promise<void> {
  await withParams(found, async (read) => {
    const there = paramNames(found.description);
    for (const [name, { sharded }, tensor] of paramEntries(params)) {
      if (!there.includes(name)) continue;
      const all = await read(name, unitDecoder);
      const values = sharded ? partOf(all, firstLatent, tensor.shape) : all;
      const same = (values instanceof Float32Array ? "f32" : "f64") === engine.real;
      engine.write(
        tensor,
        bytesOf(same ? values : engine.real === "f32" ? Float32Array.from(values) : Float64Array.from(values)),
      );
    }
  });
}

/** One array of the weights, as `writeParams` writes it; f64 where the file has f64, else f32. */
export function readParam(found: FoundSae, name: ParamName, unitDecoder = true): Promise<Float32Array | Float64Array> {
  return withParams(found, (read) => read(name, unitDecoder));
}

type ReadParam = (name: ParamName, unitDecoder: boolean) => Promise<Float32Array | Float64Array>;

/** Opens the files of the weights once, for as long as `use` runs. */
async function withParams<T>(found: FoundSae, use: (read: ReadParam) => Promise<T>): Promise<T> {
  if (found.foreign !== undefined) {
    const foreign = await (await interchange()).openForeign(found.foreign, found.foreign.told);
    try {
      return await use((name) => foreign.read(name));
    } finally {
      await foreign.close();
    }
  }
  const file = await openWeights(found);
  try {
    const { dims } = found.description;
    const hasUnit = hasUnitDecoder(found.description);
    return await use(async (name, unitDecoder) => {
      const values = await safetensorsFloats(file, PARAMS[name].file, PARAMS[name].shape(dims));
      if (found.weights !== "ema") return values;
      return corrected(name, values, dims.dOut, { ...averageOf(file), unitDecoder: unitDecoder && hasUnit });
    });
  } finally {
    await file.close();
  }
}

/** The latents [first, first + shape[0]) of [n] or [n,d]. */
function partOf<T extends Float32Array | Float64Array>(
  values: T,
  first: number,
  [count = 0, width = 1]: readonly number[],
): T {
  return values.subarray(first * width, (first + count) * width) as T;
}

/** A running average of weights that began with zeros. */
export interface Average {
  /** m. */
  readonly decay: number;
  /** t: how often it was updated. */
  readonly updates: number;
  /** Whether the decoder rows of the weights have norm 1. */
  readonly unitDecoder: boolean;
}

/**
 * Divides an average, in place, by 1 - m^t, the share of it that is weights and not the zeros it
 * started from. Decoder rows that had norm 1 get it again: averaging shortens them.
 */
export function corrected<T extends Float32Array | Float64Array>(
  name: ParamName,
  values: T,
  d: number,
  { decay, updates, unitDecoder }: Average,
): T {
  // The others are copies of the last step's.
  if (!PARAMS[name].update.startsWith("adam")) return values;
  const factor = -1 / Math.expm1(updates * Math.log(decay));
  for (let i = 0; i < values.length; i++) values[i] = values[i]! * factor;
  if (name === "decoder" && unitDecoder) unitRows(values, d);
  return values;
}

function averageOf(file: Safetensors): Omit<Average, "unitDecoder"> {
  const decay = Number(file.metadata.get("decay"));
  const updates = Number(file.metadata.get("updates"));
  if (!(decay > 0 && decay < 1))
    throw new FormatError("its metadata do not say the decay of the average", { where: file.path });
  if (!Number.isSafeInteger(updates) || updates < 1) {
    throw new FormatError("the average holds no step yet", { where: file.path, mend: "use --weights raw" });
  }
  return { decay, updates };
}

/**
 * Throws FormatError unless the weights are of the shapes that cfg.json says: before memory is
 * taken for what a small file only claims. Files of others are checked as they are found.
 */
export async function checkWeights(found: FoundSae): Promise<void> {
  if (found.foreign !== undefined) return;
  const file = await openWeights(found);
  try {
    const { description } = found;
    for (const name of paramNames(description)) {
      const { file: tensor, shape } = PARAMS[name];
      checkShape(tensor, file.entry(tensor).shape, shape(description.dims), CFG, file.path);
    }
  } finally {
    await file.close();
  }
}

function openWeights({ path, weights, description }: FoundSae): Promise<Safetensors> {
  return openSafetensors(join(path, weights === "ema" ? AVERAGE : weightsFile(description)));
}

/** Brings the rows of [n,d] to norm 1, in place; rows of zeros stay. */
export function unitRows(values: Float32Array | Float64Array, d: number): void {
  for (let start = 0; start < values.length; start += d) {
    const row = values.subarray(start, start + d);
    let square = 0;
    for (const value of row) square += value * value;
    const norm = Math.sqrt(square);
    if (norm > 0) for (let i = 0; i < d; i++) row[i] = row[i]! / norm;
  }
}

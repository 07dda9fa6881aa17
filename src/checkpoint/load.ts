/**
 * A checkpoint folder -> training's whole state, after every byte has been compared with the
 * manifest.
 */

import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { COUNTERS, type Engine, type Params, type Real, type State, type Tensor } from "../engine/engine.ts";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import { AVERAGE, CFG, MANIFEST, OPTIMIZER, OWN_WEIGHTS, STATE, stepName, WEIGHTS } from "../run-files/names.ts";
import { parseDescription, type SaeDescription } from "../sae/description.ts";
import { type ParamName, type ParamSpec, paramEntries } from "../sae/params.ts";
import { bytesOf, float32Of, float64Of, readFully } from "../util/bytes.ts";
import { FormatError, hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { Fields, type JsonObject, readJsonFile } from "../util/json.ts";
import { foldOf } from "./fold.ts";
import { checkpointsFolder, savedSteps, TRAINED, weightsFile } from "./layout.ts";
import { entryOf, type ManifestEntry, readManifest } from "./manifest.ts";
import { disk, type Storage } from "./storage.ts";

export interface Checkpoint {
  readonly path: string;
  readonly step: number;
  readonly description: SaeDescription;
  /** What the tensors are stored in. */
  readonly real: Real;
  /** What computed it: `computedBy` of save.ts. */
  readonly computed: JsonObject;
  readonly progress: JsonObject;
  readonly files: ReadonlyMap<string, ManifestEntry>;
}

/** A checkpoint that cannot be used, and why. */
export interface Refusal {
  readonly path: string;
  readonly error: SaettaError;
}

/** What inference needs; the rest is three times as much to read. */
export const INFERENCE_FILES = [CFG, STATE, WEIGHTS, OWN_WEIGHTS, AVERAGE] as const;

/**
 * Opens one checkpoint folder. Sizes of all files are compared with the manifest, and the hashes of
 * those in `hashed` (default: all). FormatError names the damaged file.
 */
export async function openCheckpoint(path: string, hashed?: readonly string[]): Promise<Checkpoint> {
  const files = await readManifest(path);
  const mustList = (name: string): void => {
    if (!files.has(name))
      throw new FormatError(`does not list ${name}, which the checkpoint must have`, { where: join(path, MANIFEST) });
  };
  for (const name of [CFG, OPTIMIZER, STATE]) mustList(name);
  for (const [name, entry] of files)
    await compare(join(path, name), entry, hashed === undefined || hashed.includes(name));
  const description = parseDescription(await readJsonFile(join(path, CFG)), join(path, CFG));
  mustList(weightsFile(description));
  const where = join(path, STATE);
  const state = new Fields(await readJsonFile(where), STATE, where);
  const real = state.string("real");
  if (real !== "f32" && real !== "f64")
    throw new FormatError(`"real" must be "f32" or "f64", but is "${real}"`, { where });
  const [computed, progress] = [state.fields("computed").object, state.fields("progress").object];
  return { path, step: state.integer("step"), description, real, computed, progress, files };
}

/**
 * The newest checkpoint of a run folder that is whole; what was newer and damaged is returned as
 * refusals. `checkpoint` is undefined when there is none.
 */
export async function newestCheckpoint(
  runDir: string,
  hashed?: readonly string[],
): Promise<{ readonly checkpoint: Checkpoint | undefined; readonly refusals: readonly Refusal[] }> {
  const refusals: Refusal[] = [];
  let steps = await savedSteps(runDir);
  for (let step = steps.shift(); step !== undefined; step = steps.shift()) {
    const path = join(checkpointsFolder(runDir), stepName(step));
    try {
      return { checkpoint: await openCheckpoint(path, hashed), refusals };
    } catch (error) {
      if (!(error instanceof SaettaError)) throw error;
      const now = await savedSteps(runDir);
      if (now.includes(step)) refusals.push({ path, error });
      // The run goes on meanwhile, and has removed this one for a newer one.
      else steps = now.filter((each) => !refusals.some((refusal) => refusal.path.endsWith(stepName(each))));
    }
  }
  return { checkpoint: undefined, refusals };
}

/**
 * Renames damaged checkpoints to `<step>.damaged`, so that a resumed run can save those steps
 * again. Nothing is deleted.
 */
export async function setAside(refusals: readonly Refusal[], storage: Storage = disk): Promise<void> {
  for (const { path } of refusals) {
    const folder = join(path, "..");
    const taken = new Set(await storage.list(folder));
    let name = `${basename(path)}.damaged`;
    for (let i = 2; taken.has(name); i++) name = `${basename(path)}.damaged-${i}`;
    await storage.rename(path, join(folder, name));
  }
}

async function compare(path: string, { size, sha256 }: ManifestEntry, hashed: boolean): Promise<void> {
  const mend = { where: path, mend: "use an earlier checkpoint" };
  const unreadable = (cause: unknown): never => {
    const what = hasCode(cause, "ENOENT") ? "the file is missing" : `cannot be read (${messageOf(cause)})`;
    throw new FormatError(what, { ...mend, cause });
  };
  const found = await stat(path).catch(unreadable);
  if (found.size !== size)
    throw new FormatError(`damaged: has ${found.size} bytes, but the manifest says ${size}`, mend);
  if (!hashed) return;
  const now = await entryOf(path).catch(unreadable);
  if (now.sha256 !== sha256)
    throw new FormatError("damaged: its bytes are not those that were saved (SHA-256 differs)", mend);
}

/**
 * Writes a checkpoint into `state`, whose shapes must be those of the checkpoint, or of a shard of
 * its latents: `rows` says from which on, and of how many. f32 and f64 are converted into each
 * other.
 */
export async function restoreState(
  engine: Engine,
  checkpoint: Checkpoint,
  state: State,
  rows?: { readonly first: number; readonly of: number },
): Promise<void> {
  const readAs = (
    file: Safetensors,
    name: string,
    like: Tensor,
    { sharded }: Pick<ParamSpec, "sharded">,
  ): Promise<Uint8Array> => readPart(file, name, like, sharded ? rows : undefined);
  const restore = async (
    file: Safetensors,
    params: Params,
    prefix = "",
    isWanted: (name: ParamName) => boolean = () => true,
  ): Promise<void> => {
    for (const [name, spec, tensor] of paramEntries(params)) {
      if (isWanted(name)) engine.write(tensor, await readAs(file, prefix + spec.file, tensor, spec));
    }
  };
  const restoreParams = (path: string, params: Params): Promise<void> =>
    withFile(path, (file) => restore(file, params));
  const average = checkpoint.files.has(AVERAGE);
  if (average !== (state.ema !== undefined)) {
    throw new SaettaError(
      `${average ? "has a" : "has no"} running average of the weights, but the run ${average ? "keeps none" : "needs one"}`,
      {
        where: checkpoint.path,
      },
    );
  }
  await restoreParams(join(checkpoint.path, weightsFile(checkpoint.description)), state.params);
  if (state.ema !== undefined) await restoreParams(join(checkpoint.path, AVERAGE), state.ema);
  await withFile(join(checkpoint.path, OPTIMIZER), async (file) => {
    if (file.metadata.get("counters") !== COUNTERS.join(",")) {
      throw new FormatError(`its counters are not "${COUNTERS.join(",")}"`, { where: file.path });
    }
    engine.write(state.counters, await readAs(file, "counters", state.counters, { sharded: false }));
    engine.write(state.age, await readAs(file, "age", state.age, { sharded: true }));
    const { folds } = foldOf(checkpoint.description);
    await restore(file, state.params, TRAINED, folds);
    if (state.ema !== undefined) await restore(file, state.ema, `${TRAINED}ema.`, folds);
    await restore(file, state.m, "m.");
    await restore(file, state.v, "v.");
  });
}

async function withFile(path: string, use: (file: Safetensors) => Promise<void>): Promise<void> {
  const file = await openSafetensors(path);
  try {
    await use(file);
  } finally {
    await file.close();
  }
}

/**
 * The bytes of one tensor as `like` stores them; or of the latents of it that `like` has room for,
 * from `rows.first` on.
 */
async function readPart(
  file: Safetensors,
  name: string,
  like: Tensor,
  rows: { readonly first: number; readonly of: number } | undefined,
): Promise<Uint8Array> {
  const entry = file.tensors.get(name);
  const needed = rows === undefined ? like.shape : [rows.of, ...like.shape.slice(1)];
  if (entry !== undefined && entry.shape.join() !== needed.join()) {
    throw new FormatError(`tensor "${name}" is [${entry.shape.join(", ")}], but [${needed.join(", ")}] is needed`, {
      where: file.path,
    });
  }
  let bytes: Uint8Array;
  if (entry === undefined || rows === undefined || like.shape[0] === rows.of) bytes = await file.read(name);
  else {
    const rowBytes = (entry.end - entry.begin) / rows.of;
    bytes = new Uint8Array(like.shape[0]! * rowBytes);
    await readFully(file.handle, bytes, entry.begin + rows.first * rowBytes, file.path);
  }
  const stored = entry?.dtype.toLowerCase();
  if (stored === like.dtype) return bytes;
  if (stored === "f64" && like.dtype === "f32") return bytesOf(Float32Array.from(float64Of(bytes)));
  if (stored === "f32" && like.dtype === "f64") return bytesOf(Float64Array.from(float32Of(bytes)));
  throw new FormatError(`tensor "${name}" is ${entry?.dtype}, which cannot become ${like.dtype}`, { where: file.path });
}

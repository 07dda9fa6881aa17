/** Training's whole state -> a checkpoint folder. */

import type { Grid } from "../collective/collective.ts";
import type { DType, Engine, Params, Real, State, Tensor } from "../engine/engine.ts";
import { COUNTERS } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { type SafetensorsDType, type SafetensorsPart, writeSafetensors } from "../formats/safetensors.ts";
import { AVERAGE, CFG, CHECKPOINTS, OPTIMIZER, STATE, stepName } from "../run-files/names.ts";
import { architectureNamed } from "../sae/architectures/index.ts";
import { descriptionJson, FORMAT_VERSION, normalizationOf, type SaeDescription } from "../sae/description.ts";
import { type ParamSpec, paramEntries } from "../sae/params.ts";
import { BYTES, formatBytes } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import type { JsonObject } from "../util/json.ts";
import { VERSION } from "../util/version.ts";
import { type Content, commitFolder, removeFolder } from "./commit.ts";
import { divided, foldOf, mayFold } from "./fold.ts";
import { checkpointsFolder, savedSteps, TRAINED, weightsFile } from "./layout.ts";
import { disk, freeBytes, isDiskFull, type Storage } from "./storage.ts";

export interface Snapshot {
  readonly engine: Engine;
  readonly state: State;
  readonly step: number;
  readonly description: SaeDescription;
  /**
   * Whatever the trainer needs to go on: position in the order, tokens, length of metrics.jsonl.
   * Given back as it is.
   */
  readonly progress: JsonObject;
  /** The ranks that compute; default: one. */
  readonly grid?: Grid;
}

/**
 * Saves `runDir/checkpoints/step-%08d` and returns its path. The run folder exists. Tensors are
 * read one at a time: nothing may change the state until the promise is settled. Throws SaettaError
 * when the step was saved already, a number is not finite or the disk refuses; nothing saved before
 * is touched.
 */
export async function saveCheckpoint(runDir: string, snapshot: Snapshot, storage: Storage = disk): Promise<string> {
  const folder = await folderOf(runDir, storage);
  const files = (await filesOf(runDir, snapshot)).map(
    (file): Content =>
      "json" in file
        ? file
        : { name: file.name, content: (write) => writeSafetensors(write, file.parts, file.metadata) },
  );
  return sayingNeeds(runDir, snapshot.state, () => commitFolder(folder, stepName(snapshot.step), files, storage));
}

/** The folder of the checkpoints of a run, made when it is not there. */
export async function folderOf(runDir: string, storage: Storage): Promise<string> {
  const folder = checkpointsFolder(runDir);
  if (!(await storage.list(runDir)).includes(CHECKPOINTS)) {
    await storage.makeFolder(folder);
    await storage.syncFolder(runDir);
  }
  return folder;
}

/**
 * A tensor of a checkpoint. `sharded`: one row per latent, of which a shard has its own; otherwise
 * all ranks have the same.
 */
export interface TensorPart extends SafetensorsPart {
  readonly sharded: boolean;
}

/** A file of tensors: of a rank that has one shard, with that shard's tensors. */
export interface TensorFile {
  readonly name: string;
  readonly parts: readonly TensorPart[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** The files of a checkpoint, in the order in which they are written. */
export async function filesOf(
  runDir: string,
  { engine, state, step, description, progress, grid }: Snapshot,
): Promise<readonly (TensorFile | (Content & { readonly json: true }))[]> {
  const { kind } = normalizationOf(description);
  const fold = foldOf(description);
  const part = (name: string, t: Tensor, { sharded }: Pick<ParamSpec, "sharded">, by = 1): TensorPart => ({
    name,
    sharded,
    dtype: dtypeName(t.dtype),
    shape: t.shape,
    bytes: async () => {
      const bytes = await engine.read(t);
      const real = t.dtype === "f64" || t.dtype === "f32" ? t.dtype : undefined;
      const bad = real === undefined ? -1 : firstNonFinite(bytes, real, 0, bytes.byteLength / BYTES[real]);
      if (bad >= 0) throw notFinite(runDir, step, name, bad);
      return by === 1 ? bytes : divided(bytes, t.dtype, by);
    },
  });
  const parts = (params: Params, prefix: string) =>
    paramEntries(params).map(([, spec, tensor]) => part(prefix + spec.file, tensor, spec));
  const weights = (params: Params) =>
    paramEntries(params).map(([name, spec, tensor]) => part(spec.file, tensor, spec, fold.divisor(name)));
  const trained = (params: Params, prefix: string) =>
    paramEntries(params).flatMap(([name, spec, tensor]) =>
      fold.folds(name) ? [part(prefix + spec.file, tensor, spec)] : [],
    );
  const optimizer = [
    part("counters", state.counters, { sharded: false }),
    ...parts(state.m, "m."),
    ...parts(state.v, "v."),
    part("age", state.age, { sharded: true }),
  ];
  // Division rounds: what was divided is kept as it was, too, for a run that goes on.
  if (kind === "scale") {
    optimizer.push(...trained(state.params, TRAINED));
    if (state.ema !== undefined) optimizer.push(...trained(state.ema, `${TRAINED}ema.`));
  }
  const counters = await readNumbers(engine, state.counters);
  const { dims, spec } = description;
  const average = {
    average: "running average from 0, not bias-corrected: divide by 1 - decay^updates",
    decay: String(description.saetta?.emaDecay ?? ""),
    updates: String(counters[COUNTERS.indexOf("ema")] ?? 0),
  };
  return [
    json(CFG, descriptionJson(description)),
    { name: weightsFile(description), parts: weights(state.params), metadata: { format: "pt" } },
    ...(state.ema === undefined ? [] : [{ name: AVERAGE, parts: weights(state.ema), metadata: average }]),
    { name: OPTIMIZER, parts: optimizer, metadata: { counters: COUNTERS.join(",") } },
    json(STATE, {
      format_version: FORMAT_VERSION,
      step,
      shape: {
        d: dims.dIn,
        ...(dims.untied === true ? { d_out: dims.dOut } : {}),
        n: dims.n,
        ...architectureNamed(spec.architecture).numbers(spec),
      },
      real: engine.real,
      computed: computedBy(engine, grid),
      progress,
    }),
  ];
}

/**
 * Tensors of a checkpoint take this many bytes, all else far less than this for each of its files.
 */
const REST = 8192;

/** Bytes that a checkpoint of the state takes, at most. */
export function checkpointBytes({ params, m, v, ema, age, counters }: State): number {
  const bytes = ({ dtype, shape }: Tensor) => shape.reduce((product, size) => product * size, BYTES[dtype]);
  const groups = [params, m, v, ...(ema === undefined ? [] : [ema])];
  const tensors = [...groups.flatMap((group) => paramEntries(group).map(([, , tensor]) => tensor)), age, counters];
  const folded =
    (ema === undefined ? 1 : 2) *
    paramEntries(params).reduce(
      (sum, [name, , tensor]) => sum + (mayFold(name, params.untied === true) ? bytes(tensor) : 0),
      0,
    );
  return tensors.reduce((sum, tensor) => sum + bytes(tensor), folded) + 6 * REST;
}

/**
 * What `work` does in the run folder; when there is no room for it, the error says how much a
 * checkpoint of the state needs and what is free.
 */
export async function sayingNeeds<T>(runDir: string, state: State, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (!isDiskFull(thrown)) throw thrown;
    const needed = checkpointBytes(state);
    const free = await freeBytes(runDir);
    const room = free === undefined ? "" : `, ${formatBytes(free)} are free`;
    throw new SaettaError(`no room on the disk: a checkpoint needs ${needed} bytes (${formatBytes(needed)})${room}`, {
      where: thrown.where ?? runDir,
      mend: `make room, then saetta resume ${runDir}`,
      cause: thrown.cause,
    });
  }
}

/** What decides the bits of a run beside its config and its data. */
export function computedBy({ name, description, build }: Engine, grid?: Grid): JsonObject {
  const ranks: JsonObject =
    grid === undefined || grid.size === 1 ? {} : { grid: `${grid.shards} shards, ${grid.replicas} replicas` };
  return { version: VERSION, engine: name, description, build: build ?? description, ...ranks };
}

/**
 * Engines find such steps before they change anything; if one did not, the checkpoints before are
 * worth more than this one.
 */
function notFinite(runDir: string, step: number, name: string, element: number): SaettaError {
  return new SaettaError(`"${name}" is not finite at element ${element}, so step ${step} is not saved`, {
    where: runDir,
    mend: "the checkpoint before it is whole; start a new run from it with --init and a lower --lr",
  });
}

function json(name: string, value: JsonObject): Content & { readonly json: true } {
  const text = `${JSON.stringify(value, undefined, 2)}\n`;
  return { name, json: true, content: (write) => write(new TextEncoder().encode(text)) };
}

const DTYPE_NAMES: { readonly [D in Real | "u32"]: SafetensorsDType } = { f64: "F64", f32: "F32", u32: "U32" };

function dtypeName(dtype: DType): SafetensorsDType {
  if (dtype === "f64" || dtype === "f32" || dtype === "u32") return DTYPE_NAMES[dtype];
  throw new RangeError(`a state has no ${dtype} tensors`);
}

/**
 * Removes all but the newest `keep` (at least 1) checkpoints. Call it once the newest is saved.
 * Returns the steps removed.
 */
export async function pruneCheckpoints(runDir: string, keep: number, storage: Storage = disk): Promise<number[]> {
  const old = (await savedSteps(runDir, storage)).slice(Math.max(1, keep));
  for (const step of old) await removeFolder(checkpointsFolder(runDir), stepName(step), storage);
  return old;
}

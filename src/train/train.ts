/** Starting a run. */

import { basename, join } from "node:path";
import type { RunLock } from "../checkpoint/lock.ts";
import { waitForRoom } from "../checkpoint/room.ts";
import { checkpointBytes } from "../checkpoint/save.ts";
import type { Collective } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { chooseGrid } from "../collective/world.ts";
import { checkOptions, type TrainOptions } from "../config.ts";
import { START } from "../data/batches.ts";
import { countRows, isIn } from "../data/holdout.ts";
import { PassedOver, positionsIn, preflight, type RunPreflight } from "../data/preflight.ts";
import { notesOf, zeroRowsNote } from "../data/preflight-words.ts";
import { stoppable } from "../data/rows-source.ts";
import type { Source } from "../data/source.ts";
import { geometricMedian, meanVariance, normalizationFor, normalizeRows, strideSample } from "../data/statistics.ts";
import type { Normalization, State } from "../engine/engine.ts";
import { type FoundSae, findSae, writeParams } from "../inference/weights.ts";
import { paramsOf } from "../sae/architectures/index.ts";
import { normalizationOf } from "../sae/description.ts";
import { otherOrigin } from "../sae/origin.ts";
import { UsageError } from "../util/errors.ts";
import { smallDefaults } from "./advice.ts";
import { type Pace, secondsFor, timeSteps } from "./estimate.ts";
import { fromFirst } from "./rank-shard.ts";
import { scaleNotes } from "./recipe-notes.ts";
import { TrainRun } from "./run.ts";
import { createRunFolder, discardRunFolder } from "./run-folder.ts";
import { type Beginning, hyperOf, type Plan, plan, trainFrom } from "./session.ts";
import { allocState, readReals, rescaleEncoder, shareState, startParams, unfold } from "./state.ts";
import { MOST_ROWS } from "./validate.ts";

export interface RunOptions {
  /** Stops the run, with a checkpoint. */
  readonly signal?: AbortSignal | undefined;
  /** Told what is worth knowing and no error. */
  readonly onNote?: ((note: string) => void) | undefined;
  /** @internal The ranks that train together, each with this call; the caller closes it. */
  readonly collective?: Collective | undefined;
}

export interface TrainArguments extends RunOptions {
  /** The run folder; default `runs/<data>-<UTC time>`; false writes nothing. */
  readonly out?: string | false | undefined;
}

/**
 * Trains an autoencoder on the rows of `source` (TopK with an auxiliary loss over dead latents: Gao et al. 2024, "Scaling and evaluating sparse autoencoders"). The
 * options are those of `saetta train`, in camelCase. Resolves when the run is under way. Rejects when it cannot be: UsageError for options that make no sense, SaettaError for
 * what the world does not have (rows, memory, a folder to write into). The caller closes the source once `finished` is settled.
 */
export async function train(given: Source, options: TrainOptions & TrainArguments = {}): Promise<TrainRun> {
  const { out, signal, onNote = () => undefined, collective = solo(), ...rest } = options;
  const source = stoppable(given, signal);
  const asked = checkOptions(rest, undefined, (name) => name);
  chooseGrid(0, collective.grid.size, asked);
  const dir =
    out === false ? undefined : await fromFirst(collective, async () => out ?? defaultOut(source, new Date()));
  const initial = asked.init === undefined ? undefined : await findSae(asked.init, undefined, { otherwiseK: asked.k });
  const planned = await plan(
    source,
    initial === undefined ? asked : likeInitial(asked, initial, source),
    collective,
    onNote,
  );
  let lock: RunLock | undefined;
  try {
    const other =
      initial && otherOrigin(source.paths.join(", "), source.origin, asked.init!, initial.description.saetta);
    if (other !== undefined) onNote(other);
    if (initial === undefined)
      for (const each of smallDefaults(asked, planned.config, planned.budget, source.dIn)) onNote(each);
    if (dir !== undefined && collective.grid.rank === 0)
      lock = await createRunFolder(dir, planned.config, planned.record);
    if (lock?.warning !== undefined) onNote(lock.warning);
    const outset = await startAnew(planned, initial, onNote);
    if (dir !== undefined && lock !== undefined) await roomToSave(dir, planned, outset.state, signal, onNote);
    return launch(planned, lock, dir, { signal, onNote }, outset);
  } catch (error) {
    await planned.engine.close();
    if (dir !== undefined && lock !== undefined) await discardRunFolder(dir, lock);
    throw error;
  }
}

/** A run before its next step. */
export interface Outset {
  readonly state: State;
  readonly begin: Beginning;
  /** How long the steps to come will take. */
  readonly seconds?: number | undefined;
  /** What the sample of the rows showed, where one was drawn. */
  readonly found?: RunPreflight | undefined;
}

export function stateOf({ engine, spec, shard, config }: Plan): State {
  return allocState(engine, shard.dims, paramsOf(spec), config.ema > 0);
}

export async function startAnew(
  planned: Plan,
  initial: FoundSae | undefined,
  onNote: (note: string) => void,
): Promise<Outset> {
  const state = stateOf(planned);
  const { found, pace, ...started } = await start(planned, state, initial, onNote);
  const begin = { progress: { step: 0, tokens: 0, position: START }, ...started, elapsed: 0, metricsBytes: 0 };
  return { state, begin, seconds: pace && secondsOf(planned, pace), found };
}

/** A disk that is too small for one checkpoint is known before the first step: it stops the run, or is waited for. */
export async function roomToSave(
  runDir: string,
  { config, shard }: Plan,
  state: State,
  signal: AbortSignal = new AbortController().signal,
  onNote: (note: string) => void = () => undefined,
): Promise<void> {
  const needed = checkpointBytes(state) * shard.grid.shards;
  await waitForRoom({ runDir, needed, onDiskFull: config.onDiskFull, signal, onNote });
}

export function launch(
  planned: Plan,
  lock: RunLock | undefined,
  out: string | undefined,
  { signal, onNote = () => undefined }: RunOptions,
  { state, begin, seconds, found }: Outset,
): TrainRun {
  const { config, steps, budget, engine, source, order, choice, memory } = planned;
  const data = {
    description: source.description,
    rowsPerEpoch: order.rowsPerEpoch,
    heldOut: countRows(choice.holdout),
    excluded: choice.excluded,
    zeros: choice.zeros,
    above: choice.above,
    masked: choice.masked.size,
    preflight: found,
  };
  const forecast = { memory, seconds };
  const trainedBefore = begin.progress.tokens;
  return new TrainRun(
    { config, out, steps, budget, engine: engine.description, data, forecast, trainedBefore, signal },
    (run) => trainFrom(planned, state, begin, out, run, onNote).finally(() => lock?.release()),
  );
}

/** What the sample of the rows decides. */
interface Decided {
  readonly mseScale: number;
  readonly normalization: Normalization;
  /** The pre-bias [d] of a new autoencoder. */
  readonly median: readonly number[] | null;
}

/** Fills the parameters of a new run, from normalised rows; says what the sample of them shows, and times the run's steps on it. Of several ranks the first draws the sample. */
async function start(
  planned: Plan,
  state: State,
  initial: FoundSae | undefined,
  onNote: (note: string) => void,
): Promise<Pick<Beginning, "mseScale" | "normalization"> & { readonly found?: RunPreflight; readonly pace?: Pace }> {
  const { source, choice, config, engine, collective, shard, budget } = planned;
  const { dims } = shard;
  const sampled = config.mseScale === "auto" || initial === undefined;
  if (choice.zeros > 0) onNote(zeroRowsNote(choice.zeros, source.rows));
  const passed = new PassedOver(
    (row) => isIn(choice.holdout, row) || choice.masked.has(row) || choice.leftOut.has(row),
  );
  let sample: Float32Array = new Float32Array(0);
  let found = undefined as RunPreflight | undefined;
  const { mseScale, normalization, median } = await fromFirst<Decided>(collective, async () => {
    if (sampled) {
      const { values, numbers, everything } = await strideSample(source, {
        excluded: choice.untrained,
        wanted: config.statisticsRows,
        seed: config.seed,
        nonFinite: config.nonFinite,
        passedOver: passed.note,
      });
      sample = values;
      const positionOf = positionsIn(source, choice.masked);
      // Of the rows as they are in the file.
      const looked = preflight(sample, dims.dIn, positionOf && numbers.map(positionOf));
      found = { ...looked, everything, nonFinite: passed.nonFinite, excluded: passed.excluded };
      for (const note of notesOf(found)) onNote(note);
    }
    const by =
      initial === undefined
        ? normalizationFor(config.normalize, sample, dims.dIn)
        : normalizationOf(initial.description);
    normalizeRows(sample, dims.dIn, by);
    const scale = config.mseScale === "auto" ? 1 / meanVariance(sample, dims.dIn) : config.mseScale;
    if (found !== undefined) {
      const spread = Math.sqrt(config.mseScale === "auto" ? 1 / scale : meanVariance(sample, dims.dIn));
      for (const note of scaleNotes(config, by, spread, found.norms.median / Math.sqrt(dims.dIn))) onNote(note);
    }
    if (initial !== undefined) return { mseScale: scale, normalization: by, median: null };
    const { median: middle, converged, iterations } = geometricMedian(sample, dims.dIn);
    if (!converged)
      onNote(`the geometric median still moved after ${iterations} iterations; the run starts from where it was`);
    return { mseScale: scale, normalization: by, median: [...middle] };
  });
  const { kind, factor } = normalization;
  if (kind === "unit" || kind === "layer_norm")
    onNote(`rows are normalised (${kind}); losses and FVU are of normalised rows`);
  const hyper = { ...hyperOf(config, mseScale), lr: config.lr };
  if (initial === undefined) {
    startParams(engine, state.params, dims, config.seed, Float64Array.from(median!), shard.firstLatent);
    if (config.encoderRescale)
      await rescaleEncoder(engine, state.params, shard, config.seed, { ...hyper, lr: 0, rows: 1 });
  } else {
    await writeParams(engine, initial, state.params, true, shard.firstLatent);
    const [least, most] = rowNorms(await readReals(engine, state.params.decoder), dims.dIn);
    if (least < 1 - UNIT || most > 1 + UNIT) {
      onNote(
        `rows of the decoder of ${config.init} have norms from ${least.toPrecision(3)} to ${most.toPrecision(3)}; training keeps them at 1, so its first step changes what it says`,
      );
    }
    if (kind === "scale") await unfold(engine, state.params, factor);
  }
  // Several ranks would not agree on how many steps to time.
  if (shard.grid.size > 1) shareState(engine, state, shard);
  if (found === undefined || shard.grid.size > 1) return { mseScale, normalization, ...(found && { found }) };
  const pace = await timeSteps(engine, shard, state, sample, Math.min(config.batch, budget), hyper);
  return { mseScale, normalization, found, pace };
}

/** What rounding to 16 bits may do to a norm of 1. */
const UNIT = 0.01;

/** Smallest and largest norm of the rows [n,d]. */
function rowNorms(values: Float32Array | Float64Array, d: number): readonly [number, number] {
  let [least, most] = [Number.POSITIVE_INFINITY, 0];
  for (let start = 0; start < values.length; start += d) {
    let square = 0;
    for (let i = start; i < start + d; i++) square += values[i]! * values[i]!;
    [least, most] = [Math.min(least, square), Math.max(most, square)];
  }
  return [Math.sqrt(least), Math.sqrt(most)];
}

/** Seconds of the run's steps and evaluations. */
function secondsOf({ config, choice, steps, budget }: Plan, pace: Pace): number {
  const heldOut = countRows(choice.holdout);
  const evaluations = config.evalEvery > 0 ? Math.ceil(steps / config.evalEvery) : 1;
  return secondsFor(pace, steps, Math.min(config.batch, budget), evaluations, Math.min(MOST_ROWS, heldOut));
}

/** Width, k and normalisation come from the autoencoder that the run starts from, where they are not asked for. */
function likeInitial(asked: TrainOptions, initial: FoundSae, source: Source): TrainOptions {
  const { dims, spec } = initial.description;
  const { dIn: d, n } = dims;
  const where = asked.init ?? "";
  if (d !== source.dIn)
    throw new UsageError(`reads rows of width ${d}, but the data has width ${source.dIn}`, {
      where,
      mend: "choose another --init",
    });
  const latents = asked.latents ?? (asked.expansion === undefined ? n : Math.round(asked.expansion * d));
  if (latents !== n)
    throw new UsageError(`has ${n} latents, but ${latents} were asked for`, {
      where,
      mend: "leave out --latents and --expansion",
    });
  const { kind } = normalizationOf(initial.description);
  if (asked.normalize !== undefined && asked.normalize !== kind) {
    throw new UsageError(`was trained with --normalize ${kind}, not ${asked.normalize}`, {
      where,
      mend: "leave out --normalize",
    });
  }
  const { expansion: _, ...rest } = asked;
  // The weights already have their scale; rescaling them would not be starting from them.
  if (asked.encoderRescale)
    throw new UsageError("--encoder-rescale and --init exclude each other", { mend: "leave one of them out" });
  return { ...rest, latents: n, k: asked.k ?? spec.k, normalize: kind, encoderRescale: false };
}

function defaultOut({ paths }: Source, now: Date): string {
  const name = basename(paths[0] ?? "run").replace(/\.[^.]+$/, "");
  return join("runs", `${name}-${now.toISOString().replaceAll(/[-:]|\.\d+/g, "")}`);
}

/** Starting a run, and going on with one. */

import { basename, join } from "node:path";
import { type Checkpoint, newestCheckpoint, openCheckpoint, restoreState, setAside } from "../checkpoint/load.ts";
import { lockRun, type RunLock } from "../checkpoint/lock.ts";
import { computedBy } from "../checkpoint/save.ts";
import type { Collective } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { chooseGrid } from "../collective/world.ts";
import { CHANGEABLE, checkOptions, flagOf, type TrainOptions, totalSteps } from "../config.ts";
import { START } from "../data/batches.ts";
import { countRows, isIn } from "../data/holdout.ts";
import { openSource } from "../data/open.ts";
import { PassedOver, preflight, type RunPreflight } from "../data/preflight.ts";
import { stoppable } from "../data/rows-source.ts";
import type { Source } from "../data/source.ts";
import { geometricMedian, meanVariance, normalizationFor, normalizeRows, strideSample } from "../data/statistics.ts";
import type { Normalization, State } from "../engine/engine.ts";
import { type FoundSae, findSae, writeParams } from "../inference/weights.ts";
import { normalizationOf } from "../sae/description.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, type JsonObject } from "../util/json.ts";
import { type Pace, secondsFor, timeSteps } from "./estimate.ts";
import type { Progress } from "./loop.ts";
import { fromFirst } from "./part.ts";
import { TrainRun } from "./run.ts";
import { createRunFolder, discardRunFolder, readRunConfig, writeConfig } from "./run-folder.ts";
import { type Beginning, factsOf, hyperOf, type Plan, plan, trainFrom } from "./session.ts";
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
    if (dir !== undefined && collective.grid.rank === 0) lock = await createRunFolder(dir, planned.config);
    if (lock?.warning !== undefined) onNote(lock.warning);
    return launch(planned, lock, dir, { signal, onNote }, await startAnew(planned, initial, onNote));
  } catch (error) {
    await planned.engine.close();
    if (dir !== undefined && lock !== undefined) await discardRunFolder(dir, lock);
    throw error;
  }
}

/** What a run may be given when it goes on; everything else is fixed. */
export interface ResumeArguments extends RunOptions {
  /** Where the files are now, or the source of rows that came from the program. The caller closes a source. */
  readonly data?: readonly string[] | Source;
}

/**
 * Goes on from the newest checkpoint of a run folder that is whole; a run that has none yet begins anew. `changes` may extend the budget, move the data, or change
 * engine and intervals; anything else is a UsageError naming the fixed value. The options of the run are in its config.json.
 */
export async function resume(dir: string, changes: TrainOptions & ResumeArguments = {}): Promise<TrainRun> {
  const { signal, onNote = () => undefined, collective = solo(), data: moved, ...given } = changes;
  const changed = checkOptions(given, undefined, (name) => name);
  const { options, data } = await readRunConfig(dir);
  checkChanges(dir, options, changed);
  const lock = collective.grid.rank === 0 ? lockRun(dir) : undefined;
  if (lock?.warning !== undefined) onNote(lock.warning);
  let source: Source | undefined;
  let planned: Plan | undefined;
  try {
    const checkpoint = await commonCheckpoint(dir, collective, onNote);
    source = stoppable(await sourceToGoOn(dir, moved ?? data, options.dataset), signal);
    const begin = checkpoint && beginningOf(checkpoint, source);
    const { tokens, epochs, ...rest } = options;
    const budget =
      changed.tokens !== undefined || changed.epochs !== undefined
        ? {}
        : tokens === undefined
          ? { epochs }
          : { tokens };
    planned = await plan(source, { ...rest, ...budget, ...changed }, collective, onNote);
    let outset: Outset;
    if (checkpoint !== undefined && begin !== undefined) {
      checkNormalization(planned, begin.normalization, checkpoint.path);
      planned = goOn(planned, begin.progress, checkpoint.path);
      if (planned.steps === begin.progress.step)
        onNote("the run has spent its budget already; --tokens or --epochs extend it");
      noteOtherBits(checkpoint, planned, onNote);
      const state = allocState(planned.engine, planned.part.shape, planned.config.ema > 0);
      const { firstLatent, whole } = planned.part;
      await restoreState(planned.engine, checkpoint, state, { first: firstLatent, of: whole.n });
      const { step } = begin.progress;
      outset = { state, begin, seconds: step === 0 ? undefined : (begin.elapsed / step) * (planned.steps - step) };
    } else {
      onNote(`${dir} has no checkpoint yet, so the run begins anew`);
      outset = await startAnew(planned, options.init === undefined ? undefined : await findSae(options.init), onNote);
    }
    if (lock !== undefined) await writeConfig(dir, planned.config);
    const run = launch(planned, lock, dir, { signal, onNote }, outset);
    const opened = source;
    if (!isSource(moved)) run.finished.finally(() => opened.close()).catch(() => undefined);
    return run;
  } catch (error) {
    await planned?.engine.close();
    if (!isSource(moved)) await source?.close();
    lock?.release();
    throw error;
  }
}

function isSource(data: readonly string[] | Source | undefined): data is Source {
  return data !== undefined && "read" in data;
}

async function sourceToGoOn(
  dir: string,
  data: readonly string[] | Source,
  dataset: string | undefined,
): Promise<Source> {
  if (!isSource(data)) {
    if (data.length > 0) return openSource(data, dataset === undefined ? {} : { dataset });
    throw new UsageError("was trained on rows of a program, not on files", {
      where: dir,
      mend: "give them again: resume(dir, { data: fromRows(...) })",
    });
  }
  if (data.stream === "once")
    throw new UsageError("a run cannot go on with rows that are read once", {
      where: dir,
      mend: "give a function that returns the rows anew",
    });
  return data;
}

function checkChanges(dir: string, options: TrainOptions, changed: TrainOptions): void {
  for (const [name, value] of Object.entries(changed) as [keyof TrainOptions, unknown][]) {
    const fixed = options[name];
    if (CHANGEABLE.includes(name) || JSON.stringify(value) === JSON.stringify(fixed)) continue;
    throw new UsageError(
      `${flagOf(name)} is ${fixed === undefined ? "not set" : JSON.stringify(fixed)} in this run and cannot be changed`,
      {
        where: dir,
        mend: "start a new run, with --init to begin from these weights",
      },
    );
  }
}

function checkNormalization({ config }: Plan, { kind }: Normalization, where: string): void {
  if (config.normalize === kind) return;
  throw new UsageError(`was trained with --normalize ${kind}, but the config of the run says ${config.normalize}`, {
    where,
    mend: "put the config back as it was",
  });
}

/** undefined for a run that was ended before it saved anything. */
async function usableCheckpoint(dir: string, onNote: (note: string) => void): Promise<Checkpoint | undefined> {
  const { checkpoint, refusals } = await newestCheckpoint(dir);
  if (checkpoint === undefined) {
    if (refusals.length === 0) return undefined;
    throw new SaettaError(`none of its checkpoints is whole (${refusals[0]!.error.message})`, {
      where: dir,
      mend: "start again with saetta train and another --out",
    });
  }
  for (const { error } of refusals) onNote(`${error.message} (it is set aside, and step ${checkpoint.step} is used)`);
  await setAside(refusals);
  return checkpoint;
}

/** The same on all ranks: rank 0 chooses it, after it has compared every byte with the manifest. */
async function commonCheckpoint(
  dir: string,
  collective: Collective,
  onNote: (note: string) => void,
): Promise<Checkpoint | undefined> {
  let found: Checkpoint | undefined;
  const path = await fromFirst(collective, async () => {
    found = await usableCheckpoint(dir, onNote);
    return found?.path ?? null;
  });
  return path === null ? undefined : (found ?? openCheckpoint(path, []));
}

/** The plan with the steps that are still to come after `progress`. */
function goOn(planned: Plan, progress: Progress, where: string): Plan {
  const { budget, config, order } = planned;
  const { step, tokens, position } = progress;
  if (position.row > order.rowsPerEpoch || tokens < step)
    throw new FormatError("its place in the data makes no sense", { where });
  if (tokens > budget) {
    throw new UsageError(`the run has trained on ${tokens} rows already, more than the budget of ${budget}`, {
      where,
      mend: "raise --tokens or --epochs",
    });
  }
  return { ...planned, steps: step + totalSteps(budget - tokens, config.batch, config.dropLast) };
}

/** A run before its next step. */
interface Outset {
  readonly state: State;
  readonly begin: Beginning;
  /** How long the steps to come will take. */
  readonly seconds?: number | undefined;
  /** What the sample of the rows showed, where one was drawn. */
  readonly found?: RunPreflight | undefined;
}

async function startAnew(
  planned: Plan,
  initial: FoundSae | undefined,
  onNote: (note: string) => void,
): Promise<Outset> {
  const state = allocState(planned.engine, planned.part.shape, planned.config.ema > 0);
  const { found, pace, ...started } = await start(planned, state, initial, onNote);
  const begin = { progress: { step: 0, tokens: 0, position: START }, ...started, elapsed: 0, metricsBytes: 0 };
  return { state, begin, seconds: pace && secondsOf(planned, pace), found };
}

function launch(
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

/** A run that goes on where something else computes ends well, but not with the bits that it would have had. */
function noteOtherBits(
  { computed, path }: Checkpoint,
  { engine, collective }: Plan,
  onNote: (note: string) => void,
): void {
  const now = computedBy(engine, collective.grid);
  const differing = ["version", "engine", "build", "grid"].filter((name) => computed[name] !== now[name]);
  if (differing.length === 0) return;
  const said = ({ version, description }: JsonObject) => `Saetta ${String(version)}, ${String(description)}`;
  onNote(
    `${path} was computed by ${said(computed)}; ${said(now)} goes on from it, with other bits than an uninterrupted run (${differing.join(", ")} differs)`,
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
  const { source, choice, config, engine, collective, part, budget } = planned;
  const { shape } = part;
  const sampled = config.mseScale === "auto" || initial === undefined;
  const passed = new PassedOver((row) => isIn(choice.holdout, row) || choice.masked.has(row));
  let sample: Float32Array = new Float32Array(0);
  let found = undefined as RunPreflight | undefined;
  const { mseScale, normalization, median } = await fromFirst<Decided>(collective, async () => {
    if (sampled) {
      sample = await strideSample(
        source,
        choice.untrained,
        config.statisticsRows,
        config.seed,
        config.nonFinite,
        passed.note,
      );
      // Of the rows as they are in the file.
      found = { ...preflight(sample, shape.d), nonFinite: passed.nonFinite, excluded: passed.excluded };
    }
    const by =
      initial === undefined
        ? normalizationFor(config.normalize, sample, shape.d)
        : normalizationOf(initial.description);
    normalizeRows(sample, shape.d, by);
    const scale = config.mseScale === "auto" ? 1 / meanVariance(sample, shape.d) : config.mseScale;
    if (initial !== undefined) return { mseScale: scale, normalization: by, median: null };
    const { median: middle, converged, iterations } = geometricMedian(sample, shape.d);
    if (!converged)
      onNote(`the geometric median still moved after ${iterations} iterations; the run starts from where it was`);
    return { mseScale: scale, normalization: by, median: [...middle] };
  });
  const { kind, factor } = normalization;
  if (kind !== "none") {
    onNote(
      `rows are normalised (${kind}${kind === "scale" ? `, times ${factor.toPrecision(4)}` : ""}); losses and FVU are of normalised rows`,
    );
  }
  const hyper = { ...hyperOf(config, mseScale), lr: config.lr };
  if (initial === undefined) {
    startParams(engine, state.params, shape, config.seed, Float64Array.from(median!), part.firstLatent);
    if (config.encoderRescale)
      await rescaleEncoder(engine, state.params, shape, config.seed, { ...hyper, lr: 0, rows: 1 }, part.whole.k);
  } else {
    await writeParams(engine, initial, state.params, true, part.firstLatent);
    const [least, most] = rowNorms(await readReals(engine, state.params.decoder), shape.d);
    if (least < 1 - UNIT || most > 1 + UNIT) {
      onNote(
        `rows of the decoder of ${config.init} have norms from ${least.toPrecision(3)} to ${most.toPrecision(3)}; training keeps them at 1, so its first step changes what it says`,
      );
    }
    if (kind === "scale") await unfold(engine, state.params, factor);
  }
  // Several ranks would not agree on how many steps to time.
  if (part.grid.size > 1) shareState(engine, state, part);
  if (found === undefined || part.grid.size > 1) return { mseScale, normalization, ...(found && { found }) };
  const pace = await timeSteps(engine, shape, state, sample, Math.min(config.batch, budget), hyper);
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
  const { d, n, k } = initial.description.shape;
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
  return { ...rest, latents: n, k: asked.k ?? k, normalize: kind, encoderRescale: false };
}

function beginningOf(checkpoint: Checkpoint, source: Source): Beginning {
  const where = join(checkpoint.path, "state.json");
  const progress = new Fields(checkpoint.progress, "progress", where);
  const position = progress.fields("position");
  const facts = JSON.stringify(factsOf(source));
  const before = JSON.stringify(progress.fields("data").object);
  if (facts !== before) {
    throw new SaettaError(`the data is not what the run was trained on: ${facts} now, ${before} then`, {
      where: source.paths.join(", "),
      mend: "name the same files in the same order",
    });
  }
  return {
    progress: {
      step: checkpoint.step,
      tokens: progress.integer("tokens"),
      position: {
        epoch: position.integer("epoch"),
        row: position.integer("row"),
        skipped: position.integer("skipped"),
      },
    },
    mseScale: progress.number("mse_scale"),
    normalization: normalizationOf(checkpoint.description),
    elapsed: progress.number("elapsed_s"),
    metricsBytes: progress.integer("metrics_bytes"),
  };
}

function defaultOut({ paths }: Source, now: Date): string {
  const name = basename(paths[0] ?? "run").replace(/\.[^.]+$/, "");
  return join("runs", `${name}-${now.toISOString().replaceAll(/[-:]|\.\d+/g, "")}`);
}

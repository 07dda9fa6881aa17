/** Starting a run, and going on with one. */

import { basename, join } from "node:path";
import { type Checkpoint, newestCheckpoint, restoreState, setAside } from "../checkpoint/load.ts";
import { lockRun, type RunLock } from "../checkpoint/lock.ts";
import { checkOptions, flagOf, type TrainOptions, totalSteps } from "../config.ts";
import { START } from "../data/batches.ts";
import { openSource } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import { geometricMedian, meanVariance, strideSample } from "../data/statistics.ts";
import type { State } from "../engine/engine.ts";
import { type FoundSae, findSae, writeParams } from "../inference/weights.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields } from "../util/json.ts";
import type { Progress } from "./loop.ts";
import { TrainRun } from "./run.ts";
import { createRunFolder, discardRunFolder, readRunConfig, writeConfig } from "./run-folder.ts";
import { type Beginning, factsOf, hyperOf, type Plan, plan, trainFrom } from "./session.ts";
import { allocState, rescaleEncoder, startParams } from "./state.ts";

export interface RunOptions {
  /** Stops the run, with a checkpoint. */
  readonly signal?: AbortSignal | undefined;
  /** Told what is worth knowing and no error. */
  readonly onNote?: ((note: string) => void) | undefined;
}

export interface TrainArguments extends RunOptions {
  /** The run folder; default `runs/<data>-<UTC time>`; false writes nothing. */
  readonly out?: string | false | undefined;
}

/**
 * Trains an autoencoder on the rows of `source`. Resolves when the run is under way; rejects with UsageError or SaettaError when it cannot be. The caller closes the
 * source once `finished` is settled.
 */
export async function train(source: Source, options: TrainOptions & TrainArguments = {}): Promise<TrainRun> {
  const { out, signal, onNote = () => undefined, ...given } = options;
  const asked = checkOptions(given, undefined, (name) => name);
  const dir = out === false ? undefined : (out ?? defaultOut(source, new Date()));
  const initial = asked.init === undefined ? undefined : await findSae(asked.init);
  const planned = await plan(source, initial === undefined ? asked : likeInitial(asked, initial, source), onNote);
  let lock: RunLock | undefined;
  try {
    const state = allocState(planned.engine, planned.shape, planned.config.ema > 0);
    if (dir !== undefined) lock = await createRunFolder(dir, planned.config);
    if (lock?.warning !== undefined) onNote(lock.warning);
    const mseScale = await start(planned, state, initial, onNote);
    return launch(planned, state, lock, dir, signal, {
      progress: { step: 0, tokens: 0, position: START },
      mseScale,
      elapsed: 0,
      metricsBytes: 0,
    });
  } catch (error) {
    await planned.engine[Symbol.asyncDispose]();
    if (dir !== undefined && lock !== undefined) await discardRunFolder(dir, lock);
    throw error;
  }
}

/** What may change when a run goes on, because it does not change the maths of the steps that are done. */
const FREE: readonly (keyof TrainOptions)[] = ["tokens", "epochs", "engine", "threads", "evalEvery", "checkpointEvery", "keep", "logEvery"];

/**
 * Goes on from the newest checkpoint of a run folder that is whole. `changes` may extend the budget, move the data, or change engine and intervals; anything
 * else is a UsageError naming the fixed value.
 */
export async function resume(
  dir: string,
  changes: TrainOptions & { readonly data?: readonly string[] } & RunOptions = {},
): Promise<TrainRun> {
  const { signal, onNote = () => undefined, data: moved, ...given } = changes;
  const changed = checkOptions(given, undefined, (name) => name);
  const { options, data } = await readRunConfig(dir);
  checkChanges(dir, options, changed);
  const lock = lockRun(dir);
  if (lock.warning !== undefined) onNote(lock.warning);
  let source: Source | undefined;
  let planned: Plan | undefined;
  try {
    const checkpoint = await usableCheckpoint(dir, onNote);
    source = await openSource(moved ?? data, options.dataset === undefined ? {} : { dataset: options.dataset });
    const beginning = beginningOf(checkpoint, source);
    const { tokens, epochs, ...rest } = options;
    const budget = changed.tokens !== undefined || changed.epochs !== undefined ? {} : tokens === undefined ? { epochs } : { tokens };
    planned = await plan(source, { ...rest, ...budget, ...changed }, onNote);
    planned = goOn(planned, beginning.progress, checkpoint.path);
    const state = allocState(planned.engine, planned.shape, planned.config.ema > 0);
    await restoreState(planned.engine, checkpoint, state);
    await writeConfig(dir, planned.config);
    const run = launch(planned, state, lock, dir, signal, beginning);
    const opened = source;
    run.finished.finally(() => opened.close()).catch(() => undefined);
    return run;
  } catch (error) {
    await planned?.engine[Symbol.asyncDispose]();
    await source?.close();
    lock.release();
    throw error;
  }
}

function checkChanges(dir: string, options: TrainOptions, changed: TrainOptions): void {
  for (const [name, value] of Object.entries(changed) as [keyof TrainOptions, unknown][]) {
    const fixed = options[name];
    if (FREE.includes(name) || JSON.stringify(value) === JSON.stringify(fixed)) continue;
    throw new UsageError(
      `${flagOf(name)} is ${fixed === undefined ? "not set" : JSON.stringify(fixed)} in this run and cannot be changed`,
      {
        where: dir,
        mend: "start a new run, with --init to begin from these weights",
      },
    );
  }
}

async function usableCheckpoint(dir: string, onNote: (note: string) => void): Promise<Checkpoint> {
  const { checkpoint, refusals } = await newestCheckpoint(dir);
  if (checkpoint === undefined) {
    throw new SaettaError(
      refusals.length > 0 ? `none of its checkpoints is whole (${refusals[0]!.error.message})` : "has no checkpoint to go on from",
      {
        where: dir,
        mend: "start again with saetta train and another --out",
      },
    );
  }
  for (const { error } of refusals) onNote(`${error.message} (it is set aside, and step ${checkpoint.step} is used)`);
  await setAside(refusals);
  return checkpoint;
}

/** The plan with the steps that are still to come after `progress`. */
function goOn(planned: Plan, progress: Progress, where: string): Plan {
  const { budget, config, order } = planned;
  const { step, tokens, position } = progress;
  if (position.row > order.rowsPerEpoch || tokens < step) throw new FormatError("its place in the data makes no sense", { where });
  if (tokens > budget) {
    throw new UsageError(`the run has trained on ${tokens} rows already, more than the budget of ${budget}`, {
      where,
      mend: "raise --tokens or --epochs",
    });
  }
  return { ...planned, steps: step + totalSteps(budget - tokens, config.batch, config.dropLast) };
}

function launch(
  planned: Plan,
  state: State,
  lock: RunLock | undefined,
  out: string | undefined,
  signal: AbortSignal | undefined,
  begin: Beginning,
): TrainRun {
  const { config, steps, budget, engine, source, order, choice } = planned;
  const data = {
    description: source.description,
    rowsPerEpoch: order.rowsPerEpoch,
    heldOut: choice.holdout.reduce((sum, { count }) => sum + count, 0),
    excluded: choice.excluded,
  };
  const trainedBefore = begin.progress.tokens;
  return new TrainRun({ config, out, steps, budget, engine: engine.description, data, trainedBefore, signal }, (run) =>
    trainFrom(planned, state, begin, out, run).finally(() => lock?.release()),
  );
}

/** Fills the parameters of a new run and returns mse_scale. */
async function start(
  { source, choice, config, engine, shape }: Plan,
  state: State,
  initial: FoundSae | undefined,
  onNote: (note: string) => void,
): Promise<number> {
  const sampled = config.mseScale === "auto" || initial === undefined;
  const sample = sampled
    ? await strideSample(source, choice.untrained, config.statisticsRows, config.seed, config.nonFinite)
    : new Float32Array(0);
  const mseScale = config.mseScale === "auto" ? 1 / meanVariance(sample, shape.d) : config.mseScale;
  if (initial !== undefined) {
    await writeParams(engine, initial, state.params);
    return mseScale;
  }
  const { median, converged, iterations } = geometricMedian(sample, shape.d);
  if (!converged) onNote(`the geometric median still moved after ${iterations} iterations; the run starts from where it was`);
  startParams(engine, state.params, shape, config.seed, median);
  if (config.encoderRescale) {
    await rescaleEncoder(engine, state.params, shape, config.seed, { ...hyperOf(config, mseScale), lr: 0, rows: 1 });
  }
  return mseScale;
}

/** Width and k come from the autoencoder that the run starts from, where they are not asked for. */
function likeInitial(asked: TrainOptions, initial: FoundSae, source: Source): TrainOptions {
  const { d, n, k } = initial.description.shape;
  const where = asked.init ?? "";
  if (d !== source.dIn)
    throw new UsageError(`reads rows of width ${d}, but the data has width ${source.dIn}`, { where, mend: "choose another --init" });
  const latents = asked.latents ?? (asked.expansion === undefined ? n : Math.round(asked.expansion * d));
  if (latents !== n)
    throw new UsageError(`has ${n} latents, but ${latents} were asked for`, { where, mend: "leave out --latents and --expansion" });
  const { expansion: _, ...rest } = asked;
  // The weights already have their scale; rescaling them would not be starting from them.
  if (asked.encoderRescale) throw new UsageError("--encoder-rescale and --init exclude each other", { mend: "leave one of them out" });
  return { ...rest, latents: n, k: asked.k ?? k, encoderRescale: false };
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
      position: { epoch: position.integer("epoch"), row: position.integer("row"), skipped: position.integer("skipped") },
    },
    mseScale: progress.number("mse_scale"),
    elapsed: progress.number("elapsed_s"),
    metricsBytes: progress.integer("metrics_bytes"),
  };
}

function defaultOut({ paths }: Source, now: Date): string {
  const name = basename(paths[0] ?? "run").replace(/\.[^.]+$/, "");
  return join("runs", `${name}-${now.toISOString().replaceAll(/[-:]|\.\d+/g, "")}`);
}

/** Resuming a run from its newest checkpoint, also with a larger budget or appended data. */

import { join } from "node:path";
import { type Checkpoint, newestCheckpoint, openCheckpoint, restoreState, setAside } from "../checkpoint/load.ts";
import { lockRun } from "../checkpoint/lock.ts";
import { computedBy } from "../checkpoint/save.ts";
import type { Collective } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { CHANGEABLE, checkOptions, flagOf, type TrainOptions, totalSteps } from "../config.ts";
import { START } from "../data/batches.ts";
import { openData } from "../data/open.ts";
import { stoppable } from "../data/rows-source.ts";
import type { Source } from "../data/source.ts";
import { findSae } from "../inference/weights.ts";
import { STATE } from "../run-files/names.ts";
import { normalizationOf, targetNormalizationOf } from "../sae/description.ts";
import { otherOrigin } from "../sae/origin.ts";
import { targetPaths } from "../transcoder-options.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, type JsonObject } from "../util/json.ts";
import { appendedTo, extend, resumedOptions } from "./extend.ts";
import { hyperOf, type PlannedBefore, planRun, type RunPlan } from "./plan.ts";
import { fromFirst } from "./rank-shard.ts";
import type { RunContext, TrainRun } from "./run.ts";
import { type RunConfig, readRunConfig, writeConfig } from "./run-folder.ts";
import { locateData, locateTarget } from "./run-record.ts";
import { launch, roomToSave } from "./session.ts";
import { newState, type Progress, type StartState, type StartWork, startState } from "./start-state.ts";
import type { RunOptions } from "./train.ts";

/** What a run may be given when it is resumed; everything else is fixed. */
export interface ResumeArguments extends RunOptions {
  /**
   * Where the files are now, with appended ones after them (those of the targets: `target`); or the
   * source of rows that came from the program. The caller closes a source.
   */
  readonly data?: readonly string[] | Source;
}

/**
 * Resumes from the newest checkpoint of a run folder that is whole; a run that has none yet starts
 * again. `changes` may extend the budget, move the data or append to it, or change engine and
 * intervals; anything else is a UsageError naming the fixed value. The options of the run are in
 * its config.json.
 */
export async function resume(dir: string, changes: TrainOptions & ResumeArguments = {}): Promise<TrainRun> {
  const { signal, onNote = () => undefined, collective = solo(), data: moved, ...given } = changes;
  const changed = checkOptions(given, undefined, (name) => name);
  const before = await readRunConfig(dir);
  const { options } = before;
  checkChanges(dir, options, changed);
  const lock = collective.grid.rank === 0 ? lockRun(dir) : undefined;
  if (lock?.warning !== undefined) onNote(lock.warning);
  const context = { signal, onNote };
  let source: Source | undefined;
  let plan: RunPlan | undefined;
  try {
    const checkpoint = await commonCheckpoint(dir, collective, onNote);
    source = stoppable(await sourceToResume(dir, before, moved, targetPaths(changed), onNote), signal);
    const resumed = await planResumed({ dir, before, changed, checkpoint, source, collective, context });
    plan = resumed.plan;
    const start = await resumed.begin();
    if (lock !== undefined) {
      if (start.progress.step < plan.steps) await roomToSave(dir, plan, start, context);
      await writeConfig(dir, plan.config, plan.record);
    }
    const run = launch(plan, start, dir, lock, context);
    const opened = source;
    if (!isSource(moved)) run.finished.finally(() => opened.close()).catch(() => undefined);
    return run;
  } catch (error) {
    await plan?.engine.close();
    if (!isSource(moved)) await source?.close();
    lock?.release();
    throw error;
  }
}

/** What a run is resumed with. */
export interface ResumeInput {
  readonly dir: string;
  readonly before: RunConfig;
  /** Checked options, and that they may change (`checkChanges`). */
  readonly changed: TrainOptions;
  /** undefined for a run that has saved none. */
  readonly checkpoint: Checkpoint | undefined;
  readonly source: Source;
  readonly collective: Collective;
  readonly context: RunContext;
  /** Of another run of a sweep. */
  readonly shared?: PlannedBefore | undefined;
}

/** A run that is planned from where it was left. */
export interface Resumed {
  readonly plan: RunPlan;
  readonly progress: Progress;
  readonly begin: (work?: StartWork) => Promise<StartState>;
}

/** Plans the rest of a run. `begin` then makes its state in the engine. */
export async function planResumed(input: ResumeInput): Promise<Resumed> {
  const { dir, before, changed, checkpoint, source, collective, context, shared } = input;
  const { onNote } = context;
  const saved = checkpoint && savedStart(checkpoint);
  const appended = saved === undefined ? [] : await appendedTo(source, saved.facts, before, saved.progress.position);
  const wanted = resumedOptions(before, changed, saved !== undefined, appended);
  const found = { ...wanted.options, normLimit: before.normLimit };
  const planned = await planRun(source, found, collective, context, wanted.record, shared);
  if (checkpoint === undefined || saved === undefined) {
    onNote(`${dir} has no checkpoint yet, so the run starts again`);
    const { init } = before.options;
    const begin = async (work?: StartWork) =>
      startState(planned, init === undefined ? undefined : await findSae(init), context, work);
    return { plan: planned, progress: { step: 0, tokens: 0, position: START }, begin };
  }
  try {
    checkLeftOut(planned, checkpoint);
    const { progress } = saved;
    const plan = extend(remaining(planned, progress, checkpoint.path), progress.step, before, onNote);
    const begin = async () => {
      const start = await restoredStart(plan, checkpoint, saved);
      for (const note of resumeNotes(dir, plan, checkpoint)) onNote(note);
      return start;
    };
    return { plan, progress, begin };
  } catch (error) {
    if (shared === undefined) await planned.engine.close();
    throw error;
  }
}

export function isSource(data: readonly string[] | Source | undefined): data is Source {
  return data !== undefined && "read" in data;
}

/** The rows of the run in `dir`; `given`: where they are now. */
export async function sourceToResume(
  dir: string,
  before: RunConfig,
  given: readonly string[] | Source | undefined,
  givenTarget: readonly string[] | undefined,
  onNote: (note: string) => void,
): Promise<Source> {
  if (isSource(given)) {
    if (given.stream !== "once" || given.from !== undefined) return given;
    throw new UsageError("a run cannot be resumed with rows that are read once", {
      where: dir,
      mend: "give a function that returns the rows again",
    });
  }
  if (given === undefined && before.data.length === 0) {
    throw new UsageError("was trained on rows of a program, not on files", {
      where: dir,
      mend: "give them again: resume(dir, { data: fromRows(...) })",
    });
  }
  const paths = given ?? (await locateData(dir, before, "name it with --data", onNote));
  const target = givenTarget ?? (await locateTarget(dir, before, "name it with --target", onNote));
  // What the run was trained on.
  const repeats = given === undefined && givenTarget === undefined ? ({ repeats: "keep" } as const) : {};
  return openData(paths, { ...before.options, target, ...repeats });
}

/** Throws UsageError for an option that is fixed when a run is resumed. */
export function checkChanges(dir: string, options: TrainOptions, changed: TrainOptions): void {
  for (const [name, value] of Object.entries(changed) as [keyof TrainOptions, unknown][]) {
    const fixed = options[name];
    const isMoved = name === "target" && fixed !== undefined;
    if (CHANGEABLE.includes(name) || isMoved || JSON.stringify(value) === JSON.stringify(fixed)) continue;
    throw new UsageError(
      `${flagOf(name)} is ${fixed === undefined ? "not set" : JSON.stringify(fixed)} in this run and cannot be changed`,
      {
        where: dir,
        mend: "start a new run, with --init to begin from these weights",
      },
    );
  }
}

/**
 * Rows are left out for their values, so a file that was written to since has others. Rows of
 * appended files do not count.
 */
function checkLeftOut({ choice, source }: RunPlan, { progress }: Checkpoint): void {
  const { left_out: before, data } = progress;
  if (typeof before !== "number" || typeof data !== "object" || data === null || !("rows" in data)) return;
  const now = choice.leftOut.countIn(0, Math.min(Number(data.rows), source.rows));
  if (now === before) return;
  throw new SaettaError(
    `the data is not what the run was trained on: ${now} rows are all zero or above --max-norm now, ${before} were then`,
    { where: source.paths.join(", "), mend: "give the files as they were, or start a new run" },
  );
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
export async function commonCheckpoint(
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
function remaining(plan: RunPlan, progress: Progress, where: string): RunPlan {
  const { budget, config, order } = plan;
  const { step, tokens, position } = progress;
  if (position.row > order.rowsIn(position.epoch) || tokens < step)
    throw new FormatError("its place in the data makes no sense", { where });
  if (tokens > budget) {
    throw new UsageError(`the run has trained on ${tokens} rows already, more than the budget of ${budget}`, {
      where,
      mend: "raise --tokens or --epochs",
    });
  }
  return { ...plan, steps: step + totalSteps(budget - tokens, config.batch, config.dropLast) };
}

/**
 * What state.json and cfg.json of a checkpoint say of where the run is resumed. `facts`: of its
 * data (`factsOf`).
 */
interface SavedStart
  extends Pick<StartState, "progress" | "normalization" | "targetNormalization" | "elapsed" | "metricsBytes"> {
  readonly mseScale: number;
  readonly facts: JsonObject;
}

function savedStart(checkpoint: Checkpoint): SavedStart {
  const where = join(checkpoint.path, STATE);
  const progress = new Fields(checkpoint.progress, "progress", where);
  const position = progress.fields("position");
  const scale = progress.has("loss_scale") ? progress.fields("loss_scale") : undefined;
  return {
    facts: progress.fields("data").object,
    progress: {
      step: checkpoint.step,
      tokens: progress.integer("tokens"),
      position: {
        epoch: position.integer("epoch"),
        row: position.integer("row"),
        skipped: position.integer("skipped"),
      },
      lossScale: scale && {
        scale: scale.number("scale"),
        fitting: scale.integer("fitting"),
        overflowed: scale.get("overflowed") === true,
      },
    },
    mseScale: progress.number("mse_scale"),
    normalization: normalizationOf(checkpoint.description),
    targetNormalization:
      checkpoint.description.dims.untied === true ? targetNormalizationOf(checkpoint.description) : undefined,
    elapsed: progress.number("elapsed_s"),
    metricsBytes: progress.integer("metrics_bytes"),
  };
}

/** The state of the checkpoint, in the engine. */
async function restoredStart(plan: RunPlan, checkpoint: Checkpoint, saved: SavedStart): Promise<StartState> {
  const { engine, shard, config, steps } = plan;
  const { mseScale, facts: _, ...start } = saved;
  const { kind } = saved.normalization;
  if (config.normalize !== kind) {
    throw new UsageError(`was trained with --normalize ${kind}, but the config of the run says ${config.normalize}`, {
      where: checkpoint.path,
      mend: "put the config back as it was",
    });
  }
  const state = newState(plan);
  await restoreState(engine, checkpoint, state, { first: shard.firstLatent, of: shard.whole.n });
  const { step } = saved.progress;
  const seconds = step === 0 ? undefined : (saved.elapsed / step) * (steps - step);
  return { ...start, state, hyper: hyperOf(config, mseScale), mseScale, seconds };
}

/** What is worth knowing before the run continues. */
function* resumeNotes(
  dir: string,
  plan: RunPlan,
  { computed, path, step, description }: Checkpoint,
): Generator<string> {
  const { engine, collective, source, steps } = plan;
  if (steps === step) yield "the run has spent its budget already; --tokens or --epochs extend it";
  // It ends well where something else computes, but not with the bits that it would have had.
  const now = computedBy(engine, collective.grid);
  const differing = ["version", "engine", "build", "grid"].filter((name) => computed[name] !== now[name]);
  const said = ({ version, description: by }: JsonObject) => `Saetta ${String(version)}, ${String(by)}`;
  if (differing.length > 0) {
    yield `${path} was computed by ${said(computed)}; ${said(now)} continues from it, with other bits than an uninterrupted run (${differing.join(", ")} differs)`;
  }
  const other = otherOrigin(source.paths.join(", "), source.origin, dir, description.saetta);
  if (other !== undefined) yield other;
}

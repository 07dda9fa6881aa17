/** Resuming a run from its newest checkpoint, also with a larger budget or appended data. */

import { join } from "node:path";
import { type Checkpoint, newestCheckpoint, openCheckpoint, restoreState, setAside } from "../checkpoint/load.ts";
import { lockRun } from "../checkpoint/lock.ts";
import { computedBy } from "../checkpoint/save.ts";
import type { Collective } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { CHANGEABLE, checkOptions, flagOf, type TrainOptions, totalSteps } from "../config.ts";
import { openSource } from "../data/open.ts";
import { stoppable } from "../data/rows-source.ts";
import type { Source } from "../data/source.ts";
import type { Normalization } from "../engine/engine.ts";
import { findSae } from "../inference/weights.ts";
import { normalizationOf } from "../sae/description.ts";
import { otherOrigin } from "../sae/origin.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, type JsonObject } from "../util/json.ts";
import { appendedTo, extend, resumedOptions } from "./extend.ts";
import type { Progress } from "./loop.ts";
import { fromFirst } from "./rank-shard.ts";
import type { TrainRun } from "./run.ts";
import { type RunConfig, readRunConfig, writeConfig } from "./run-folder.ts";
import { locateData } from "./run-record.ts";
import { type Beginning, type Plan, plan } from "./session.ts";
import { launch, type Outset, type RunOptions, roomToSave, startAnew, stateOf } from "./train.ts";

/** What a run may be given when it is resumed; everything else is fixed. */
export interface ResumeArguments extends RunOptions {
  /** Where the files are now, with appended ones after them; or the source of rows that came from the program. The caller closes a source. */
  readonly data?: readonly string[] | Source;
}

/**
 * Resumes from the newest checkpoint of a run folder that is whole; a run that has none yet starts again. `changes` may extend the budget, move the data or append to it,
 * or change engine and intervals; anything else is a UsageError naming the fixed value. The options of the run are in its config.json.
 */
export async function resume(dir: string, changes: TrainOptions & ResumeArguments = {}): Promise<TrainRun> {
  const { signal, onNote = () => undefined, collective = solo(), data: moved, ...given } = changes;
  const changed = checkOptions(given, undefined, (name) => name);
  const before = await readRunConfig(dir);
  const { options } = before;
  checkChanges(dir, options, changed);
  const lock = collective.grid.rank === 0 ? lockRun(dir) : undefined;
  if (lock?.warning !== undefined) onNote(lock.warning);
  let source: Source | undefined;
  let planned: Plan | undefined;
  try {
    const checkpoint = await commonCheckpoint(dir, collective, onNote);
    source = stoppable(await sourceToResume(dir, before, moved, onNote), signal);
    const begin = checkpoint && beginningOf(checkpoint);
    const appended = begin === undefined ? [] : await appendedTo(source, begin.facts, before, begin.progress.position);
    const wanted = resumedOptions(before, changed, begin !== undefined, appended);
    const found = { ...wanted.options, normLimit: before.normLimit };
    planned = await plan(source, found, collective, onNote, wanted.record);
    let outset: Outset;
    if (checkpoint !== undefined && begin !== undefined) {
      checkNormalization(planned, begin.normalization, checkpoint.path);
      checkLeftOut(planned, checkpoint);
      planned = extend(goOn(planned, begin.progress, checkpoint.path), begin.progress.step, before, onNote);
      if (planned.steps === begin.progress.step)
        onNote("the run has spent its budget already; --tokens or --epochs extend it");
      noteOtherBits(checkpoint, planned, onNote);
      const other = otherOrigin(source.paths.join(", "), source.origin, dir, checkpoint.description.saetta);
      if (other !== undefined) onNote(other);
      const state = stateOf(planned);
      const { firstLatent, whole } = planned.shard;
      await restoreState(planned.engine, checkpoint, state, { first: firstLatent, of: whole.n });
      const { step } = begin.progress;
      outset = { state, begin, seconds: step === 0 ? undefined : (begin.elapsed / step) * (planned.steps - step) };
    } else {
      onNote(`${dir} has no checkpoint yet, so the run starts again`);
      outset = await startAnew(planned, options.init === undefined ? undefined : await findSae(options.init), onNote);
    }
    const { step } = outset.begin.progress;
    if (lock !== undefined && step < planned.steps) await roomToSave(dir, planned, outset.state, signal, onNote);
    if (lock !== undefined) await writeConfig(dir, planned.config, planned.record);
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

async function sourceToResume(
  dir: string,
  before: RunConfig,
  given: readonly string[] | Source | undefined,
  onNote: (note: string) => void,
): Promise<Source> {
  if (isSource(given)) {
    if (given.stream !== "once") return given;
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
  const repeats = given === undefined ? ({ repeats: "keep" } as const) : {}; // what the run was trained on
  return openSource(paths, { ...before.options, ...repeats });
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

/** Rows are left out for their values, so a file that was written to since has others. Rows of appended files do not count. */
function checkLeftOut({ choice, source }: Plan, { progress }: Checkpoint): void {
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
  if (position.row > order.rowsIn(position.epoch) || tokens < step)
    throw new FormatError("its place in the data makes no sense", { where });
  if (tokens > budget) {
    throw new UsageError(`the run has trained on ${tokens} rows already, more than the budget of ${budget}`, {
      where,
      mend: "raise --tokens or --epochs",
    });
  }
  return { ...planned, steps: step + totalSteps(budget - tokens, config.batch, config.dropLast) };
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

/** Where the checkpoint's run is resumed, and what its data was (`factsOf`). */
function beginningOf(checkpoint: Checkpoint): Beginning & { readonly facts: JsonObject } {
  const where = join(checkpoint.path, "state.json");
  const progress = new Fields(checkpoint.progress, "progress", where);
  const position = progress.fields("position");
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
    },
    mseScale: progress.number("mse_scale"),
    normalization: normalizationOf(checkpoint.description),
    elapsed: progress.number("elapsed_s"),
    metricsBytes: progress.integer("metrics_bytes"),
  };
}

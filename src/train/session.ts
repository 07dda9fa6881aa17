/** A run from its start to the last checkpoint: what `train` and `resume` have in common. */

import { newestCheckpoint } from "../checkpoint/load.ts";
import type { RunLock } from "../checkpoint/lock.ts";
import { checkpointBytes } from "../checkpoint/save.ts";
import { waitForDisk } from "../checkpoint/wait-for-disk.ts";
import { ringRows } from "../data/batches.ts";
import { countRows } from "../data/holdout.ts";
import { stoppable } from "../data/rows-source.ts";
import { rowWidth } from "../data/source.ts";
import { trainedSae } from "../inference/trained.ts";
import { runAdvice } from "./advice.ts";
import { trainLoop } from "./loop.ts";
import type { Member } from "./member.ts";
import { CheckpointObserver, HoldoutObserver, LogObserver, RunClock } from "./observers.ts";
import { describe, type RunPlan, scheduleOf } from "./plan.ts";
import { fromFirst } from "./rank-shard.ts";
import { type DataInUse, type RunContext, type RunControl, type TrainResult, TrainRun } from "./run.ts";
import type { StartState } from "./start-state.ts";

/**
 * Sets the run going. `out` undefined: nothing is written. The lock is released when the run is
 * over. `member`: of a sweep.
 */
export function launch(
  plan: RunPlan,
  start: StartState,
  out: string | undefined,
  lock: RunLock | undefined,
  { signal, onNote }: RunContext,
  member?: Member,
): TrainRun {
  const { config, steps, budget, engine, memory } = plan;
  const data = dataInUse(plan, start);
  const forecast = { memory, seconds: start.seconds };
  const trainedBefore = start.progress.tokens;
  return new TrainRun(
    { config, out, steps, budget, engine: engine.description, data, forecast, trainedBefore, signal },
    (control) =>
      runSession(plan, start, out, { ...control, onNote }, member).finally(() => {
        member?.leave();
        lock?.release();
      }),
  );
}

/** What the run trains on. */
export function dataInUse({ source, order, choice }: RunPlan, { preflight }: StartState): DataInUse {
  return {
    description: source.description,
    rowsPerEpoch: order.rowsPerEpoch,
    heldOut: countRows(choice.holdout),
    excluded: choice.excluded,
    zeros: choice.zeros,
    above: choice.above,
    masked: choice.masked.size,
    preflight,
  };
}

/** Throws, or waits, where the disk has no room for one checkpoint of the run. */
export async function roomToSave(
  runDir: string,
  { config, shard }: RunPlan,
  { state }: StartState,
  { signal = new AbortController().signal, onNote }: RunContext,
): Promise<void> {
  const needed = checkpointBytes(state) * shard.grid.shards;
  await waitForDisk({ runDir, needed, onDiskFull: config.onDiskFull, signal, onNote });
}

/**
 * Trains to the end, logging and saving into `out`. State and engine become the autoencoder of the
 * result, or are freed.
 */
async function runSession(
  planned: RunPlan,
  start: StartState,
  out: string | undefined,
  { signal: own, publish, onNote }: RunControl,
  member: Member | undefined,
): Promise<TrainResult> {
  // Asks to save and stop. Members of a sweep end after the same step: the feed decides for all.
  const signal = member === undefined ? own : AbortSignal.any([own, member.sweep]);
  const ending = member === undefined ? own : AbortSignal.any([own, member.ended]);
  const plan: RunPlan = { ...planned, source: stoppable(planned.source, signal) };
  const { engine, collective, shard, source, order, config, steps } = plan;
  const { state } = start;
  const clock = new RunClock(start.elapsed);
  let log: LogObserver | undefined;
  let exitCode = 1;
  try {
    const ring = member?.ring ?? engine.alloc(source.dtype, [ringRows(order), rowWidth(source)]);
    const holdout = await HoldoutObserver.open(plan, start, member).catch((thrown: unknown) => {
      if (!signal.aborted || thrown !== signal.reason) throw thrown;
      return undefined;
    });
    log = new LogObserver(plan, start, holdout, clock, publish);
    if (out !== undefined && shard.grid.rank === 0) await log.open(out, start, onNote);
    const checkpoints =
      out === undefined ? undefined : new CheckpointObserver(plan, start, out, log, clock, { signal, onNote });
    const observers = [holdout, log, member?.rung, checkpoints].filter((each) => each !== undefined);
    const schedule = scheduleOf(plan);
    const end = await trainLoop({ plan, start, schedule, ring, feed: member?.feed, observers, signal: ending });
    const newest = await fromFirst(collective, async () => {
      const found = out === undefined ? undefined : (await newestCheckpoint(out, [])).checkpoint;
      return found === undefined ? null : { step: found.step, path: found.path };
    });
    if (newest?.step !== end.step) await checkpoints?.save(end);
    const checkpoint = newest?.step === end.step ? newest.path : checkpoints?.path;
    holdout?.close();
    if (member === undefined) engine.free(ring);
    const asked = signal.aborted || ending.aborted;
    if (end.step < steps && !asked && source.stream === "once") onNote(endedEarly(plan, end));
    const reason = end.step < steps && (asked || shard.grid.size > 1) ? "stopped" : "done";
    engine.complete(state);
    const description = describe(plan, start.normalization, start.targetNormalization);
    const sae = await trainedSae(engine, state, description, { path: checkpoint, step: end.step }, shard.dims);
    exitCode = 0;
    const report = log.last;
    const advice = reason === "done" && report !== undefined ? runAdvice(report, config, steps) : [];
    return { reason, steps: end.step, tokens: end.tokens, report, advice, checkpoint, sae };
  } catch (thrown) {
    await engine.close();
    throw thrown;
  } finally {
    await log?.close(exitCode);
  }
}

/** What a schedule that was cut short means for the run. */
function endedEarly({ budget, steps }: RunPlan, { tokens, step }: StartState["progress"]): string {
  const [rows, wanted] = [tokens, budget].map((count) => count.toLocaleString("en-US"));
  return `the rows ended after ${rows} of ${wanted}, at step ${step} of ${steps}: the learning rate had not fallen to its end; saetta resume RUN --data - (or --watch DIR) continues with more rows`;
}

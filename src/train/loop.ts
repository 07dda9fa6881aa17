/** THE LOOP. Everything else in this folder prepares it or tells of it. */

import type { Collective } from "../collective/collective.ts";
import { type Batch, batches, type Ring, type Share } from "../data/batches.ts";
import type { Engine, Hyper, Tensor } from "../engine/engine.ts";
import { SaettaError } from "../util/errors.ts";
import { macrotask } from "../util/macrotask.ts";
import { FIRST_SCALE, LossScale } from "./loss-scale.ts";
import type { RunPlan } from "./plan.ts";
import { type HeldOut, readStepMetrics, type StepMetrics } from "./report.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import type { Progress, StartState } from "./start-state.ts";
import { createTrainStep, type TrainStep, type Verdict } from "./step.ts";

/** A step as observers see it, once it is known that it was not bad. */
export interface StepSeen {
  readonly progress: Progress;
  readonly lr: number;
  /** What the engine knows of the step; undefined where no observer that is due reads it. */
  readonly metrics: StepMetrics | undefined;
  /** What its gradients were multiplied by on the wire. */
  readonly lossScale: number;
  /** Filled by the observer that evaluates; later observers find it here. */
  heldOut: HeldOut;
}

/**
 * Watches the steps of a run: evaluates, logs, saves. Observers see a step one after the other, in
 * their order.
 */
export interface RunObserver {
  /** Whether it sees this step. `last`: of the schedule. */
  due(step: number, last: boolean): boolean;
  /** Whether it reads the metrics. */
  readonly reads: boolean;
  /**
   * Whether the state must stay as this step left it until `see` is done: the next step is then not
   * queued before.
   */
  readonly holds: boolean;
  see(seen: StepSeen): Promise<void> | void;
}

export interface LoopInput {
  readonly plan: Pick<RunPlan, "engine" | "collective" | "shard" | "source" | "order" | "budget"> & {
    readonly config: Pick<RunPlan["config"], "batch" | "nonFinite"> & Partial<Pick<RunPlan["config"], "skip" | "wire">>;
    /** Numbers of the architecture that change from step to step; `step` counts from 0. */
    readonly numbers?: ((step: number, rows: number) => Partial<Hyper>) | undefined;
  };
  readonly start: Pick<StartState, "state" | "progress" | "hyper" | "normalization" | "targetNormalization">;
  readonly schedule: Schedule;
  /** Windows of raw rows, in the dtype of the source. */
  readonly ring: Tensor;
  /**
   * Brings the batches into the ring, from the progress of the start on, of `size()` rows each
   * until that is 0. Default: read from the source.
   */
  readonly feed?: ((size: () => number) => AsyncIterable<Batch>) | undefined;
  readonly observers: readonly RunObserver[];
  /** Ends the loop after the step under way. */
  readonly signal: AbortSignal;
}

/** Skipping this many steps in a row is not a passing accident. */
const MOST_SKIPPED = 100;

/**
 * Trains to the end of the schedule, or until the signal is aborted or rows that are read once are
 * used up. Returns how far it came.
 */
export async function trainLoop({
  plan,
  start,
  schedule,
  ring,
  feed,
  observers,
  signal,
}: LoopInput): Promise<Progress> {
  const { engine, collective, shard, source, order, budget, config } = plan;
  const { state, normalization } = start;
  const alone = shard.grid.size === 1;
  let progress = start.progress;
  // Ranks end after the same step: they agree in each step whether to go on, and all learn it one
  // step later.
  let agreed = false;
  const ends = () => progress.step === schedule.steps || (alone ? signal.aborted : agreed);
  const size = () => (ends() ? 0 : Math.min(config.batch, budget - progress.tokens));
  let ops: TrainStep | undefined;
  let before: QueuedStep | undefined;
  let skippedInARow = 0;
  const wire = alone || config.wire === "f32" ? undefined : config.wire;
  // A run that begins, or had another wire before, has no scale yet.
  const scales = wire === "fp16" ? new LossScale(progress.lossScale ?? FIRST_SCALE, progress.step) : undefined;
  try {
    const reading = alone ? signal : undefined;
    const { nonFinite } = config;
    const share = shareOf(collective, config.batch);
    const read = () =>
      batches({ source, order, ring: ringOf(engine, ring), nonFinite }, progress.position, size, {
        signal: reading,
        share,
      });
    for await (const batch of feed?.(size) ?? read()) {
      const rows = batch.size;
      const own = batch.rows.length;
      if (ops?.rows !== own) {
        if (before !== undefined) agreed = (await settled(before)) || agreed;
        before = undefined;
        ops?.close();
        ops = createTrainStep(engine, {
          shard,
          rows: own,
          most: Math.ceil(rows / shard.grid.replicas),
          normalization,
          target: start.targetNormalization,
          skip: config.skip,
          wire,
        });
      }
      const { step } = progress;
      const lossScale = scales?.of(step + 1) ?? 1;
      const lr = learningRate(schedule, step);
      const hyper: Hyper = { ...start.hyper, ...plan.numbers?.(step, rows), lr, rows, lossScale };
      progress = { step: step + 1, tokens: progress.tokens + rows, position: batch.next };
      const due = observers.filter((each) => each.due(progress.step, progress.step === schedule.steps));
      const reads = due.some((each) => each.reads);
      const queue = (of: TrainStep) => of.run(state, ring, batch.rows, hyper, reads, signal.aborted);
      queue(ops);
      // One step is in flight while the next batch is prepared; a bad one is found then, and has
      // changed nothing.
      if (before !== undefined) {
        const repeated: boolean = (await before.verdict).full;
        agreed = (await settled(before)) || agreed;
        if (repeated) queue(ops);
      }
      before = { ops, progress, hyper, due, reads, verdict: ops.verdict(), seen: undefined };
      before.seen = see(before);
      before.seen.catch(() => undefined);
      if (due.some((each) => each.holds)) {
        agreed = (await settled(before)) || agreed;
        before = undefined;
      }
      await macrotask();
    }
    if (before !== undefined) await settled(before);
    return withScale(progress);
  } finally {
    ops?.close();
  }

  /**
   * Waits until the step is done and was shown to its observers. One whose rows did not fit is run
   * again with more slots until they do. Returns whether a rank wants to end.
   */
  async function settled(queued: QueuedStep): Promise<boolean> {
    for (;;) {
      const { full, stop } = await queued.verdict;
      if (!full) {
        await queued.seen;
        return stop;
      }
      queued.ops.again(state, queued.hyper, queued.reads, signal.aborted);
      queued.verdict = queued.ops.verdict();
      queued.seen = see(queued);
      queued.seen.catch(() => undefined);
    }
  }

  /** With what a run that is resumed there must know of the loss scale. */
  function withScale(at: Progress): Progress {
    return scales === undefined ? at : { ...at, lossScale: scales.after(at.step) };
  }

  /** Shows the step to the observers, unless it has to be run again. */
  async function see({ ops: of, progress: at, hyper, due, reads, verdict }: QueuedStep): Promise<void> {
    const [{ bad, full, overflow }, metrics] = await Promise.all([
      verdict,
      reads ? readStepMetrics(engine, of, state, hyper, shard.prefixes, collective) : undefined,
    ]);
    if (full) return;
    scales?.settle(at.step, overflow);
    skippedInARow = bad ? skippedInARow + 1 : 0;
    if (bad && ((config.nonFinite === "stop" && !overflow) || skippedInARow >= MOST_SKIPPED))
      throw diverged(at.step, skippedInARow);
    const { lr, lossScale = 1 } = hyper;
    const seen: StepSeen = { progress: withScale(at), lr, lossScale, metrics, heldOut: {} };
    for (const observer of due) await observer.see(seen);
  }
}

/** A step whose operations are called. */
interface QueuedStep {
  readonly ops: TrainStep;
  readonly progress: Progress;
  readonly hyper: Hyper;
  readonly due: readonly RunObserver[];
  readonly reads: boolean;
  verdict: Promise<Verdict>;
  /** Done when the observers have seen it. */
  seen: Promise<void> | undefined;
}

export function ringOf(engine: Engine, ring: Tensor): Ring {
  return { memory: (bytes) => engine.hostMemory(bytes), bring: (at, bytes) => engine.upload(ring, bytes, at) };
}

/** The part of the batches that this rank trains on. */
function shareOf({ grid, exchange }: Collective, batch: number): Share | undefined {
  if (grid.replicas === 1) return undefined;
  const agree = async (values: readonly number[]) => (await exchange(values, "rows")).flat();
  return { replica: grid.replica, replicas: grid.replicas, batch, agree };
}

/** Training went where it cannot continue from. */
export class Diverged extends SaettaError {}

function diverged(step: number, times: number): Diverged {
  const what = times > 1 ? `the last ${times} steps were skipped: ` : "";
  return new Diverged(`${what}step ${step} is not finite, and changed nothing`, {
    mend: "lower --lr, set --clip 1, or look at the data with saetta inspect; --non-finite skip passes over single steps",
  });
}

/** THE LOOP. Everything else in this folder prepares it or tells of it. */

import type { Collective } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { batches, type Position, type Ring } from "../data/batches.ts";
import type { RowOrder } from "../data/order.ts";
import type { Source } from "../data/source.ts";
import type { Engine, Hyper, Normalization, State, Tensor } from "../engine/engine.ts";
import { SaettaError } from "../util/errors.ts";
import { type RankShard, rowsOfReplica } from "./rank-shard.ts";
import { type Findings, type Report, readFindings } from "./report.ts";
import { learningRate, type Schedule } from "./schedule.ts";
import { createTrainStep, type TrainStep } from "./step.ts";

/** How far a run is; with the state of the engine, all that it needs to go on. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Rows trained on. */
  readonly tokens: number;
  readonly position: Position;
}

export interface LoopInput {
  readonly engine: Engine;
  /** The ranks that train together, all of them in this loop; default: this one alone. */
  readonly collective?: Collective;
  /** What this rank holds of the autoencoder. */
  readonly shard: RankShard;
  readonly state: State;
  readonly source: Source;
  readonly order: RowOrder;
  /** Windows of raw rows, in the dtype of the source. */
  readonly ring: Tensor;
  readonly schedule: Schedule;
  readonly hyper: Omit<Hyper, "lr" | "rows">;
  readonly batch: number;
  /** Rows to train on in all; the last batch is short when they do not divide. */
  readonly budget: number;
  readonly nonFinite: "stop" | "skip";
  /** Default: rows as they are. */
  readonly normalization?: Normalization;
  readonly from: Progress;
  readonly logEvery: number;
  /** Steps between evaluations; 0: only at the end. */
  readonly evalEvery: number;
  /** Ends the loop after the step under way. */
  readonly signal: AbortSignal;
  /** The held-out rows under the weights as they are, after step `step`; undefined when there are none. */
  readonly evaluate: ((step: number) => Promise<HeldOut>) | undefined;
  readonly onLog: (progress: Progress, lr: number, findings: Findings & Partial<HeldOut>) => void;
  /** Steps between checkpoints, the last step apart; 0: none. */
  readonly saveEvery: number;
  /** Saves the state as it is after the step, of which everything is logged by then. */
  readonly onSave: (progress: Progress) => Promise<void>;
}

/** What an evaluation on the hold-out finds. */
export type HeldOut = Pick<Report, "holdout_fvu" | "holdout_mse" | "holdout_fvu_ema" | "holdout_mse_ema">;

/** Skipping this many steps in a row is not a passing accident. */
const MOST_SKIPPED = 100;

/** Trains to the end of the schedule, or until the signal is aborted or rows that are read once are used up. Returns how far it came. */
export async function trainLoop(input: LoopInput): Promise<Progress> {
  const { engine, collective = solo(), shard, state, schedule, hyper, budget, from } = input;
  const alone = shard.grid.size === 1;
  let progress = from;
  // Ranks end after the same step: they agree in each step whether to go on, and all learn it one step later.
  let agreed = false;
  const ends = () => progress.step === schedule.steps || (alone ? input.signal.aborted : agreed);
  const size = () => (ends() ? 0 : Math.min(input.batch, budget - progress.tokens));
  let ops: TrainStep | undefined;
  let before: Promise<boolean> | undefined;
  let skippedInARow = 0;
  try {
    const [ring, signal] = [ringOf(input), alone ? input.signal : undefined];
    for await (const batch of batches(input.source, input.order, ring, input.nonFinite, from.position, size, signal)) {
      const rows = batch.rows.length;
      const own = rowsOfReplica(shard.grid, rows);
      if (ops?.rows !== own.end - own.first) {
        ops?.close();
        ops = createTrainStep(engine, {
          shard,
          rows: own.end - own.first,
          most: Math.ceil(rows / shard.grid.replicas),
          normalization: input.normalization,
        });
      }
      const lr = learningRate(schedule, progress.step);
      progress = { step: progress.step + 1, tokens: progress.tokens + rows, position: batch.next };
      const last = progress.step === schedule.steps;
      const evaluate = last || (input.evalEvery > 0 && progress.step % input.evalEvery === 0);
      const log = evaluate || progress.step % input.logEvery === 0;
      ops.run(
        state,
        input.ring,
        batch.rows.subarray(own.first, own.end),
        { ...hyper, lr, rows },
        log,
        input.signal.aborted,
      );
      // One step is in flight while the next batch is prepared; a bad one is found then, and has changed nothing.
      agreed ||= (await before) ?? false;
      before = settle(ops, progress, { ...hyper, lr, rows }, log, evaluate);
      before.catch(() => undefined);
      const save = !last && input.saveEvery > 0 && progress.step % input.saveEvery === 0;
      if (evaluate || save) agreed ||= await before;
      if (save) await input.onSave(progress);
      await macrotask();
    }
    await before;
    return progress;
  } finally {
    ops?.close();
  }

  /** Returns whether a rank wants to end. */
  async function settle(of: TrainStep, at: Progress, step: Hyper, log: boolean, evaluate: boolean): Promise<boolean> {
    const [{ bad, stop }, findings] = await Promise.all([
      of.verdict(),
      log ? readFindings(engine, of, state, step.mseScale, step.auxCoef, step.rows, collective) : undefined,
    ]);
    skippedInARow = bad ? skippedInARow + 1 : 0;
    if (bad && (input.nonFinite === "stop" || skippedInARow >= MOST_SKIPPED)) throw diverged(at.step, skippedInARow);
    if (findings !== undefined)
      input.onLog(at, step.lr, { ...findings, ...(evaluate ? await input.evaluate?.(at.step) : {}) });
    return stop;
  }
}

/** Lets signals, timers and the run's readers in, for which an engine that computes at the call leaves no gap. */
function macrotask(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function ringOf({ engine, ring }: LoopInput): Ring {
  return { memory: (bytes) => engine.hostMemory(bytes), bring: (at, bytes) => engine.upload(ring, bytes, at) };
}

function diverged(step: number, times: number): SaettaError {
  const what = times > 1 ? `the last ${times} steps were skipped: ` : "";
  return new SaettaError(`${what}step ${step} is not finite, and changed nothing`, {
    mend: "lower --lr, set --clip 1, or look at the data with saetta inspect; --non-finite skip passes over single steps",
  });
}

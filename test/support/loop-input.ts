/** The input of the loop from plain values, for tests that run it without a plan. */

import { solo } from "../../src/collective/solo.ts";
import type { Hyper, Normalization, State } from "../../src/engine/engine.ts";
import type { LoopInput, RunObserver } from "../../src/train/loop.ts";
import type { HeldOut, StepMetrics } from "../../src/train/report.ts";
import type { Progress } from "../../src/train/start-state.ts";

export interface LoopValues
  extends Pick<LoopInput, "schedule" | "ring" | "signal">,
    Pick<LoopInput["plan"], "engine" | "shard" | "source" | "order" | "budget"> {
  readonly batch: number;
  readonly nonFinite: "stop" | "skip";
  readonly state: State;
  readonly hyper: Omit<Hyper, "lr" | "rows">;
  readonly normalization?: Normalization;
  readonly from: Progress;
  readonly logEvery: number;
  readonly onLog: (progress: Progress, lr: number, metrics: StepMetrics & HeldOut) => void;
  /** Steps between evaluations; 0: only at the end. */
  readonly evalEvery?: number;
  readonly evaluate?: () => Promise<HeldOut>;
  /** Steps between saves, the last step apart; 0: none. */
  readonly saveEvery: number;
  readonly onSave: (progress: Progress) => Promise<void>;
}

export function loopInput(values: LoopValues): LoopInput {
  const { engine, shard, source, order, budget, batch, nonFinite, state, hyper, normalization, from } = values;
  const { logEvery, onLog, evalEvery = 0, evaluate, saveEvery, onSave, schedule, ring, signal } = values;
  const holdout: RunObserver = {
    reads: true,
    holds: true,
    due: (step, last) => evaluate !== undefined && (last || (evalEvery > 0 && step % evalEvery === 0)),
    see: async (seen) => {
      seen.heldOut = (await evaluate?.()) ?? {};
    },
  };
  const log: RunObserver = {
    reads: true,
    holds: false,
    due: (step, last) => last || step % logEvery === 0 || holdout.due(step, last),
    see: ({ progress, lr, metrics, heldOut }) => {
      if (metrics !== undefined) onLog(progress, lr, { ...metrics, ...heldOut });
    },
  };
  const save: RunObserver = {
    reads: false,
    holds: true,
    due: (step, last) => !last && saveEvery > 0 && step % saveEvery === 0,
    see: ({ progress }) => onSave(progress),
  };
  return {
    plan: { engine, collective: solo(), shard, source, order, budget, config: { batch, nonFinite } },
    start: { state, progress: from, hyper, normalization: normalization ?? { kind: "none", factor: 1 } },
    schedule,
    ring,
    observers: [holdout, log, save],
    signal,
  };
}

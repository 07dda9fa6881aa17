/** What a step found, for metrics.jsonl. */

import { solo } from "../collective/solo.ts";
import { COUNTERS, type Engine, type Hyper, type Prefix, type State } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { namedSums } from "../engine/sums.ts";
import type { Report } from "../run-files/metrics.ts";
import { losses } from "../sae/math.ts";
import { sumOverShards } from "./rank-shard.ts";
import type { TrainStep } from "./step.ts";

/** What an evaluation on the hold-out finds. */
export type HeldOut = Pick<Report, "holdout_fvu" | "holdout_mse" | "holdout_fvu_ema" | "holdout_mse_ema">;

/** What the engine knows of a step. */
export type StepMetrics = Pick<
  Report,
  "loss" | "mse" | "fvu" | "auxk_loss" | "l0" | "dead" | "dead_fraction" | "grad_norm" | "skipped"
>;

/**
 * Reads what a step found, as of this call. Every rank of `collective` calls it; default: there is
 * one.
 */
export async function readStepMetrics(
  engine: Engine,
  { step: t }: TrainStep,
  state: State,
  { mseScale, auxCoef, rows }: Pick<Hyper, "mseScale" | "auxCoef" | "rows">,
  prefixes?: readonly Prefix[],
  collective = solo(),
): Promise<StepMetrics> {
  const [sums, sq, counters] = await Promise.all([t.sums, t.sq, state.counters].map((it) => readNumbers(engine, it)));
  const ofShard = namedSums(sums!, prefixes?.length);
  const { shards, replicas } = collective.grid;
  // Every replica has counted the same dead latents.
  const [active, dead] = await sumOverShards(collective, [ofShard.active, ofShard.dead / replicas]);
  const named = { ...ofShard, active: active!, dead: dead! };
  const found = losses(named, rows, mseScale, auxCoef, prefixes);
  return {
    loss: found.loss,
    mse: found.mse,
    fvu: found.fvu,
    auxk_loss: found.auxkLoss,
    l0: found.l0,
    dead: named.dead,
    dead_fraction: named.dead / (shards * state.age.shape[0]!),
    grad_norm: Math.sqrt(sq![0]!),
    skipped: counters![COUNTERS.indexOf("skipped")]!,
  };
}

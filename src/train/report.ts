/** What a step found, for metrics.jsonl. */

import { solo } from "../collective/solo.ts";
import { COUNTERS, type Engine, type Hyper, type Prefix, type State, type Tensor } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { namedSums } from "../engine/sums.ts";
import type { Report } from "../run-files/metrics.ts";
import { losses, PENALTIES, sparsityLoss } from "../sae/math.ts";
import { sumOverShards } from "./rank-shard.ts";
import { readReals } from "./state.ts";
import type { TrainStep } from "./step.ts";

/** What an evaluation on the hold-out finds. */
export type HeldOut = Pick<
  Report,
  "holdout_fvu" | "holdout_mse" | "holdout_fvu_ema" | "holdout_mse_ema" | "holdout_l0" | "holdout_prefix_fvu"
>;

/** What the engine knows of a step. */
export type StepMetrics = Pick<
  Report,
  | "loss"
  | "mse"
  | "fvu"
  | "auxk_loss"
  | "l0"
  | "dead"
  | "dead_fraction"
  | "grad_norm"
  | "skipped"
  | "prefix_fvu"
  | "threshold"
  | "threshold_quantiles"
  | "sparsity_coef"
  | "sparsity_loss"
>;

/**
 * Reads what a step found, as of this call. Every rank of `collective` calls it; default: there is
 * one.
 */
export async function readStepMetrics(
  engine: Engine,
  { step: t }: TrainStep,
  state: State,
  hyper: Pick<Hyper, "mseScale" | "auxCoef" | "rows"> & Partial<Hyper>,
  prefixes?: readonly Prefix[],
  collective = solo(),
): Promise<StepMetrics> {
  const { mseScale, auxCoef, rows } = hyper;
  const extra = thresholdsOf(engine, state);
  const [sums, sq, counters] = await Promise.all([t.sums, t.sq, state.counters].map((it) => readNumbers(engine, it)));
  const ofShard = namedSums(sums!, prefixes?.length);
  const { shards, replicas } = collective.grid;
  // Every replica has counted the same dead latents.
  const [active, dead, tanh] = await sumOverShards(collective, [ofShard.active, ofShard.dead / replicas, ofShard.tanh]);
  const named = { ...ofShard, active: active!, dead: dead! };
  const found = losses(named, rows, mseScale, auxCoef, prefixes);
  const { coefficient, ...thresholds } = await extra;
  const sparsity = sparsityOf(hyper, coefficient, found.l0, tanh!);
  return {
    loss: found.loss + (sparsity?.sparsity_loss ?? 0),
    mse: found.mse,
    fvu: found.fvu,
    auxk_loss: found.auxkLoss,
    l0: found.l0,
    dead: named.dead,
    dead_fraction: named.dead / (shards * state.age.shape[0]!),
    grad_norm: Math.sqrt(sq![0]!),
    skipped: counters![COUNTERS.indexOf("skipped")]!,
    ...(found.prefixFvu.length === 0 ? {} : { prefix_fvu: [...found.prefixFvu, found.fvu] }),
    ...thresholds,
    ...sparsity,
  };
}

/** Of this rank's shard. */
async function thresholdsOf(
  engine: Engine,
  { params: { cut, threshold, sparsity } }: State,
): Promise<Pick<StepMetrics, "threshold" | "threshold_quantiles"> & { readonly coefficient?: number }> {
  const read = async (tensor: Tensor | undefined) => tensor && (await readReals(engine, tensor));
  const [ofCut, each, multiplier] = await Promise.all([read(cut), read(threshold), read(sparsity)]);
  const sorted = each && Float64Array.from(each).sort();
  return {
    ...(ofCut === undefined ? {} : { threshold: ofCut[0]! }),
    ...(sorted === undefined
      ? {}
      : { threshold_quantiles: [0, 0.25, 0.5, 0.75, 1].map((q) => sorted[Math.round(q * (sorted.length - 1))]!) }),
    ...(multiplier === undefined ? {} : { coefficient: multiplier[0]! }),
  };
}

function sparsityOf(
  { penalty = 0, sparsity = 0, tanhScale = 0, targetL0 = 0, rows }: Partial<Hyper> & Pick<Hyper, "rows">,
  multiplier: number | undefined,
  l0: number,
  tanh: number,
): Pick<StepMetrics, "sparsity_coef" | "sparsity_loss"> | undefined {
  if (multiplier === undefined) return undefined;
  const kind = PENALTIES[penalty]!;
  const coefficient = sparsity * multiplier;
  const none = { deadPenalty: 0, bandwidth: 0 };
  const loss = sparsityLoss({ ...none, kind, coefficient, scale: tanhScale, target: targetL0, rows, l0 }, tanh);
  return { sparsity_coef: coefficient, sparsity_loss: loss };
}

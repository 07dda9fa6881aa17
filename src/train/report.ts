/** What a step found, for metrics.jsonl. */

import { solo } from "../collective/solo.ts";
import { COUNTERS, type Engine, type Hyper, type Prefix, type State, type Tensor } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { namedSums } from "../engine/sums.ts";
import type { Report } from "../run-files/metrics.ts";
import { losses, PENALTIES, sparsityLoss } from "../sae/math.ts";
import { ofAllShards, sumOverShards } from "./rank-shard.ts";
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
  | "multi_topk_fvu"
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
  { step: t, multiplier, wideSums }: Pick<TrainStep, "step" | "multiplier" | "wideSums">,
  state: State,
  hyper: Pick<Hyper, "mseScale" | "auxCoef" | "rows"> & Partial<Hyper>,
  prefixes?: readonly Prefix[],
  collective = solo(),
): Promise<StepMetrics> {
  const { mseScale, auxCoef, rows } = hyper;
  const { cut, threshold } = state.params;
  const read = async (tensor: Tensor | undefined) => tensor && (await readReals(engine, tensor));
  const ofWide = wideSums && readNumbers(engine, wideSums);
  const ofThresholds = Promise.all([read(cut), read(threshold)]);
  const [sums, sq, counters] = await Promise.all([t.sums, t.sq, state.counters].map((it) => readNumbers(engine, it)));
  const ofShard = namedSums(sums!, prefixes?.length);
  const { shards, replicas } = collective.grid;
  // Every replica has counted the same dead latents.
  const [active, dead, tanh] = await sumOverShards(collective, [ofShard.active, ofShard.dead / replicas, ofShard.tanh]);
  const named = { ...ofShard, active: active!, dead: dead! };
  const found = losses(named, rows, mseScale, auxCoef, prefixes);
  const [ofCut, ownThresholds] = await ofThresholds;
  const thresholds = ownThresholds && (await ofAllShards(collective, ownThresholds));
  const wideFound = await ofWide;
  const wide = wideFound && losses(namedSums(wideFound), rows, mseScale, 0);
  const sparsity = sparsityOf(hyper, await multiplier, found.l0, tanh!);
  return {
    loss: found.loss + (sparsity?.sparsity_loss ?? 0) + (hyper.wideCoef ?? 0) * (wide?.loss ?? 0),
    mse: found.mse,
    fvu: found.fvu,
    auxk_loss: found.auxkLoss,
    ...(wide === undefined ? {} : { multi_topk_fvu: wide.fvu }),
    l0: found.l0,
    dead: named.dead,
    dead_fraction: named.dead / (shards * state.age.shape[0]!),
    grad_norm: Math.sqrt(sq![0]!),
    skipped: counters![COUNTERS.indexOf("skipped")]!,
    ...(found.prefixFvu.length === 0 ? {} : { prefix_fvu: [...found.prefixFvu, found.fvu] }),
    ...(ofCut === undefined ? {} : { threshold: ofCut[0]! }),
    ...(thresholds === undefined ? {} : { threshold_quantiles: quantilesOf(thresholds) }),
    ...sparsity,
  };
}

/** Lowest, quartiles and highest. */
function quantilesOf(values: Float64Array): readonly number[] {
  values.sort();
  return [0, 0.25, 0.5, 0.75, 1].map((q) => values[Math.round(q * (values.length - 1))]!);
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

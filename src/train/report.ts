/** What a run says of itself: one line of metrics.jsonl. Names are part of the Contract. */

import { solo } from "../collective/solo.ts";
import { COUNTERS, type Engine, type State } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { namedSums } from "../engine/sums.ts";
import { losses } from "../sae/math.ts";
import { sumOverShards } from "./rank-shard.ts";
import type { TrainStep } from "./step.ts";

/** One step, as logged. What was not computed or is not finite is null. x are rows as the autoencoder sees them: normalised, where the run normalises. */
export interface Report {
  /** Steps done, this one included. */
  readonly step: number;
  /** Rows trained on so far. */
  readonly tokens: number;
  /** Passes over the data, such as 1.25. */
  readonly epoch: number;
  /** Seconds of training, over all parts of a run that was resumed. */
  readonly elapsed_s: number;
  /** mse_scale mse + auxk_coef auxk_loss. */
  readonly loss: number;
  /** Mean of (x_hat - x)^2 over all elements. */
  readonly mse: number;
  /** Fraction of variance unexplained: sum (x - x_hat)^2 / sum (x - mean of x)^2, of this batch. */
  readonly fvu: number;
  /** Mean of (t_hat - t)^2 over the variance of t = x - x_hat; 0 when no latent is dead. */
  readonly auxk_loss: number;
  /** Mean number of latents with a value above 0. */
  readonly l0: number;
  /** Latents that had not fired for dead_tokens rows when the step began. */
  readonly dead: number;
  readonly dead_fraction: number;
  readonly lr: number;
  /** Norm of the whole gradient after projection, before clipping. */
  readonly grad_norm: number;
  readonly loss_scale: number;
  /** Steps skipped because something was not finite. */
  readonly skipped: number;
  /** Rows passed over because they were not finite. */
  readonly skipped_rows: number;
  readonly tokens_per_second: number;
  /** On held-out rows, at evaluations. */
  readonly holdout_fvu?: number;
  readonly holdout_mse?: number;
  /** The same of the running average of the weights, at the end of a run that keeps one. */
  readonly holdout_fvu_ema?: number;
  readonly holdout_mse_ema?: number;
}

/** What the engine knows of a step. */
export type Findings = Pick<
  Report,
  "loss" | "mse" | "fvu" | "auxk_loss" | "l0" | "dead" | "dead_fraction" | "grad_norm" | "skipped"
>;

/** Reads what a step on `rows` rows, those of all replicas, found, as of this call. Every rank of `collective` calls it; default: there is one. */
export async function readFindings(
  engine: Engine,
  { step: t, rows: own }: TrainStep,
  state: State,
  mseScale: number,
  auxkCoef: number,
  rows = own,
  collective = solo(),
): Promise<Findings> {
  const [sums, sq, counters] = await Promise.all([t.sums, t.sq, state.counters].map((it) => readNumbers(engine, it)));
  const ofShard = namedSums(sums!);
  const { shards, replicas } = collective.grid;
  // Every replica has counted the same dead latents.
  const [active, dead] = await sumOverShards(collective, [ofShard.active, ofShard.dead / replicas]);
  const named = { ...ofShard, active: active!, dead: dead! };
  const found = losses(named, rows, mseScale, auxkCoef);
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

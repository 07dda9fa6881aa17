/** E1 to E3 and E8: pre-activations, and which of them become active latents. */

import type { Weights } from "./types.ts";

/** E1, E2: pre [n] of one row x [d]. `untied`: the pre-bias is not subtracted from the input. */
export function preActivations(w: Weights, x: Float64Array, pre: Float64Array, untied = false): void {
  const d = x.length;
  for (let j = 0; j < pre.length; j++) {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += w.encoder[j * d + i] * (untied ? x[i] : x[i] - w.preBias[i]);
    pre[j] = sum + w.latentBias[j];
  }
}

/**
 * E3, E8: the k highest of pre [n] among the candidates (all, or the dead ones), by value, the
 * lower latent first among equals, then relu: what is not above 0 is off. Written to latent [k] and
 * value [k]; returns how many are on.
 */
export function topK(
  pre: Float64Array,
  k: number,
  latent: Uint32Array,
  value: Float64Array,
  isCandidate: (j: number) => boolean,
): number {
  let on = 0;
  for (let j = 0; j < pre.length; j++) {
    const v = pre[j];
    if (!(v > 0) || (on === k && !(v > value[k - 1])) || !isCandidate(j)) continue;
    let slot = on < k ? on++ : k - 1;
    for (; slot > 0 && v > value[slot - 1]; slot--) {
      value[slot] = value[slot - 1];
      latent[slot] = latent[slot - 1];
    }
    value[slot] = v;
    latent[slot] = j;
  }
  return on;
}

/**
 * The rule "threshold" (JumpReLU: Rajamanoharan et al. 2024, arXiv 2407.14435; plain ReLU with
 * thresholds of 0): every latent of pre [n] above its threshold and above 0, in ascending order.
 * `threshold` [n], or [1] for all latents. Writes latent and value up to their length; returns how
 * many latents are on, which may be more.
 */
export function aboveThreshold(
  pre: Float64Array,
  threshold: Float64Array,
  latent: Uint32Array,
  value: Float64Array,
): number {
  return compact(pre, latent, value, (j, z) => z > 0 && z > threshold[threshold.length === 1 ? 0 : j]);
}

/**
 * The rule "band": every latent whose pre-activation is within half of `bandwidth` of its
 * threshold [n], in ascending order, with the pre-activation. Writes as `aboveThreshold` does.
 */
export function inBand(
  pre: Float64Array,
  threshold: Float64Array,
  bandwidth: number,
  latent: Uint32Array,
  value: Float64Array,
): number {
  return compact(pre, latent, value, (j, z) => Math.abs(z - threshold[j]) < bandwidth / 2);
}

function compact(
  pre: Float64Array,
  latent: Uint32Array,
  value: Float64Array,
  isSelected: (j: number, z: number) => boolean,
): number {
  let on = 0;
  for (let j = 0; j < pre.length; j++) {
    if (!isSelected(j, pre[j])) continue;
    if (on < latent.length) {
      latent[on] = j;
      value[on] = pre[j];
    }
    on++;
  }
  return on;
}

/** What BatchTopK keeps of a batch. */
export interface BatchCut {
  /** The lowest value kept; 0 when none is. */
  readonly lowest: number;
  /** How many values equal to `lowest` are kept: the first ones, by row, then by latent. */
  readonly equal: number;
}

/**
 * The rule "batchtopk" (Bussmann et al. 2024, arXiv 2412.06410): where to cut so that the `kept`
 * highest of all values of a batch stay. Values of 0 or less are never kept.
 */
export function batchCut(values: Float64Array, kept: number): BatchCut {
  const sorted = values.filter((value) => value > 0).sort();
  const count = Math.min(kept, sorted.length);
  if (count === 0) return { lowest: 0, equal: 0 };
  const lowest = sorted[sorted.length - count]!;
  const above = sorted.reduce((sum, value) => sum + (value > lowest ? 1 : 0), 0);
  return { lowest, equal: count - above };
}

/**
 * E3, E8 where the latents are in several shards: how many of the pairs that `shard` has on in a
 * row are among the k highest of all shards. values: of each shard, [k or fewer], highest first, 0
 * after the last. They are the first so many; among equals the lower latent wins, which is the
 * lower shard's.
 */
export function keptOfShard(values: readonly Float64Array[], shard: number, k: number): number {
  const own = values[shard]!;
  for (let i = 0; i < own.length; i++) {
    const before = (value: number, s: number) => (s < shard ? value >= own[i]! : value > own[i]!);
    const above = values.reduce(
      (sum, other, s) => sum + (s === shard ? i : other.filter((value) => before(value, s)).length),
      0,
    );
    if (!(own[i]! > 0) || above >= k) return i;
  }
  return own.length;
}

/**
 * A latent is dead for the whole of a step when, as the step begins, more rows than `deadAfter`
 * have passed since it fired.
 */
export function isDead(age: number, deadAfter: number): boolean {
  return age > deadAfter;
}

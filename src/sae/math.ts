/**
 * THE MATHS of a TopK sparse autoencoder, in float64 and plain loops, after Gao et al. 2024,
 * "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093). E1 to E12 are the steps of the
 * forward pass:
 *
 *     E1-E2  pre   = W_enc (x - b_pre) + b_lat
 *     E3     z     = relu(topk_k(pre))
 *     E4-E5  x_hat = W_dec z + b_pre
 *     E6-E7  mseScale mse, mse = mean (x_hat - x)^2
 *     E8     z_aux = relu(topk_auxk(pre, dead latents only))
 *     E9     t     = x - x_hat, held fixed
 *     E10    t_hat = W_dec z_aux (no bias)
 *     E11    auxk_loss = mean (t_hat - t)^2 / mean (t - mean t)^2, the latter held fixed
 *     E12    loss  = mseScale mse + auxCoef auxk_loss
 *
 * then the gradients, and the update: project, clip, Adam, unit decoder rows, EMA. B rows, d
 * inputs, n latents; matrices are row-major and their shapes stand beside them; the decoder is
 * stored transposed, one unit row a latent.
 */

import { fmix32 } from "../util/rng.ts";
import type { PerParam } from "./params.ts";

/**
 * encoder [n,d], latentBias [n], decoder [n,d], preBias [d]; threshold [n] where the rule has one.
 */
export type Weights = PerParam<Float64Array>;

/**
 * What is on: [B,capacity] pairs, highest value first in each row. The first value of 0 in a row
 * ends it. `grad` is the gradient of each value, unscaled.
 */
export interface Pairs {
  readonly capacity: number;
  readonly latent: Uint32Array;
  readonly value: Float64Array;
  readonly grad: Float64Array;
}

/** Sums over a batch, which the losses are made of; the columns are [d]. */
export interface Sums {
  /** Of (x_hat - x)^2. */
  readonly err2: number;
  /** Of (t_hat - t)^2. */
  readonly auxErr2: number;
  readonly x2: number;
  /** Of (x - b_pre)^2. */
  readonly centred2: number;
  /** Latents that are on, over all rows. */
  readonly active: number;
  /** Latents that are dead in this step. */
  readonly dead: number;
  /** Of x_hat - x, for each input. */
  readonly errColumns: Float64Array;
  /** Of x - b_pre, for each input. */
  readonly centredColumns: Float64Array;
}

// ---- inputs ----

/**
 * What is done to every row before the autoencoder sees it (--normalize), the same for a whole run.
 */
export interface Normalization {
  readonly kind: "none" | "scale" | "unit" | "layer_norm";
  /** What "scale" multiplies by; 1 for the others. */
  readonly factor: number;
}

export const NO_NORMALIZATION: Normalization = { kind: "none", factor: 1 };

/**
 * A row whose distance from its mean is below this part of its length is constant: what is left is
 * rounding.
 */
export const CONSTANT_ROW = 1e-12;

/** What "layer_norm" adds to the spread, as OpenAI's. */
export const LAYER_NORM_EPS = 1e-5;

/**
 * mean and size of a row [d], with which (x - mean) / size is the normalised row, and the way back
 * is y size + mean. "unit" (Gao et al. 2024, section 2): the row's mean over d, and the norm of
 * what is left; "layer_norm" (OpenAI's autoencoders): its mean, and the unbiased standard deviation
 * + 1e-5. A constant row has size 0: it becomes zeros, and comes back as its mean. "scale" is x
 * factor, and "none" changes nothing. NaN where the squares are not finite.
 */
export function rowStatistics(
  x: Float32Array | Float64Array,
  { kind, factor }: Normalization,
): { mean: number; size: number } {
  if (kind === "none" || kind === "scale") return { mean: 0, size: 1 / factor };
  const d = x.length;
  let sum = 0;
  let square = 0;
  for (let i = 0; i < d; i++) {
    sum += x[i];
    square += x[i] * x[i];
  }
  const mean = sum / d;
  let spread = 0;
  for (let i = 0; i < d; i++) spread += (x[i] - mean) * (x[i] - mean);
  if (!Number.isFinite(square)) return { mean, size: Number.NaN };
  if (Math.sqrt(spread) <= CONSTANT_ROW * Math.sqrt(square)) return { mean, size: 0 };
  return { mean, size: kind === "unit" ? Math.sqrt(spread) : Math.sqrt(spread / (d - 1)) + LAYER_NORM_EPS };
}

/** -> x: the row [d], normalised. */
export function normalizeRow(x: Float32Array | Float64Array, by: Normalization): void {
  if (by.kind === "none") return;
  const { mean, size } = rowStatistics(x, by);
  for (let i = 0; i < x.length; i++)
    x[i] = by.kind === "scale" ? x[i] * by.factor : size === 0 ? 0 : (x[i] - mean) / size;
}

// ---- forward ----

/** E1, E2: pre [n] of one row x [d]. */
export function preActivations(w: Weights, x: Float64Array, pre: Float64Array): void {
  const d = x.length;
  for (let j = 0; j < pre.length; j++) {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += w.encoder[j * d + i] * (x[i] - w.preBias[i]);
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
 * thresholds of 0): of pre [n] every candidate above its threshold and above 0, highest value
 * first, the lower latent first among equals. Written to latent and value, of which there must be
 * room for all; returns how many are on.
 */
export function aboveThreshold(
  pre: Float64Array,
  threshold: Float64Array,
  latent: Uint32Array,
  value: Float64Array,
  isCandidate: (j: number) => boolean,
): number {
  const above = (j: number) => pre[j] > 0 && pre[j] > threshold[j] && isCandidate(j);
  const on = Array.from(pre.keys()).filter(above);
  on.sort((a, b) => pre[b] - pre[a] || a - b);
  if (on.length > latent.length) throw new RangeError(`${on.length} latents are on, there are ${latent.length} slots`);
  latent.set(on);
  value.set(on.map((j) => pre[j]));
  return on.length;
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

/** E4, E10: out [B,d] = W_dec z, without a bias. */
export function decode(decoder: Float64Array, z: Pairs, out: Float64Array): void {
  const B = z.latent.length / z.capacity;
  const d = out.length / B;
  out.fill(0);
  eachPair(z, (row, j, slot) => {
    const value = z.value[slot];
    for (let i = 0; i < d; i++) out[row * d + i] += value * decoder[j * d + i];
  });
}

/** E5: err [B,d], which holds W_dec z, becomes x_hat - x. */
export function liveResidual(preBias: Float64Array, x: Float64Array, err: Float64Array): void {
  const d = preBias.length;
  for (let e = 0; e < err.length; e++) err[e] += preBias[e % d] - x[e];
}

/** E9: auxErr [B,d], which holds W_dec z_aux, becomes t_hat - t; t = x - x_hat = -err. */
export function deadResidual(err: Float64Array, auxErr: Float64Array): void {
  for (let e = 0; e < err.length; e++) auxErr[e] += err[e];
}

export interface Losses {
  /** Mean over all elements of (x_hat - x)^2 (E6). */
  readonly mse: number;
  /** E11; 0 when nothing is dead or the target hardly varies. */
  readonly auxkLoss: number;
  /** mseScale mse + auxCoef auxkLoss (E12). */
  readonly loss: number;
  /**
   * Fraction of variance unexplained: sum (x_hat - x)^2 / sum (x - mean of x)^2, over these rows.
   * NaN when they do not vary.
   */
  readonly fvu: number;
  /** sum (x_hat - x)^2 / sum x^2. NaN when all rows are 0. */
  readonly normalizedMse: number;
  /** Mean number of latents above 0 in a row. */
  readonly l0: number;
}

/** The losses of a batch of `rows` rows, from its sums. */
export function losses(s: Sums, rows: number, mseScale: number, auxCoef: number): Losses {
  const mse = s.err2 / (rows * s.errColumns.length);
  const auxVariation = auxTargetVariation(s, rows);
  const auxkLoss = auxVariation === 0 ? 0 : s.auxErr2 / auxVariation;
  const variation = s.centred2 - squares(s.centredColumns) / rows;
  return {
    mse,
    auxkLoss,
    loss: mseScale * mse + auxCoef * auxkLoss,
    fvu: variation > 0 ? s.err2 / variation : Number.NaN,
    normalizedMse: s.x2 > 0 ? s.err2 / s.x2 : Number.NaN,
    l0: s.active / rows,
  };
}

/**
 * An auxiliary target that varies by no more than this part of sum x^2 is constant: what is left is
 * rounding.
 */
export const LEAST_VARIATION = 1e-12;

/**
 * The denominator of E11: sum over the batch of (t - mean of t)^2; 0, which turns the auxiliary
 * loss off, when nothing is dead or the target is constant.
 */
export function auxTargetVariation(s: Sums, rows: number): number {
  if (s.dead === 0) return 0;
  const variation = s.err2 - squares(s.errColumns) / rows;
  return variation <= LEAST_VARIATION * s.x2 ? 0 : variation;
}

// ---- backward ----

/**
 * The factors of d loss / d (W_dec z) = live err and d loss / d (W_dec z_aux) = dead auxErr, from
 * E6-E7 and E11.
 */
export function lossScales(s: Sums, rows: number, mseScale: number, auxCoef: number): { live: number; dead: number } {
  const auxVariation = auxTargetVariation(s, rows);
  return {
    live: (2 * mseScale) / (rows * s.errColumns.length),
    dead: auxVariation === 0 ? 0 : (2 * auxCoef) / auxVariation,
  };
}

/**
 * The gradient of each value that is on: decoder[latent] . err [B,d], without the factor of the
 * loss.
 */
export function codeGradients(decoder: Float64Array, z: Pairs, err: Float64Array): void {
  const d = err.length / (z.latent.length / z.capacity);
  z.grad.fill(0);
  eachPair(z, (row, j, slot) => {
    let dot = 0;
    for (let i = 0; i < d; i++) dot += decoder[j * d + i] * err[row * d + i];
    z.grad[slot] = dot;
  });
}

/** One way through the autoencoder, with the factor of its loss (`lossScales`). err [B,d]. */
export interface ScaledPath {
  readonly codes: Pairs;
  readonly err: Float64Array;
  readonly scale: number;
}

/**
 * -> g: the gradient of the loss with respect to every weight, from the live branch and, where
 * there is one, the dead branch. relu and top-k let the gradient through where a value is on and
 * nowhere else. x [B,d].
 */
export function gradients(
  w: Weights,
  x: Float64Array,
  errColumns: Float64Array,
  live: ScaledPath,
  dead: ScaledPath | undefined,
  g: Weights,
): void {
  const d = w.preBias.length;
  g.encoder.fill(0);
  g.decoder.fill(0);
  g.latentBias.fill(0);
  for (const { codes, err, scale } of dead ? [live, dead] : [live]) {
    eachPair(codes, (row, j, slot) => {
      const dPre = scale * codes.grad[slot];
      const scaledValue = scale * codes.value[slot];
      g.latentBias[j] += dPre;
      for (let i = 0; i < d; i++) {
        g.encoder[j * d + i] += dPre * (x[row * d + i] - w.preBias[i]);
        g.decoder[j * d + i] += scaledValue * err[row * d + i];
      }
    });
  }
  // b_pre is added to the live reconstruction (E5) and subtracted from every input (E1): two paths,
  // and the auxiliary target is held fixed.
  for (let i = 0; i < d; i++) {
    let throughInput = 0;
    for (let j = 0; j < g.latentBias.length; j++) throughInput += g.latentBias[j] * w.encoder[j * d + i];
    g.preBias[i] = live.scale * errColumns[i] - throughInput;
  }
}

// ---- update ----

/**
 * Takes out of each decoder row's gradient what would only change its length: g -= (w . g) w. Rows
 * [n,d] of unit length.
 */
export function project(decoder: Float64Array, gradient: Float64Array, d: number): void {
  for (let start = 0; start < decoder.length; start += d) {
    let dot = 0;
    for (let i = start; i < start + d; i++) dot += decoder[i] * gradient[i];
    for (let i = start; i < start + d; i++) gradient[i] -= dot * decoder[i];
  }
}

/** Clipping by the global norm: the factor for a gradient of this norm. `clip` 0: off. */
export function clipFactor(norm: number, clip: number): number {
  return clip > 0 ? clip / Math.max(norm, clip) : 1;
}

/** Adam's numbers for one step; `t` counts from 1. */
export interface Adam {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly t: number;
}

/**
 * Adam (Kingma and Ba 2015) with eps outside the bias-corrected root, on every weight, also of
 * latents that were not used. -> w, m, v.
 */
export function adam(
  o: Adam,
  w: Float64Array,
  m: Float64Array,
  v: Float64Array,
  gradient: Float64Array,
  factor: number,
): void {
  const correction1 = 1 - o.beta1 ** o.t;
  const correction2 = 1 - o.beta2 ** o.t;
  for (let i = 0; i < w.length; i++) {
    const g = factor * gradient[i];
    m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
    v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
    w[i] -= (o.lr * (m[i] / correction1)) / (Math.sqrt(v[i] / correction2) + o.eps);
  }
}

/** A decoder row shorter than this has no direction left. */
export const SHORTEST_ROW = 1e-12;

/**
 * Every row [n,d] to length 1. A row without a direction gets a random one, which depends on its
 * latent and on Adam's t only, and moments 0. `firstLatent`: of all shards.
 */
export function unitRows(
  decoder: Float64Array,
  m: Float64Array,
  v: Float64Array,
  d: number,
  t: number,
  firstLatent = 0,
): void {
  for (let j = 0; j * d < decoder.length; j++) {
    const row = decoder.subarray(j * d, (j + 1) * d);
    let length = Math.sqrt(squares(row));
    if (length < SHORTEST_ROW) {
      for (let i = 0; i < d; i++) row[i] = randomElement(firstLatent + j, t, i);
      m.fill(0, j * d, (j + 1) * d);
      v.fill(0, j * d, (j + 1) * d);
      length = Math.max(Math.sqrt(squares(row)), SHORTEST_ROW);
    }
    for (let i = 0; i < d; i++) row[i] = row[i] / length;
  }
}

/** A number in [-1, 1) from integers alone, so that every engine draws the same. */
export function randomElement(latent: number, t: number, i: number): number {
  return fmix32(fmix32(fmix32(latent ^ 0x9e3779b9) + t) + i) / 2 ** 31 - 1;
}

/**
 * The running average: ema += (1 - decay) (w - ema). It starts from 0, so after t updates it is too
 * small by 1 - decay^t.
 */
export function average(ema: Float64Array, w: Float64Array, decay: number): void {
  for (let i = 0; i < ema.length; i++) ema[i] += (1 - decay) * (w[i] - ema[i]);
}

/** Rows of the global batches since the latent last fired, at most 2^32 - 1. */
export function nextAge(age: number, fired: boolean, rows: number): number {
  return fired ? 0 : Math.min(age + rows, 0xffff_ffff);
}

// ---- small parts ----

/** Calls with (row, latent, index of the pair) for each pair that is on, in order. */
function eachPair(z: Pairs, visit: (row: number, latent: number, slot: number) => void): void {
  const { capacity, latent, value } = z;
  for (let row = 0; row * capacity < latent.length; row++) {
    const end = (row + 1) * capacity;
    for (let slot = row * capacity; slot < end && value[slot] > 0; slot++) visit(row, latent[slot], slot);
  }
}

/** Sum of squares. */
export function squares(a: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * a[i];
  return sum;
}

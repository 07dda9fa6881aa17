/** E4 to E12: reconstructions and losses. */

import { eachPair, NO_LATENT, type Pairs, type Sums, squares } from "./types.ts";

/**
 * E4, E10: out [G,B,d] = W_dec z, without a bias: plane g holds the latents whose first prefix is
 * g.
 */
export function decode(
  decoder: Float64Array,
  z: Pairs,
  out: Float64Array,
  prefixes: readonly Prefix[] = wholePrefix(NO_LATENT),
): void {
  const size = out.length / prefixes.length;
  const d = size / (z.latent.length / z.capacity);
  out.fill(0);
  eachPair(z, (row, j, slot) => {
    const value = z.value[slot];
    const from = planeOf(prefixes, j) * size + row * d;
    for (let i = 0; i < d; i++) out[from + i] += value * decoder[j * d + i];
  });
}

/** out [B,dOut] += W_skip x, skip [dOut,dIn], x [B,dIn]. */
export function addSkip(skip: Float64Array, x: Float64Array, out: Float64Array, dIn: number): void {
  const dOut = skip.length / dIn;
  for (let e = 0; e < out.length; e++) {
    const row = Math.floor(e / dOut);
    let sum = 0;
    for (let i = 0; i < dIn; i++) sum += skip[(e % dOut) * dIn + i] * x[row * dIn + i];
    out[e] += sum;
  }
}

/**
 * Of a Matryoshka autoencoder: it holds the latents below `end`; `weight` is relative to the last
 * one's.
 */
export interface Prefix {
  readonly end: number;
  readonly weight: number;
}

/** No prefixes: all latents in one reconstruction. */
export function wholePrefix(n: number): readonly Prefix[] {
  return [{ end: n, weight: 1 }];
}

/** The first prefix that holds the latent: its plane of err. */
export function planeOf(prefixes: readonly Prefix[], latent: number): number {
  return prefixes.findIndex(({ end }) => latent < end);
}

/**
 * E5 with prefixes (Matryoshka: Bussmann et al. 2025, arXiv 2503.17547). err [G,B,d]: plane g holds
 * the sum W_dec z over the latents that are in prefix g and not in an earlier one. It becomes
 * e_g = sum over h >= g of weight_h (x_hat_h - x), the gradient that a latent of plane g sees; as
 * the last weight is 1, the last plane is the residual of the whole autoencoder. Returns the
 * squared residual of each prefix but the last.
 */
export function prefixResiduals(
  prefixes: readonly Prefix[],
  preBias: Float64Array,
  target: Float64Array,
  err: Float64Array,
): Float64Array {
  const d = preBias.length;
  const size = target.length;
  const squared = new Float64Array(prefixes.length - 1);
  const residuals = new Float64Array(prefixes.length);
  for (let e = 0; e < size; e++) {
    let sum = preBias[e % d] - target[e];
    for (let g = 0; g < prefixes.length; g++) {
      sum += err[g * size + e];
      residuals[g] = sum;
      if (g < squared.length) squared[g] += sum * sum;
    }
    let weighted = 0;
    for (let g = prefixes.length - 1; g >= 0; g--) {
      weighted += prefixes[g]!.weight * residuals[g];
      err[g * size + e] = weighted;
    }
  }
  return squared;
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
  /** The same of each prefix but the last. */
  readonly prefixFvu: readonly number[];
  /** sum (x_hat - x)^2 / sum x^2. NaN when all rows are 0. */
  readonly normalizedMse: number;
  /** Mean number of latents above 0 in a row. */
  readonly l0: number;
}

/**
 * The losses of a batch of `rows` rows, from its sums. `prefixes`: of a Matryoshka autoencoder,
 * whose loss is mseScale sum weight_g mse_g + auxCoef auxk_loss; `mse` and `fvu` are of the last
 * prefix, which is the whole autoencoder.
 */
export function losses(
  s: Sums,
  rows: number,
  mseScale: number,
  auxCoef: number,
  prefixes: readonly Prefix[] = [],
): Losses {
  const mse = s.err2 / (rows * s.errColumns.length);
  const inner = s.prefixErr2.reduce((sum, err2, g) => sum + prefixes[g]!.weight * err2, 0);
  const auxVariation = auxTargetVariation(s, rows);
  const auxkLoss = auxVariation === 0 ? 0 : s.auxErr2 / auxVariation;
  const variation = centredVariation(s, rows);
  return {
    mse,
    auxkLoss,
    loss: mseScale * (mse + inner / (rows * s.errColumns.length)) + auxCoef * auxkLoss,
    fvu: variation > 0 ? s.err2 / variation : Number.NaN,
    prefixFvu: Array.from(s.prefixErr2, (err2) => (variation > 0 ? err2 / variation : Number.NaN)),
    normalizedMse: s.x2 > 0 ? s.err2 / s.x2 : Number.NaN,
    l0: s.active / rows,
  };
}

/** Sum over rows and columns of (x - mean of the column)^2; 0 where what is left is rounding. */
export function centredVariation(s: Sums, rows: number): number {
  const variation = s.centred2 - squares(s.centredColumns) / rows;
  return variation <= LEAST_VARIATION * s.centred2 ? 0 : variation;
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

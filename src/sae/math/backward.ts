/** The gradients. */

import { auxTargetVariation, type Prefix, planeOf, wholePrefix } from "./forward.ts";
import { penaltySlope, type Sparsity, thresholdGradients } from "./sparsity.ts";
import { eachPair, NO_LATENT, type Pairs, type Sums, type Weights } from "./types.ts";

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
 * The gradient of each selected value: decoder[latent] . err, without the factor of the loss. err
 * [B,d], or [G,B,d] with prefixes, where a latent reads the plane of its first prefix.
 */
export function codeGradients(
  decoder: Float64Array,
  z: Pairs,
  err: Float64Array,
  prefixes: readonly Prefix[] = wholePrefix(NO_LATENT),
): void {
  const size = err.length / prefixes.length;
  const d = size / (z.latent.length / z.capacity);
  z.grad.fill(0);
  eachPair(z, (row, j, slot) => {
    const from = planeOf(prefixes, j) * size + row * d;
    let dot = 0;
    for (let i = 0; i < d; i++) dot += decoder[j * d + i] * err[from + i];
    z.grad[slot] = dot;
  });
}

/** One way through the autoencoder, with the factor of its loss (`lossScales`). err [G,B,d]. */
export interface ScaledBranch {
  readonly codes: Pairs;
  readonly err: Float64Array;
  readonly scale: number;
  /** Default: one plane for all latents. */
  readonly prefixes?: readonly Prefix[] | undefined;
}

export interface GradientInput {
  readonly w: Weights;
  /** The rows that were encoded [B,dIn]. */
  readonly x: Float64Array;
  /** Column sums of err plane 0 [dOut], of all replicas; zeros on ranks where they do not count. */
  readonly planeColumns: Float64Array;
  readonly live: ScaledBranch;
  readonly dead?: ScaledBranch | undefined;
  /** Whether b_dec is not subtracted from the input. */
  readonly untied?: boolean | undefined;
  /** Of JumpReLU: its band, whose codes' gradients are of the live err, and its sparsity loss. */
  readonly band?: Pairs | undefined;
  readonly sparsity?: Sparsity | undefined;
  /** Which latents are dead, for the pre-activation loss. */
  readonly isDead?: ((j: number) => boolean) | undefined;
  /**
   * For the pre-activation loss: the rows for which this rank adds it, and column sums [dIn] of
   * what is encoded in them, x - b_dec (untied: x).
   */
  readonly countedRows?: number | undefined;
  readonly countedColumns?: Float64Array | undefined;
}

/**
 * -> g: the gradient of the loss with respect to every weight. relu and every selection rule let
 * the gradient through where a value is selected and nowhere else; a threshold has that of
 * `thresholdGradients`.
 */
export function gradients(input: GradientInput, g: Weights): void {
  const { w, x, planeColumns, live, dead, untied = false, band, sparsity } = input;
  const dOut = w.preBias.length;
  const dIn = w.encoder.length / w.latentBias.length;
  g.encoder.fill(0);
  g.decoder.fill(0);
  g.latentBias.fill(0);
  const isDead = sparsity !== undefined && sparsity.deadPenalty > 0 ? input.isDead : undefined;
  const deadSlope = sparsity === undefined ? 0 : sparsity.deadPenalty / sparsity.rows;
  for (const branch of dead ? [live, dead] : [live]) {
    const { codes, err, scale, prefixes = wholePrefix(NO_LATENT) } = branch;
    const size = err.length / prefixes.length;
    eachPair(codes, (row, j, slot) => {
      const value = codes.value[slot];
      let dPre = scale * codes.grad[slot];
      if (branch === live && sparsity !== undefined) {
        dPre += penaltySlope(sparsity, value);
        // Above its threshold it has no part in the pre-activation loss, which is added for all
        // rows.
        if (isDead?.(j)) dPre += deadSlope;
      }
      const from = planeOf(prefixes, j) * size + row * dOut;
      g.latentBias[j] += dPre;
      for (let i = 0; i < dIn; i++) g.encoder[j * dIn + i] += dPre * (x[row * dIn + i] - (untied ? 0 : w.preBias[i]));
      for (let i = 0; i < dOut; i++) g.decoder[j * dOut + i] += scale * value * err[from + i];
    });
  }
  if (g.threshold !== undefined && band !== undefined && sparsity !== undefined)
    thresholdGradients(w.threshold!, band, live.scale, sparsity, g.threshold);
  if (isDead !== undefined) addDeadPenalty(input, isDead, deadSlope, g);
  if (g.skip !== undefined) skipGradient(x, live, dIn, dOut, g.skip);
  // b_dec is added to the live reconstruction (E5) and, where it is tied, subtracted from every
  // input (E1): two branches, and the auxiliary target is held fixed.
  for (let i = 0; i < dOut; i++) {
    let throughInput = 0;
    if (!untied) for (let j = 0; j < g.latentBias.length; j++) throughInput += g.latentBias[j] * w.encoder[j * dIn + i];
    g.preBias[i] = live.scale * planeColumns[i] - throughInput;
  }
}

/**
 * The pre-activation loss of dead latents, c / rows sum relu(theta - z): the gradient of the rows
 * in which the latent is off. `gradients` has taken out those in which it is on.
 */
function addDeadPenalty(
  { live, countedColumns, countedRows = 0 }: GradientInput,
  isDead: (j: number) => boolean,
  slope: number,
  g: Weights,
): void {
  const d = countedColumns!.length;
  for (let j = 0; j < g.latentBias.length; j++) {
    if (!isDead(j)) continue;
    g.latentBias[j] -= slope * countedRows;
    for (let i = 0; i < d; i++) g.encoder[j * d + i] -= slope * countedColumns![i];
    if (g.threshold !== undefined) g.threshold[j]! += slope * countedRows;
  }
  if (g.threshold === undefined) return;
  const { threshold } = g;
  eachPair(live.codes, (_, j) => {
    if (isDead(j)) threshold[j]! -= slope;
  });
}

/** -> [dOut,dIn]: scale times the sum over rows of err plane 0 by x. */
function skipGradient(x: Float64Array, { err, scale }: ScaledBranch, dIn: number, dOut: number, g: Float64Array): void {
  g.fill(0);
  for (let row = 0; row * dIn < x.length; row++)
    for (let o = 0; o < dOut; o++)
      for (let i = 0; i < dIn; i++) g[o * dIn + i] += scale * err[row * dOut + o] * x[row * dIn + i];
}

/** The update: project, clip, Adam, unit decoder rows, running averages. */

import { fmix32 } from "../../util/rng.ts";
import { squares } from "./types.ts";

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

/** cut [1], the running mean of the lowest value that BatchTopK kept; `lowest` 0: none was kept. */
export function moveCut(cut: Float64Array, lowest: number, decay: number): void {
  if (lowest > 0) cut[0]! += (1 - decay) * (lowest - cut[0]!);
}

/**
 * sparsity [2]: the multiplier of the coefficient, and the smoothed L0. A controller with a part in
 * proportion to the error L0 / target - 1, which damps it, and an integral one, of asinh, at most
 * `CONTROLLER_STEP` a step: far from 0 that grows and shrinks as an exponential does, and it passes
 * through 0, since an L0 may fall below the target without any loss and must then be pulled up.
 * `l0` is the mean of the batch.
 */
export function control(sparsity: Float64Array, l0: number, target: number, gain: number): void {
  if (!(gain > 0)) return;
  const [multiplier, before] = sparsity as unknown as readonly [number, number];
  const smoothed = before === 0 ? l0 : before + (1 - CONTROLLER_SMOOTHING) * (l0 - before);
  const error = smoothed / target - 1;
  const step = Math.max(-CONTROLLER_STEP, Math.min(CONTROLLER_STEP, gain * error));
  const integral = before === 0 ? multiplier : multiplier - CONTROLLER_DAMPING * (before / target - 1);
  const moved = Math.sinh(Math.asinh(integral) + step) + CONTROLLER_DAMPING * error;
  sparsity[0] = Math.max(-CONTROLLER_MOST, Math.min(CONTROLLER_MOST, moved));
  sparsity[1] = smoothed;
}

export const CONTROLLER_SMOOTHING = 0.9;
export const CONTROLLER_STEP = 0.05;
export const CONTROLLER_DAMPING = 20;
export const CONTROLLER_MOST = 1e4;

/** Rows of the global batches since the latent last fired, at most 2^32 - 1. */
export function nextAge(age: number, fired: boolean, rows: number): number {
  return fired ? 0 : Math.min(age + rows, 0xffff_ffff);
}

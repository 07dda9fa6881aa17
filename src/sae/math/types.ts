/** What the functions of this folder work on. */

import type { PerParam } from "../params.ts";

/** The latent of an unused slot of codes. */
export const NO_LATENT = 0xffff_ffff;

/** By the names of params.ts; each row-major, of the shape that is given there. */
export type Weights = PerParam<Float64Array>;

/**
 * What is selected: [B,capacity] pairs. The first latent NO_LATENT of a row ends it. `grad` is the
 * gradient of each value, unscaled.
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
  /** Of (x - b_pre)^2; x is what is reconstructed, here and below: a transcoder's target. */
  readonly centred2: number;
  /** Latents that are on, over all rows. */
  readonly active: number;
  /** Latents that are dead in this step. */
  readonly dead: number;
  /** Of x_hat - x, for each output. */
  readonly errColumns: Float64Array;
  /** Of x - b_pre, for each output. */
  readonly centredColumns: Float64Array;
  /**
   * Of err plane 0, for each output: what `prefixResiduals` leaves there. One plane: errColumns.
   */
  readonly planeColumns: Float64Array;
  /** Of the squared residual of each prefix but the last, which is `err2`. */
  readonly prefixErr2: Float64Array;
}

/** Calls with (row, latent, index of the pair) for each pair that is on, in order. */
export function eachPair(z: Pairs, visit: (row: number, latent: number, slot: number) => void): void {
  const { capacity, latent } = z;
  for (let row = 0; row * capacity < latent.length; row++) {
    const end = (row + 1) * capacity;
    for (let slot = row * capacity; slot < end && latent[slot] !== NO_LATENT; slot++) visit(row, latent[slot], slot);
  }
}

/** Sum of squares. */
export function squares(a: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * a[i];
  return sum;
}

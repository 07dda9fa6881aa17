/**
 * What a step is timed on: rows of noise, in one of the situations that a step's time depends on.
 */

import { rulesOf } from "../sae/architectures/index.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { type RankShard, rankShard } from "../train/rank-shard.ts";
import { PURPOSE, Rng } from "../util/rng.ts";

/**
 * A TopK autoencoder to time: `d` inputs, `n` latents, k active per row, auxk dead ones for the
 * auxiliary loss.
 */
export interface TopkSizes {
  readonly d: number;
  readonly n: number;
  readonly k: number;
  readonly auxk: number;
}

/** All of it on one rank. */
export function shardOf({ d, n, k, auxk }: TopkSizes): RankShard {
  return rankShard(autoencoderDims(d, n), rulesOf({ architecture: "topk", k, auxk }));
}

export interface Situation {
  readonly name: string;
  /** Every so many latents one is dead, and stays so over any number of steps; 0: none is. */
  readonly deadEvery: number;
  /** HEAVY latents are active on half of the rows each. */
  readonly skewed: boolean;
}

/** Ages count rows; this many are never reached. */
export const DEAD_AFTER = 1e9;

/** Latents that skewed rows have on half of the time. */
export const HEAVY = 20;

/**
 * What `deadEvery` is where a quarter of the latents is dead; it divides every other that is used.
 */
export const DEAD_EVERY = 4;

/** One copy an encoder and deadEvery, of which there may be one for many benches. */
const HELD = new WeakMap<Float32Array, Map<number, Float32Array>>();

/** Never dead ones, for n of at least DEAD_EVERY HEAVY: no multiple of DEAD_EVERY. */
export function heavyLatents(n: number): readonly number[] {
  return Array.from({ length: HEAVY }, (_, i) => DEAD_EVERY * Math.floor((i * n) / (DEAD_EVERY * HEAVY)) + 1);
}

/** Ages [n] as a step begins. */
export function agesOf(n: number, { deadEvery }: Situation): Uint32Array {
  return Uint32Array.from({ length: n }, (_, j) => (deadEvery > 0 && j % deadEvery === 0 ? 2 * DEAD_AFTER : 0));
}

/**
 * encoder [n,d] with the rows of latents that are to stay dead halved: half of their
 * pre-activations are above 0, so that AuxK has all it asks for, but at n = 32768 the highest of k
 * = 32 live ones begin at three standard deviations of a live latent's, which are six of a halved
 * one's: they do not fire.
 */
export function heldBack(encoder: Float32Array, d: number, { deadEvery }: Situation): Float32Array {
  if (deadEvery === 0) return encoder;
  const copies = HELD.get(encoder) ?? new Map<number, Float32Array>();
  HELD.set(encoder, copies);
  const known = copies.get(deadEvery);
  if (known !== undefined) return known;
  const held = encoder.slice();
  copies.set(deadEvery, held);
  for (let row = 0; row < held.length; row += deadEvery * d) for (let i = row; i < row + d; i++) held[i] *= 0.5;
  return held;
}

/**
 * Rows [batch,d], evenly drawn from the cube around 0 with side 1. Skewed ones have added to them,
 * each with probability one half, the directions of the HEAVY latents in the decoder [n,d], half as
 * long as the noise is: with the tied start that puts these latents among the highest of their
 * rows.
 */
export function drawRows(
  { d, n }: TopkSizes,
  batch: number,
  { skewed }: Situation,
  decoder: Float32Array,
): Float32Array {
  const rng = new Rng(0, PURPOSE.synthetic, 3);
  const rows = Float32Array.from({ length: batch * d }, () => rng.uniform() - 0.5);
  if (!skewed) return rows;
  const strength = 0.5 * Math.sqrt(d / 12);
  for (let row = 0; row < batch; row++) {
    for (const latent of heavyLatents(n)) {
      if (rng.uniform() < 0.5) continue;
      for (let i = 0; i < d; i++) rows[row * d + i] += strength * decoder[latent * d + i];
    }
  }
  return rows;
}

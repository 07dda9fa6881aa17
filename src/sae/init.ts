/** The start of an autoencoder: a pure function of the seed, the same for every engine. */

import { PURPOSE, Rng } from "../util/rng.ts";
import type { Dims } from "./dims.ts";

/**
 * The tied start of the reference: encoder [n,d] uniform in +-1/sqrt(d) (what PyTorch's Linear
 * draws), decoder [n,d] its copy with unit rows (Gao et al. 2024, appendix A.1). Each row is a
 * function of (seed, latent) alone; `firstLatent` is the number of row 0.
 */
export function tiedStart(
  { dIn: d, n }: Dims,
  seed: number,
  firstLatent = 0,
): { encoder: Float32Array; decoder: Float32Array } {
  const encoder = new Float32Array(n * d);
  const decoder = new Float32Array(n * d);
  const bound = 1 / Math.sqrt(d);
  for (let latent = 0; latent < n; latent++) {
    const rng = new Rng(seed, PURPOSE.encoder, firstLatent + latent);
    const row = encoder.subarray(latent * d, (latent + 1) * d);
    let square = 0;
    for (let i = 0; i < d; i++) {
      const value = Math.fround((2 * rng.uniform() - 1) * bound);
      row[i] = value;
      square += value * value;
    }
    const norm = Math.sqrt(square);
    for (let i = 0; i < d; i++) decoder[latent * d + i] = row[i]! / norm;
  }
  return { encoder, decoder };
}

/**
 * Unit-norm random directions [count,d], for the encoder rescale: they show what an encoder makes
 * of inputs of norm 1.
 */
export function unitProbes(count: number, d: number, seed: number): Float32Array {
  const probes = new Float32Array(count * d);
  for (let row = 0; row < count; row++) {
    const rng = new Rng(seed, PURPOSE.probes, row);
    let square = 0;
    for (let i = 0; i < d; i++) {
      const value = rng.normal();
      probes[row * d + i] = value;
      square += value * value;
    }
    const norm = Math.sqrt(square);
    for (let i = 0; i < d; i++) probes[row * d + i]! /= norm;
  }
  return probes;
}

/** Codes of rows, as they leave an autoencoder. */

import { NONE } from "../engine/engine.ts";

/**
 * At most k active latents per row: [B,k] each, in the order of the rule (sae/rule.ts): the
 * strongest first where k is fixed, by latent where a threshold decides, and k is then that of the
 * row with the most. An unused slot has latent NONE (2^32 - 1) and value 0.
 */
export interface SparseCodes {
  readonly k: number;
  readonly latent: Uint32Array;
  readonly value: Float32Array;
  /**
   * What `decode` needs to give rows back, where each row is normalised by itself ("unit",
   * "layer_norm").
   */
  readonly rows?: RowStatistics;
}

/**
 * mean and size [B]: a row is its normalised row times size, plus mean. Means of 0 and sizes of 1
 * stand for the space of normalised rows.
 */
export interface RowStatistics {
  readonly mean: Float64Array;
  readonly size: Float64Array;
}

export interface CodesOfRows {
  readonly k: number;
  readonly latent: Uint32Array;
  readonly value: Float32Array | Float64Array;
}

/** All rows with the same number of slots: `k`, or what the row with the most uses, at least 1. */
export function together(
  parts: readonly CodesOfRows[],
  rows: number,
  k?: number,
): Pick<SparseCodes, "k" | "latent" | "value"> {
  const slots = k ?? Math.max(1, ...parts.map(mostUsed));
  const latent = new Uint32Array(rows * slots).fill(NONE);
  const value = new Float32Array(rows * slots);
  let row = 0;
  for (const part of parts) {
    for (let first = 0; first < part.latent.length; first += part.k, row++) {
      const end = first + Math.min(slots, part.k);
      latent.set(part.latent.subarray(first, end), row * slots);
      value.set(part.value.subarray(first, end), row * slots);
    }
  }
  return { k: slots, latent, value };
}

function mostUsed({ k, latent }: CodesOfRows): number {
  let most = 0;
  for (let first = 0; first < latent.length; first += k) {
    while (most < k && latent[first + most] !== NONE) most++;
  }
  return most;
}

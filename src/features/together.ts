/** Which latents fire in the same rows, more often than chance has it. */

import type { StoredTogether } from "../explorer/shared/format.ts";
import { rowsOfLatents, type SampledCodes } from "./code-sample.ts";

/** Firings together below which nothing is said. */
const LEAST = 5;

/**
 * Of each latent the `count` others that say most about it: of those that fire with it in at least
 * LEAST rows and have lift = P(both) / (P(one) P(other)) above 1, those with the largest P(both)
 * log lift, their part of the mutual information. Counted row by row in memory of `latents`.
 */
export function* firingTogether(sample: SampledCodes, latents: number, count: number): Generator<StoredTogether[]> {
  const { rows, begin, latent } = sample;
  const { offsets, row } = rowsOfLatents(sample, latents);
  const both = new Uint32Array(latents);
  const touched = new Uint32Array(latents);
  for (let j = 0; j < latents; j++) {
    let used = 0;
    for (let at = offsets[j]; at < offsets[j + 1]; at++) {
      for (let i = begin[row[at]]; i < begin[row[at] + 1]; i++) {
        const other = latent[i];
        if (both[other]++ === 0) touched[used++] = other;
      }
    }
    const found: (StoredTogether & { readonly worth: number })[] = [];
    for (const other of touched.subarray(0, used)) {
      const firings = both[other];
      both[other] = 0;
      if (other === j || firings < LEAST) continue;
      const lift = (firings * rows) / ((offsets[j + 1] - offsets[j]) * (offsets[other + 1] - offsets[other]));
      if (lift <= 1) continue;
      found.push({ latent: other, firings, lift: Number(lift.toPrecision(4)), worth: firings * Math.log(lift) });
    }
    found.sort((a, b) => b.worth - a.worth || a.latent - b.latent);
    yield found.slice(0, count).map(({ worth: _, ...each }) => each);
  }
}

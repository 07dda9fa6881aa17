/** How often latents fire: density.jsonl, and the histograms in reports. */

/**
 * Latents whose density - the share of rows in which the value is above 0 - is in (10^from, 10^to].
 */
export interface DensityBin {
  readonly from: number;
  readonly to: number;
  readonly latents: number;
}

/** What `from` and `to` of a bin are, for readers of the JSON. */
export const DENSITY_UNIT = "log10 of the share of rows";

/** A line of density.jsonl: one evaluation on the held-out rows. */
export interface DensityLine {
  readonly step: number;
  readonly rows: number;
  readonly latents: number;
  /** Latents with no value above 0 in any of the rows. */
  readonly never: number;
  readonly density: readonly DensityBin[];
  readonly density_unit: typeof DENSITY_UNIT;
}

/**
 * `firings[latent]` rows of `rows` -> bins of equal width, `perDecade` to a factor of 10, from the
 * one that a single firing falls into up to always.
 */
export function densityBins(firings: Float64Array, rows: number, perDecade = 2): DensityBin[] {
  const binOf = (times: number) => Math.min(0, Math.ceil(perDecade * Math.log10(times / rows) - 1e-9));
  const counts = new Map<number, number>();
  for (const times of firings) if (times > 0) counts.set(binOf(times), (counts.get(binOf(times)) ?? 0) + 1);
  const first = binOf(1);
  return Array.from({ length: 1 - first }, (_, i) => ({
    from: (first + i - 1) / perDecade,
    to: (first + i) / perDecade,
    latents: counts.get(first + i) ?? 0,
  }));
}

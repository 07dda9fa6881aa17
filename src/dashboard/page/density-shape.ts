/** The histogram of densities in the units of a drawing. */

import type { Density } from "../api.ts";

/** Powers of ten that the x axis spans. */
export interface Extent {
  readonly from: number;
  readonly to: number;
  /** Largest share of a run's latents in one bin. */
  readonly most: number;
}

/** Whole decades around all bins, up to always. */
export function extentOf(shown: readonly Density[]): Extent {
  const bins = shown.flatMap((density) => density.bins.filter(({ latents }) => latents > 0));
  return {
    from: Math.floor(Math.min(-2, ...bins.map(({ from }) => from))),
    to: 0,
    most: Math.max(
      1e-9,
      ...shown.flatMap(({ bins: own, never, latents }) =>
        [never, ...own.map((bin) => bin.latents)].map((count) => count / Math.max(1, latents)),
      ),
    ),
  };
}

/** The share of rows on which the latent in the middle fires; null when that is none. */
export function medianDensity({ bins, never, latents }: Density): number | null {
  let left = latents / 2 - never;
  if (left <= 0) return null;
  for (const { from, to, latents: count } of bins) {
    if (left <= count) return 10 ** (from + ((to - from) * left) / count);
    left -= count;
  }
  return null;
}

/**
 * The outline of the bins as an SVG path; `x` and `y` place an exponent and a share of the latents.
 */
export function outline(
  { bins, latents }: Density,
  x: (exponent: number) => number,
  y: (share: number) => number,
): string {
  if (bins.length === 0) return "";
  const points = bins.flatMap(({ from, to, latents: count }) => {
    const height = y(count / Math.max(1, latents));
    return [`${x(from).toFixed(1)},${height.toFixed(1)}`, `${x(to).toFixed(1)},${height.toFixed(1)}`];
  });
  const ground = y(0).toFixed(1);
  return `M${x(bins[0]!.from).toFixed(1)},${ground} L${points.join(" L")} L${x(bins.at(-1)!.to).toFixed(1)},${ground}`;
}

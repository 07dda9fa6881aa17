/** Lines of density.jsonl: how often latents fire, at each evaluation. */

import type { DensityBin, DensityLine } from "../run-files/density.ts";
import type { Density } from "./api.ts";

/** Entries kept of a run; the oldest go first. */
const MOST_ENTRIES = 200;
const MOST_BINS = 200;
/** No share of rows is smaller than this power of ten. */
const LEAST = -15;

/**
 * `entries` with the one that `line` holds, after which none of a later step stands: a run that was
 * resumed comes by its steps again.
 */
export function withDensity(
  entries: readonly Density[],
  line: Readonly<Record<string, unknown>> | undefined,
): readonly Density[] {
  const entry = line && densityOf(line);
  if (entry === undefined) return entries;
  return [...entries.filter(({ step }) => step < entry.step), entry].slice(-MOST_ENTRIES);
}

function densityOf({
  step,
  rows,
  latents,
  never,
  density,
}: { readonly [K in keyof DensityLine]?: unknown }): Density | undefined {
  if (!isCount(step) || !isCount(rows) || !isCount(latents) || !isCount(never) || !Array.isArray(density))
    return undefined;
  const bins = density.slice(0, MOST_BINS).filter(isBin);
  return {
    step,
    rows,
    latents,
    never,
    bins: bins.map(({ from, to, latents: count }) => ({ from, to, latents: count })),
  };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isBin(value: unknown): value is DensityBin {
  if (typeof value !== "object" || value === null) return false;
  const { from, to, latents } = value as { readonly [K in keyof DensityBin]?: unknown };
  return (
    typeof from === "number" && typeof to === "number" && from >= LEAST && from < to && to <= 0 && isCount(latents)
  );
}

/**
 * How well latents tell when a true direction is on: each direction is given the latent whose
 * decoder row is nearest to it, and the two are compared row by row (F1, as in SynthSAEBench).
 */

import type { Sae } from "../inference/sae.ts";
import { bytesOf } from "../util/bytes.ts";
import type { Dictionary } from "./dictionary.ts";

export interface FiringMatch {
  /** Rows that were compared. */
  readonly rows: number;
  /** Mean active latents per row. */
  readonly l0: number;
  /** Mean over directions that are on in some of the rows. */
  readonly f1: number;
  /** The same of parents and of children; null without a hierarchy. */
  readonly parentF1: number | null;
  readonly childF1: number | null;
  /** Share of the parents with an F1 of at least 0.9; null without a hierarchy. */
  readonly parentsFound: number | null;
}

const FOUND = 0.9;
const ROWS_AT_ONCE = 1024;

/**
 * `decoder` [n,width]. The rows are those from `first` on, which the caller has not trained on.
 */
export async function firingMatch(
  sae: Sae,
  source: Dictionary,
  decoder: Float32Array,
  { first, count, children = 0 }: { readonly first: number; readonly count: number; readonly children?: number },
): Promise<FiringMatch> {
  const width = source.dIn;
  const directions = source.truth.length / width;
  const nearest = nearestRows(source.truth, decoder, width);
  const both = new Float64Array(directions);
  const on = new Float64Array(directions);
  const fired = new Float64Array(decoder.length / width);
  const raw = new Uint8Array(bytesOf(new Float32Array(ROWS_AT_ONCE * width)));
  for (let at = first; at < first + count; at += ROWS_AT_ONCE) {
    const rows = Math.min(ROWS_AT_ONCE, first + count - at);
    await source.read(at, rows, raw);
    const { k, latent, value } = await sae.encodeRaw(raw.subarray(0, rows * width * 4), "f32", rows);
    for (let row = 0; row < rows; row++) {
      const active = new Set<number>();
      for (let slot = row * k; slot < (row + 1) * k; slot++) if (value[slot]! > 0) active.add(latent[slot]!);
      for (const each of active) fired[each]!++;
      for (const direction of source.onIn(at + row)) {
        on[direction]!++;
        if (active.has(nearest[direction]!)) both[direction]!++;
      }
    }
  }
  const f1 = Array.from(on, (times, j) => (times === 0 ? undefined : (2 * both[j]!) / (times + fired[nearest[j]!]!)));
  const isParent = (direction: number) => direction % (children + 1) === 0;
  const mean = (keep: (direction: number) => boolean) => {
    const kept = f1.filter((each, j): each is number => each !== undefined && keep(j));
    return kept.reduce((sum, each) => sum + each, 0) / kept.length;
  };
  const parents = f1.filter((each, j): each is number => each !== undefined && isParent(j));
  return {
    rows: count,
    l0: fired.reduce((sum, times) => sum + times, 0) / count,
    f1: mean(() => true),
    parentF1: children === 0 ? null : mean(isParent),
    childF1: children === 0 ? null : mean((j) => !isParent(j)),
    parentsFound: children === 0 ? null : parents.filter((each) => each >= FOUND).length / parents.length,
  };
}

/** For each direction [directions,d] the row of [n,d] with the largest dot product. */
function nearestRows(truth: Float32Array, rows: Float32Array, d: number): Uint32Array {
  return Uint32Array.from({ length: truth.length / d }, (_, direction) => {
    let [best, highest] = [0, Number.NEGATIVE_INFINITY];
    for (let j = 0; j * d < rows.length; j++) {
      let dot = 0;
      for (let i = 0; i < d; i++) dot += truth[direction * d + i]! * rows[j * d + i]!;
      if (dot > highest) [best, highest] = [j, dot];
    }
    return best;
  });
}

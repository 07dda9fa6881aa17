/**
 * The hold-out: whole sequences, a pure function of (seed, fraction), that training never sees and
 * evaluation uses.
 */

import { hash32, PURPOSE } from "../util/rng.ts";
import type { RowSet } from "./mask.ts";
import type { Source } from "./source.ts";

/** Consecutive rows. */
export interface Range {
  readonly first: number;
  readonly count: number;
}

/**
 * Neighbouring rows of 2-D data are often neighbouring tokens: they are held out together, as a
 * sequence would be.
 */
export const ROWS_TOGETHER = 64;

/**
 * The held-out sequences as ranges of rows, in file order: at least one and not all of those that
 * have a row that is not in `gone`. Empty when the fraction is 0 or there are fewer than two such
 * sequences.
 */
export function heldOut(
  source: Pick<Source, "rows" | "sequence" | "computed">,
  fraction: number,
  seed: number,
  gone?: RowSet,
): Range[] {
  // What is computed together is held out together, or training would compute it for nothing.
  const length = source.computed ?? source.sequence ?? ROWS_TOGETHER;
  const sequences = Math.ceil(source.rows / length);
  if (fraction === 0 || sequences < 2) return [];
  let there = 0; // sequences that have rows
  const limit = fraction * 0x1_0000_0000;
  const range = (sequence: number): Range => {
    const first = sequence * length;
    return { first, count: Math.min(length, source.rows - first) };
  };
  const chosen: number[] = [];
  let lowest = { sequence: 0, hash: Number.POSITIVE_INFINITY };
  let highest = { sequence: 0, hash: -1 };
  for (let sequence = 0; sequence < sequences; sequence++) {
    if (gone !== undefined && isWhollyIn(gone, range(sequence))) continue;
    there++;
    const hash = hash32(seed, PURPOSE.holdout, sequence);
    if (hash < limit) chosen.push(sequence);
    if (hash < lowest.hash) lowest = { sequence, hash };
    if (hash > highest.hash) highest = { sequence, hash };
  }
  if (there < 2) return [];
  if (chosen.length === 0) chosen.push(lowest.sequence);
  if (chosen.length === there) chosen.splice(chosen.indexOf(highest.sequence), 1);
  return chosen.map(range);
}

function isWhollyIn(gone: RowSet, { first, count }: Range): boolean {
  if (gone.size === 0) return false;
  for (let row = first; row < first + count; row++) if (!gone.has(row)) return false;
  return true;
}

/** Whether a row is in one of the ranges, which are in order. */
export function isIn(ranges: readonly Range[], row: number): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle]!.first <= row) low = middle + 1;
    else high = middle;
  }
  const range = ranges[low - 1];
  return range !== undefined && row < range.first + range.count;
}

/** Takes rows out of ranges: what is left, as ranges. */
export function without(ranges: readonly Range[], excluded: RowSet): Range[] {
  if (excluded.size === 0) return [...ranges];
  const left: Range[] = [];
  for (const { first, count } of ranges) {
    let start = first;
    for (let row = first; row <= first + count; row++) {
      if (row < first + count && !excluded.has(row)) continue;
      if (row > start) left.push({ first: start, count: row - start });
      start = row + 1;
    }
  }
  return left;
}

/** The rows that are in ranges of both, which are in order. */
export function common(a: readonly Range[], b: readonly Range[]): Range[] {
  const found: Range[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const [one, other] = [a[i]!, b[j]!];
    const first = Math.max(one.first, other.first);
    const end = Math.min(one.first + one.count, other.first + other.count);
    if (end > first) found.push({ first, count: end - first });
    if (one.first + one.count <= other.first + other.count) i++;
    else j++;
  }
  return found;
}

export function countRows(ranges: readonly Range[]): number {
  return ranges.reduce((sum, { count }) => sum + count, 0);
}

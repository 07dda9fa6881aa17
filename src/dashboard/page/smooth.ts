/** Curves without their noise. */

import type { Values } from "./series.ts";

/** Widths beyond which a value weighs less than a thousandth. */
const REACH = 7;

/**
 * Each value replaced by the mean of those around it, with weights that fall off as exp(-distance /
 * width) on both sides, so that nothing is late. Distances are in the units of `at`, which rises;
 * null stays null and weighs nothing. `width` 0: as it is. Where all values within REACH widths are
 * 0, so is the mean: what is farther away has no share that could be seen, but would turn 0 into
 * 2e-29.
 */
export function smooth(at: readonly number[], values: Values, width: number): Values {
  if (!(width > 0)) return values;
  const n = values.length;
  // Two passes of one recursion each: the sums over all that stands to the left and to the right.
  const sums = new Float64Array(n);
  const weights = new Float64Array(n);
  const pass = (order: Iterable<number>) => {
    let sum = 0;
    let weight = 0;
    let before: number | undefined;
    for (const i of order) {
      const fall = before === undefined ? 1 : Math.exp(-Math.abs(at[i]! - at[before]!) / width);
      sum *= fall;
      weight *= fall;
      sums[i]! += sum;
      weights[i]! += weight;
      const value = values[i];
      if (value !== null && value !== undefined) {
        sum += value;
        weight++;
      }
      before = i;
    }
  };
  pass(ascending(n));
  pass(descending(n));
  const isZero = zerosAround(at, values, REACH * width);
  return values.map((value, i) => (value === null ? null : isZero[i] ? 0 : (sums[i]! + value) / (weights[i]! + 1)));
}

/** Whether all values at most `reach` away are 0 (or null). */
function zerosAround(at: readonly number[], values: Values, reach: number): boolean[] {
  // Values that are not 0 before each place.
  const before = [0];
  for (const value of values) before.push(before.at(-1)! + (value === null || value === 0 ? 0 : 1));
  let [first, end] = [0, 0];
  return values.map((_, i) => {
    while (at[first]! < at[i]! - reach) first++;
    while (end < at.length && at[end]! <= at[i]! + reach) end++;
    return before[end] === before[first];
  });
}

function* ascending(n: number): Generator<number> {
  for (let i = 0; i < n; i++) yield i;
}

function* descending(n: number): Generator<number> {
  for (let i = n - 1; i >= 0; i--) yield i;
}

/** Curves without their noise. */

import type { Values } from "./series.ts";

/**
 * Each value replaced by the mean of those around it, with weights that fall off as exp(-distance / width) on both sides, so that nothing is late. Distances are in the
 * units of `at`, which rises; null stays null and weighs nothing. `width` 0: as it is.
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
  return values.map((value, i) => (value === null ? null : (sums[i]! + value) / (weights[i]! + 1)));
}

function* ascending(n: number): Generator<number> {
  for (let i = 0; i < n; i++) yield i;
}

function* descending(n: number): Generator<number> {
  for (let i = n - 1; i >= 0; i--) yield i;
}

/** How far an engine is from the reference, and the error that says where it is too far. */

import { SaettaError } from "../util/errors.ts";

/**
 * The largest differences seen: as a part of what rounding allows, and relative to the largest
 * number of the tensor.
 */
export class Tally {
  worst = 0;
  relative = 0;

  /**
   * Every element within `allowed` of what is expected; throws a SaettaError that names the first
   * that is not.
   */
  compare(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, allowed: (i: number) => number): void {
    let difference = 0;
    let largest = 0;
    for (let i = 0; i < expected.length; i++) {
      const off = Object.is(actual[i], expected[i]) ? 0 : Math.abs(actual[i] - expected[i]);
      const bound = allowed(i);
      if (!(off <= bound))
        throw new SaettaError(
          `${what}[${i}] is ${actual[i]}, the reference has ${expected[i]}, rounding allows ${bound}`,
        );
      if (off > 0) this.worst = Math.max(this.worst, off / bound);
      difference = Math.max(difference, off);
      largest = Math.max(largest, Math.abs(expected[i]));
    }
    if (difference > 0) this.relative = Math.max(this.relative, difference / largest);
  }

  same(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>): void {
    this.compare(what, actual, expected, () => 0);
  }
}

/**
 * WHAT AN ENGINE MUST DO, as plain cases: each compares the engine with the reference, operation by
 * operation on the same numbers, within what rounding allows (conformance-bounds.ts). The tests run
 * all of them on every engine; `doctor` runs whole steps for a second.
 */

import { CASES } from "./conformance-cases.ts";
import { draw } from "./conformance-draw.ts";
import { checkSteps } from "./conformance-step.ts";
import { Tally } from "./conformance-tally.ts";
import type { Engine } from "./engine.ts";
import { createReferenceEngine } from "./reference.ts";

export type { Case, Result } from "./conformance-case.ts";

export { CASES };

/**
 * Whole random steps against the reference, as many as `most` or for about `seconds`. Returns the
 * worst relative error: the largest difference in any tensor, relative to the largest number in it.
 * Throws SaettaError when a difference is larger than rounding allows.
 */
export async function selfTest(
  engine: Engine,
  { most = Number.POSITIVE_INFINITY, seconds = Number.POSITIVE_INFINITY },
): Promise<number> {
  const tally = new Tally();
  const end = performance.now() + 1000 * seconds;
  for (let seed = 1; seed === 1 || (seed <= most && performance.now() < end); seed++) {
    const [d, n, B] = [1 + ((seed * 29) % 80), 1 + ((seed * 71) % 300), 1 + ((seed * 13) % 40)];
    const setup = draw({
      d,
      n,
      k: 1 + (seed % Math.min(n, 32)),
      auxk: 1 + (seed % Math.min(n, 20)),
      B,
      seed,
      dense: seed % 2 === 0,
    });
    await checkSteps(tally, engine, createReferenceEngine(), setup);
  }
  return tally.relative;
}

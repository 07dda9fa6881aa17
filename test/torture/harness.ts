/**
 * Cases drawn from seeds. The ordinary tests try a few, always the same; `npm run torture` tries
 * all that were promised, from seeds that nobody has seen, and prints the seed of every failure,
 * with which `npm run torture -- --only NAME --seed SEED` repeats it. A seed that failed once stays
 * among the `regressions` of its test.
 */

import { Rng } from "../../src/util/rng.ts";

/** What `--only` takes. */
const NAMES = [
  "kill",
  "kill-twice",
  "ENOSPC",
  "EIO",
  "wait",
  "power-prefix",
  "power",
  "power-run",
  "bit-flip",
  "truncation",
  "sigkill",
  "sigkill-write",
  "sigkill-resume",
  "signals",
  "lock",
  "race",
  "non-finite-reference",
  "non-finite-cpu",
] as const;
export type Name = (typeof NAMES)[number];

/** True in `npm run torture`. */
export const LONG = process.env.SAETTA_TORTURE === "long";

const { SAETTA_TORTURE_SEED: GIVEN, SAETTA_TORTURE_ONLY: ONLY } = process.env;
if (ONLY !== undefined && !(NAMES as readonly string[]).includes(ONLY))
  throw new Error(`--only takes ${NAMES.join(", ")}, not ${ONLY}`);
/** The first of the seeds of this run. */
const FIRST = LONG ? Number(process.env.SAETTA_TORTURE_FIRST) : 1;

/** This many failures are told; more would tell nothing new. */
const MOST_TOLD = 5;

export interface Counts {
  /** Cases in the ordinary tests. */
  readonly short: number;
  /** Cases in `npm run torture`. */
  readonly long: number;
  /** Seeds that failed once. */
  readonly regressions?: readonly number[];
}

/**
 * Tries `body` with random numbers from each seed in turn. Rejects with the seeds that failed, and
 * why.
 */
export async function cases(
  name: Name,
  counts: Counts,
  body: (rng: Rng, seed: number) => Promise<void>,
): Promise<void> {
  const drawn = Array.from({ length: LONG ? counts.long : counts.short }, (_, i) => (FIRST + i) >>> 0);
  await each(name, [...(counts.regressions ?? []), ...drawn], (seed) => body(new Rng(seed), seed));
}

/**
 * Tries `body` with every number from 1 to `last`; in the ordinary tests with at most `short` of
 * them, evenly spread.
 */
export async function enumerated(
  name: Name,
  last: number,
  short: number,
  body: (number: number) => Promise<void>,
): Promise<void> {
  const stride = LONG ? 1 : Math.max(1, last / short);
  const numbers = Array.from({ length: Math.floor(last / stride) }, (_, i) => Math.ceil((i + 1) * stride - stride / 2));
  await each(name, numbers, body);
}

async function each(name: Name, seeds: readonly number[], body: (seed: number) => Promise<void>): Promise<void> {
  if (ONLY !== undefined && ONLY !== name) return;
  const failures: string[] = [];
  let first: unknown;
  for (const seed of GIVEN === undefined ? seeds : [Number(GIVEN)]) {
    try {
      await body(seed);
    } catch (thrown) {
      first ??= thrown;
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      failures.push(`seed ${seed}: ${why}\n  again: npm run torture -- --only ${name} --seed ${seed}`);
      if (LONG) process.stderr.write(`${name}, ${failures.at(-1)}\n`);
      if (failures.length === MOST_TOLD) break;
    }
  }
  if (failures.length > 0) throw new Error(`${name}\n${failures.join("\n")}`, { cause: first });
}

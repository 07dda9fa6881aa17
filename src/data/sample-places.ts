/**
 * Where a sample of rows is read: at places spread over the whole file, a few neighbouring rows
 * each.
 */

import { PURPOSE, Rng } from "../util/rng.ts";
import type { Range } from "./holdout.ts";
import type { Source } from "./source.ts";

/** Rows that a sample has unless more or fewer are asked for. */
export const STATISTICS_ROWS = 32_768;

/** Rows read together: one seek then serves several rows of the sample. */
const RUN = 16;
const WHOLE_RUN = 4096;

/**
 * Ranges of 16 rows with at least `wanted` rows in all: one in each of as many equal parts of the
 * file, at a place drawn by seed. A place of its own in each part, because rows of one position of
 * every context lie at equal distances too. With `everything` all rows, 4,096 at a time; of rows
 * that are read once the first `wanted`; of rows that are computed, those that are computed
 * together.
 */
export function* samplePlaces(source: Source, wanted: number, everything: boolean, seed: number): Generator<Range> {
  const rows = source.stream === "once" ? Math.min(source.rows, wanted) : source.rows;
  const rng = new Rng(seed, PURPOSE.sample);
  const { computed } = source;
  const together = computed ?? RUN;
  const runs = Math.ceil(everything ? rows / WHOLE_RUN : wanted / together);
  const stride = everything ? WHOLE_RUN : rows / runs;
  const run = everything ? WHOLE_RUN : Math.min(together, Math.floor(stride));
  for (let r = 0; r < runs; r++) {
    const offset = everything ? 0 : rng.uniform() * Math.max(0, stride - run);
    const place = Math.floor(r * stride + offset);
    const first = everything || computed === undefined ? place : place - (place % computed);
    const count = Math.min(run, rows - first);
    if (count > 0) yield { first, count };
  }
}

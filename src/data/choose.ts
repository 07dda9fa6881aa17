/**
 * Which rows a run trains on and which it is judged by: a pure function of the data, its options
 * and what was appended.
 */

import { SaettaError } from "../util/errors.ts";
import { type Appended, heldOutOf } from "./epochs.ts";
import { type Range, without } from "./holdout.ts";
import { rowNorms, rowsLeftOut, scanRows, type ValueRule, zeroRows as zeroRowsIn } from "./left-out.ts";
import {
  type ExcludePositions,
  type ExcludeTokens,
  excludedPositions,
  excludedRows,
  maskedRows,
  RowSet,
} from "./mask.ts";
import { STATISTICS_ROWS, samplePlaces } from "./sample-places.ts";
import { bytesPerRow, type Source } from "./source.ts";

export interface RowOptions {
  readonly excludeTokens: ExcludeTokens;
  readonly excludePositions?: ExcludePositions;
  /** Rows beyond so many times the median norm are left out; 0: none. */
  readonly maxNorm?: number;
  /** The largest norm that is kept, where an earlier choice found it for `maxNorm`. */
  readonly normLimit?: number | undefined;
  readonly zeroRows?: "skip" | "keep";
  readonly holdout: number;
  readonly seed: number;
  readonly statisticsRows?: number;
  /**
   * "holdout": only which rows are held out is asked, so values are looked at there, as far as that
   * will do.
   */
  readonly only?: "holdout" | undefined;
}

export interface Choice {
  /** Rows that training never sees: all that is left out, and the hold-out. */
  readonly untrained: RowSet;
  /** The hold-out, without what is left out, in file order. */
  readonly holdout: readonly Range[];
  /** Rows left out for their token or their position. */
  readonly excluded: number;
  /** Rows that the source's mask leaves out. */
  readonly masked: RowSet;
  /**
   * Rows left out for their values, as far as they were looked for; how many are zero, and how many
   * beyond the largest norm.
   */
  readonly leftOut: RowSet;
  readonly zeros: number;
  readonly above: number;
  /** The largest norm that is kept; undefined where every norm is. */
  readonly normLimit: number | undefined;
  /**
   * What is still to be left out of rows as they are read; undefined where all such rows were
   * found.
   */
  readonly onRead: ValueRule | undefined;
}

/**
 * Data of so many bytes is looked through for zero rows; of larger data a sample decides whether it
 * is.
 */
const LOOKED_THROUGH = 256 * 2 ** 20;

/**
 * Chooses the rows. Zero rows are looked for in the whole of data up to 256 MiB and where the
 * sample of the statistics has some; elsewhere they are left to `onRead`. With `maxNorm` all rows
 * are read once. Rows that can be read only once are left to `onRead`. Throws UsageError for
 * positions that the data does not have, SaettaError where every sampled row is left out.
 */
export async function chooseRows(
  source: Source,
  options: RowOptions,
  appended: readonly Appended[] = [],
): Promise<Choice> {
  const { excludeTokens, excludePositions = "none", maxNorm = 0, zeroRows = "keep", holdout, seed, only } = options;
  const masked = await maskedRows(source);
  const untrained = await excludedRows(source, excludeTokens);
  await excludedPositions(source, excludePositions, masked, untrained);
  for (let row = 0; masked.size > 0 && row < source.rows; row++) if (masked.has(row)) untrained.add(row);
  const excluded = untrained.size - masked.size;

  const findsZeros = zeroRows === "skip";
  const once = source.stream === "once";
  // How rows are found must not change with what was appended, or the rows before would change
  // their order.
  const first = { ...source, rows: appended[0]?.rows ?? source.rows };
  const small = first.rows * bytesPerRow(source) <= LOOKED_THROUGH;
  const sampled = (findsZeros && !once && !small) || (maxNorm > 0 && options.normLimit === undefined);
  const sample = sampled ? await normsOfSample(first, untrained, options) : undefined;
  const normLimit = maxNorm > 0 ? (options.normLimit ?? maxNorm * sample!.median) : undefined;
  const rule = { zeros: findsZeros, most: normLimit ?? Number.POSITIVE_INFINITY };
  const all = [{ first: 0, count: source.rows }];
  const whole =
    !once && ((findsZeros && (small || sample!.zeros > 0)) || (normLimit !== undefined && only === undefined));
  const nothing = { zeros: new RowSet(source.rows), above: new RowSet(source.rows) };
  const everywhere = only === undefined ? rule : { ...rule, most: Number.POSITIVE_INFINITY };
  const found = whole ? await scanRows(source, all, untrained, everywhere) : nothing;
  addAll(found.zeros, untrained);
  // Norms have no say in which sequences are held out, so that the hold-out can be found without
  // them.
  const { heldOut } = source;
  const sequences = heldOut === undefined ? heldOutOf(source, holdout, seed, appended, untrained) : rangesOf(heldOut);
  let above = found.above;
  if (only === "holdout" && !once) {
    const held = await scanRows(source, sequences, untrained, rule);
    addAll(held.zeros, found.zeros);
    addAll(held.zeros, untrained);
    above = held.above;
  }
  addAll(above, untrained);
  const ranges = without(sequences, untrained);
  for (const { first, count } of sequences) for (let row = first; row < first + count; row++) untrained.add(row);
  addAll(above, found.zeros);
  return {
    untrained,
    holdout: ranges,
    excluded,
    masked,
    leftOut: found.zeros,
    zeros: found.zeros.size - above.size,
    above: above.size,
    normLimit,
    onRead: !whole && only === undefined && (findsZeros || normLimit !== undefined) ? rule : undefined,
  };
}

function rangesOf(range: Range): readonly Range[] {
  return range.count === 0 ? [] : [range];
}

/** The source with what the choice left to be found when rows are read. */
export function leavingOut(source: Source, { onRead }: Choice): Source {
  if (onRead === undefined) return source;
  return { ...source, leftOut: (raw, count) => rowsLeftOut(onRead, raw, source, count) };
}

function addAll(rows: RowSet, to: RowSet): void {
  for (let row = 0; rows.size > 0 && row < rows.rows; row++) if (rows.has(row)) to.add(row);
}

/**
 * Of a sample of the rows that are not in `skip`: how many are zero, and, for `maxNorm`, the median
 * norm of those that are finite and not zero.
 */
async function normsOfSample(
  source: Source,
  skip: RowSet,
  { seed, maxNorm = 0, statisticsRows = STATISTICS_ROWS }: RowOptions,
): Promise<{ readonly zeros: number; readonly median: number }> {
  const found: number[] = [];
  let zeros = 0;
  for (const { first, count } of samplePlaces(
    source,
    statisticsRows,
    source.rows - skip.countIn(0, source.rows) <= statisticsRows,
    seed,
  )) {
    const raw = new Uint8Array(count * bytesPerRow(source));
    await source.read(first, count, raw);
    const zero = new Set(zeroRowsIn(raw, source, count));
    for (const i of zero) if (!skip.has(first + i)) zeros++;
    if (maxNorm === 0) continue;
    for (const [i, norm] of rowNorms(raw, source, count).entries())
      if (!skip.has(first + i) && !zero.has(i) && Number.isFinite(norm)) found.push(norm);
  }
  const median = Float64Array.from(found).sort()[Math.floor(found.length / 2)];
  if (median === undefined && maxNorm > 0) {
    throw new SaettaError("no sampled row is finite and not zero, so there is no median norm for --max-norm", {
      where: source.paths.join(", "),
      mend: "look at the file with saetta inspect",
    });
  }
  return { zeros, median: median ?? 0 };
}

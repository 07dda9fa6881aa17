/**
 * What can be seen of activations before training: norms, how far the mean is from the rest,
 * outlier dimensions, duplicates, rows that are not finite, zero rows, start tokens, sinks.
 */

import { nonFiniteRows } from "../util/float16.ts";
import { fmix32 } from "../util/rng.ts";
import { rowsToFloat32 } from "./convert.ts";
import { zeroRows } from "./left-out.ts";
import { contextStart, maskedRows, type RowSet } from "./mask.ts";
import { STATISTICS_ROWS, samplePlaces } from "./sample-places.ts";
import { type ElementScales, elementScales } from "./scales.ts";
import { bytesPerRow, rowWidth, type Source } from "./source.ts";

export interface Norms {
  readonly mean: number;
  readonly median: number;
  /** 99 of 100 rows have no larger one. */
  readonly p99: number;
  readonly max: number;
}

/**
 * A dimension whose share of the variance is more than OUTLIER_SHARE times an even one, or whose
 * mean is more than OUTLIER_MEAN times its standard deviation away from 0.
 */
export interface Outlier {
  readonly dimension: number;
  /** Of the sum of the variances of all dimensions. */
  readonly varianceShare: number;
  /** |mean| over standard deviation. */
  readonly meanOverStd: number;
}

export const OUTLIER_SHARE = 20;
export const OUTLIER_MEAN = 10;

/** Rows whose norm is above so many times the median norm. */
export const LARGE = 10;

/** A position whose median norm is above so many times that of all rows is a sink. */
const SINK = 5;

export interface LargeRows {
  readonly rows: number;
  /** Of the sum of squared distances of all rows from the mean row. */
  readonly varianceShare: number;
}

/** A position of every context with norms far from those of the other rows. */
export interface Sink {
  readonly position: number;
  /** Its median norm over that of all rows. */
  readonly times: number;
}

/** What a sample of rows says of all. */
export interface Preflight {
  /** Rows that the numbers are of: finite, and none of a start token. */
  readonly rows: number;
  readonly norms: Norms;
  /** Norm of the mean row over the root mean square distance of the rows from it. */
  readonly meanToSpread: number;
  readonly outliers: readonly Outlier[];
  /** Share of the rows that equal another one before them, element by element. */
  readonly duplicates: number;
  /** Rows above LARGE times the median norm. */
  readonly large: LargeRows;
  /** By rising position. */
  readonly sinks: readonly Sink[];
  /** undefined where the elements have about one scale. */
  readonly scales: ElementScales | undefined;
}

/**
 * The numbers of a sample [rows, d] of finite rows. One pass over it for the norms and hashes, one
 * for the variances. `positions` [rows]: of each row in its context, where that is known.
 */
export function preflight(sample: Float32Array, d: number, positions?: ArrayLike<number>): Preflight {
  const rows = sample.length / d;
  const bits = new Int32Array(sample.buffer, sample.byteOffset, sample.length);
  const norms = new Float64Array(rows);
  const mean = new Float64Array(d);
  const seen = new Map<number, number[]>();
  let duplicates = 0;
  for (let row = 0; row < rows; row++) {
    let square = 0;
    let hash = 0;
    for (let i = 0, at = row * d; i < d; i++, at++) {
      const value = sample[at]!;
      square += value * value;
      mean[i]! += value;
      hash = Math.imul(hash ^ bits[at]!, 0x0100_0193);
    }
    norms[row] = Math.sqrt(square);
    if (isRepeated(bits, d, row, fmix32(hash), seen)) duplicates++;
  }
  for (let i = 0; i < d; i++) mean[i]! /= rows;
  const variance = new Float64Array(d);
  const summary = normsOf(norms);
  const { median } = summary;
  const large = { rows: 0, spread: 0 };
  for (let row = 0; row < rows; row++) {
    let square = 0;
    for (let i = 0, at = row * d; i < d; i++, at++) {
      const off = sample[at]! - mean[i]!;
      variance[i]! += off * off;
      square += off * off;
    }
    if (!(norms[row]! > LARGE * median)) continue;
    large.rows++;
    large.spread += square;
  }
  for (let i = 0; i < d; i++) variance[i]! /= rows;
  const spread = variance.reduce((sum, each) => sum + each, 0);
  const outliers: Outlier[] = [];
  for (let i = 0; i < d; i++) {
    const varianceShare = spread > 0 ? variance[i]! / spread : 0;
    const meanOverStd = mean[i] === 0 ? 0 : Math.abs(mean[i]!) / Math.sqrt(variance[i]!);
    if (varianceShare > OUTLIER_SHARE / d || meanOverStd > OUTLIER_MEAN)
      outliers.push({ dimension: i, varianceShare, meanOverStd });
  }
  const middle = Math.sqrt(mean.reduce((sum, value) => sum + value * value, 0));
  return {
    rows,
    norms: summary,
    meanToSpread: middle === 0 ? 0 : middle / Math.sqrt(spread),
    outliers,
    duplicates: rows === 0 ? 0 : duplicates / rows,
    large: { rows: large.rows, varianceShare: spread > 0 ? large.spread / (rows * spread) : 0 },
    sinks: positions === undefined ? [] : sinksOf(norms, positions, median),
    scales: elementScales(variance),
  };
}

/** Positions that are sinks. One row says nothing of its position. */
function sinksOf(norms: Float64Array, positions: ArrayLike<number>, median: number): Sink[] {
  const byPosition = new Map<number, number[]>();
  for (const [row, norm] of norms.entries()) {
    const like = byPosition.get(positions[row]!);
    if (like === undefined) byPosition.set(positions[row]!, [norm]);
    else like.push(norm);
  }
  return [...byPosition]
    .filter(([, all]) => all.length > 1)
    .map(([position, all]) => ({ position, times: normsOf(Float64Array.from(all)).median / median }))
    .filter(({ times }) => times > SINK)
    .sort((a, b) => a.position - b.position);
}

/**
 * The position of a row in its context, as `--exclude-positions` counts it; undefined where that is
 * not known.
 */
export function positionsIn({ sequence }: Source, masked: RowSet): ((row: number) => number) | undefined {
  if (sequence === undefined) return undefined;
  return (row) => row - contextStart(row - (row % sequence), sequence, masked);
}

/** Whether the row's bits were seen before; remembers it by its hash if not. */
function isRepeated(bits: Int32Array, d: number, row: number, hash: number, seen: Map<number, number[]>): boolean {
  const like = seen.get(hash);
  if (like === undefined) {
    seen.set(hash, [row]);
    return false;
  }
  const same = like.some((other) => {
    for (let i = 0; i < d; i++) if (bits[row * d + i] !== bits[other * d + i]) return false;
    return true;
  });
  if (!same) like.push(row);
  return same;
}

function normsOf(norms: Float64Array): Norms {
  const sorted = norms.slice().sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return {
    mean: norms.reduce((sum, norm) => sum + norm, 0) / Math.max(1, norms.length),
    median: at(0.5),
    p99: at(0.99),
    max: at(1),
  };
}

/** What a run says of the sample that it starts from. */
export interface RunPreflight extends Preflight {
  /** Whether the numbers are of all rows that are trained on, not of a sample. */
  readonly everything: boolean;
  /** Rows that were passed over because they hold NaN or Inf. */
  readonly nonFinite: number;
  /** Norms of the rows that were passed over for their token; undefined where there were none. */
  readonly excluded: Norms | undefined;
}

/**
 * Counts what a sample passes over; `isHeldOut` tells rows of the hold-out from those that are
 * excluded for their token.
 */
export class PassedOver {
  readonly #norms: number[] = [];
  readonly #isHeldOut: (row: number) => boolean;
  nonFinite = 0;

  constructor(isHeldOut: (row: number) => boolean) {
    this.#isHeldOut = isHeldOut;
  }

  readonly note = (row: number, values: Float32Array): void => {
    if (this.#isHeldOut(row)) return;
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    if (Number.isFinite(norm)) this.#norms.push(norm);
    else this.nonFinite++;
  };

  get excluded(): Norms | undefined {
    return this.#norms.length === 0 ? undefined : normsOf(Float64Array.from(this.#norms));
  }
}

/** What `saetta inspect` says of a source. */
export interface SourcePreflight extends Preflight {
  /** Rows looked at, without those that the source masks. */
  readonly sampled: number;
  /** Whether those are all rows. */
  readonly everything: boolean;
  /**
   * Of them, rows that are all zero. The other numbers are of the rest, as `train` leaves them out.
   */
  readonly zeroRows: number;
  /** Of them, rows that hold NaN or Inf. */
  readonly nonFinite: number;
  /** The first of those, as `locate` names it. */
  readonly firstNonFinite: string | undefined;
  /**
   * Rows of the sample with the token that starts every document; undefined where the file does not
   * name it.
   */
  readonly startTokens: { readonly rows: number; readonly norms: Norms } | undefined;
}

/** Memory that the rows looked at may take, and below which all rows are looked at. */
const MOST_BYTES = 2 ** 28;
const ALL_BYTES = 2 ** 26;

/**
 * Looks at a sample of rows as a run does (`samplePlaces`); at all rows where they are no more than
 * `wanted`, default: what a run samples, or what fits 64 MiB.
 */
export async function preflightOf(source: Source, seed = 0, wanted?: number): Promise<SourcePreflight> {
  const { dIn, dtype, rows, tokens, origin } = source;
  const width = rowWidth(source);
  const fits = wanted ?? Math.max(STATISTICS_ROWS, Math.floor(ALL_BYTES / (4 * dIn)));
  const everything = rows <= Math.min(fits, Math.floor(MOST_BYTES / (4 * dIn)));
  const most = Math.max(16, Math.min(wanted ?? STATISTICS_ROWS, Math.floor(MOST_BYTES / (4 * dIn))));
  const places = [...samplePlaces(source, most, everything, seed)];
  const room = places.reduce((sum, { count }) => sum + count, 0);
  const sample = new Float32Array(room * dIn);
  const positions = new Float64Array(room);
  const masked = await maskedRows(source);
  const positionOf = positionsIn(source, masked);
  const starts: number[] = [];
  let [kept, sampled, nonFinite, zeros] = [0, 0, 0, 0];
  let firstBad: string | undefined;
  for (const { first, count } of places) {
    const bytes = new Uint8Array(count * bytesPerRow(source));
    await source.read(first, count, bytes);
    const bad = new Set(nonFiniteRows(bytes, dtype, width, 0, count));
    const zero = new Set(zeroRows(bytes, source, count));
    const ids = tokens === undefined || origin.startToken === undefined ? undefined : await tokens(first, count);
    const values = rowsToFloat32(bytes, dtype, count * width);
    for (let i = 0; i < count; i++) {
      if (masked.has(first + i)) continue;
      const row = values.subarray(i * width, i * width + dIn);
      const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
      sampled++;
      // Also what is beyond f32.
      if (bad.has(i) || !Number.isFinite(norm)) {
        nonFinite++;
        firstBad ??= source.locate(first + i);
      } else if (zero.has(i)) {
        zeros++;
      } else if (ids?.[i] !== undefined && ids[i] === origin.startToken) {
        starts.push(norm);
      } else {
        sample.set(row, kept * dIn);
        positions[kept++] = positionOf?.(first + i) ?? 0;
      }
    }
  }
  return {
    ...preflight(sample.subarray(0, kept * dIn), dIn, positionOf && positions.subarray(0, kept)),
    sampled,
    everything,
    zeroRows: zeros,
    nonFinite,
    firstNonFinite: firstBad,
    startTokens:
      tokens === undefined || origin.startToken === undefined
        ? undefined
        : { rows: starts.length, norms: normsOf(Float64Array.from(starts)) },
  };
}

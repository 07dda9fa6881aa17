/** What can be seen of activations before training: norms, how far the mean is from the rest, outlier dimensions, duplicates, rows that are not finite, start tokens. */

import { BYTES } from "../engine/engine.ts";
import { nonFiniteRows } from "../util/float16.ts";
import { fmix32, PURPOSE, Rng } from "../util/rng.ts";
import { rowsToFloat32 } from "./convert.ts";
import type { Source } from "./source.ts";

export interface Norms {
  readonly mean: number;
  readonly median: number;
  /** 99 of 100 rows have no larger one. */
  readonly p99: number;
  readonly max: number;
}

/** A dimension whose share of the variance is more than OUTLIER_SHARE times an even one, or whose mean is more than OUTLIER_MEAN times its standard deviation away from 0. */
export interface Outlier {
  readonly dimension: number;
  /** Of the sum of the variances of all dimensions. */
  readonly varianceShare: number;
  /** |mean| over standard deviation. */
  readonly meanOverStd: number;
}

export const OUTLIER_SHARE = 20;
export const OUTLIER_MEAN = 10;

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
}

/** The numbers of a sample [rows, d] of finite rows. One pass over it for the norms and hashes, one for the variances. */
export function preflight(sample: Float32Array, d: number): Preflight {
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
  for (let row = 0; row < rows; row++) {
    for (let i = 0, at = row * d; i < d; i++, at++) {
      const off = sample[at]! - mean[i]!;
      variance[i]! += off * off;
    }
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
    norms: normsOf(norms),
    meanToSpread: middle === 0 ? 0 : middle / Math.sqrt(spread),
    outliers,
    duplicates: rows === 0 ? 0 : duplicates / rows,
  };
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
  /** Rows that were passed over because they hold NaN or Inf. */
  readonly nonFinite: number;
  /** Norms of the rows that were passed over for their token; undefined where there were none. */
  readonly excluded: Norms | undefined;
}

/** Counts what a sample passes over; `isHeldOut` tells rows of the hold-out from those that are excluded for their token. */
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
  /** Of them, rows that hold NaN or Inf. */
  readonly nonFinite: number;
  /** The first of those, as `locate` names it. */
  readonly firstNonFinite: string | undefined;
  /** Rows of the sample with the token that starts every document; undefined where the file does not name it. */
  readonly startTokens: { readonly rows: number; readonly norms: Norms } | undefined;
}

/** Rows read together, and how many are looked at: as many as a run samples, where they do not take more memory than this. */
const RUN = 16;
const SAMPLED = 32_768;
const MOST_BYTES = 2 ** 28;

/** Looks at runs of 16 rows at equal distances over the whole source, the first place drawn by seed; at all rows where there are no more than `wanted`. */
export async function preflightOf(source: Source, seed = 0, wanted = SAMPLED): Promise<SourcePreflight> {
  const { dIn, dtype, rows, tokens, origin } = source;
  const most = Math.max(RUN, Math.min(wanted, Math.floor(MOST_BYTES / (4 * dIn))));
  const everything = rows <= most;
  const length = everything ? Math.min(rows, 4096) : RUN;
  const runs = everything ? Math.ceil(rows / length) : Math.floor(most / RUN);
  const stride = everything ? length : rows / runs;
  const offset = everything ? 0 : new Rng(seed, PURPOSE.sample).uniform() * (stride - RUN);
  const bytes = new Uint8Array(length * dIn * BYTES[dtype]);
  const sample = new Float32Array(Math.min(rows, runs * length) * dIn);
  const starts: number[] = [];
  let [kept, sampled, nonFinite] = [0, 0, 0];
  let firstBad: string | undefined;
  for (let run = 0; run < runs; run++) {
    const first = Math.floor(run * stride + offset);
    const count = Math.min(length, rows - first);
    await source.read(first, count, bytes);
    const bad = new Set(nonFiniteRows(bytes, dtype, dIn, 0, count));
    const ids = tokens === undefined || origin.startToken === undefined ? undefined : await tokens(first, count);
    const values = rowsToFloat32(bytes, dtype, count * dIn);
    const there = await source.mask?.(first, count);
    for (let i = 0; i < count; i++) {
      if (there?.[i] === 0) continue;
      const row = values.subarray(i * dIn, (i + 1) * dIn);
      const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
      sampled++;
      // Also what is beyond f32.
      if (bad.has(i) || !Number.isFinite(norm)) {
        nonFinite++;
        firstBad ??= source.locate(first + i);
      } else if (ids?.[i] !== undefined && ids[i] === origin.startToken) {
        starts.push(norm);
      } else {
        sample.set(row, kept * dIn);
        kept++;
      }
    }
  }
  return {
    ...preflight(sample.subarray(0, kept * dIn), dIn),
    sampled,
    nonFinite,
    firstNonFinite: firstBad,
    startTokens:
      tokens === undefined || origin.startToken === undefined
        ? undefined
        : { rows: starts.length, norms: normsOf(Float64Array.from(starts)) },
  };
}

/**
 * What a run needs to know of its data before the first step: the geometric median and the variance
 * of a sample of rows.
 */

import { type Normalization, normalizeRow } from "../sae/math.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { firstNonFinite, nonFiniteRows } from "../util/float16.ts";
import { type NonFinite, notFinite } from "./batches.ts";
import { rowsToFloat32 } from "./convert.ts";
import type { RowSet } from "./mask.ts";
import { samplePlaces } from "./sample-places.ts";
import { bytesPerRow, rowWidth, type Source } from "./source.ts";

export interface SampleOptions {
  /** Rows that are not in the sample. */
  readonly excluded: RowSet;
  /** The most rows that the sample has. */
  readonly wanted: number;
  readonly seed: number;
  /** Default "stop". */
  readonly nonFinite?: NonFinite;
  /** Called with each input [dIn] that is passed over because its row is excluded or not finite. */
  readonly passedOver?: (row: number, values: Float32Array) => void;
}

export interface Sample {
  /** The rows [rows, dIn], or pairs [rows, dIn + dOut]. */
  readonly values: Float32Array;
  /** The number of each row in the source. */
  readonly numbers: Float64Array;
  /** Whether it has every row of the source that is not passed over. */
  readonly everything: boolean;
}

/**
 * A sample of at most `wanted` rows, from places spread over the whole file (`samplePlaces`); all
 * rows when the file has no more. Excluded rows are passed over, and so are those that are not
 * finite, unless `nonFinite` is "stop", and those that the source leaves out. Throws when a row
 * stops it, and when none is left.
 */
export async function strideSample(
  source: Source,
  { excluded, wanted, seed, nonFinite = "stop", passedOver = () => undefined }: SampleOptions,
): Promise<Sample> {
  const { dIn, dtype } = source;
  const width = rowWidth(source);
  const rows = source.stream === "once" ? Math.min(source.rows, wanted) : source.rows; // keepingHead has the first ones
  const everything = rows - excluded.size <= wanted;
  const sample = new Float32Array(Math.min(wanted, rows) * width);
  const numbers = new Float64Array(Math.min(wanted, rows));
  let kept = 0;
  for (const { first, count } of samplePlaces(source, wanted, everything, seed)) {
    const bytes = new Uint8Array(count * bytesPerRow(source));
    await source.read(first, count, bytes);
    const leftOut = new Set(source.leftOut?.(bytes, count));
    const values = rowsToFloat32(bytes, dtype, count * width);
    // Also what is beyond f32.
    const bad = new Set(nonFiniteRows(bytesOf(values), "f32", width, 0, count));
    for (let i = 0; i < count && kept < wanted; i++) {
      if (leftOut.has(i)) continue;
      const row = values.subarray(i * width, (i + 1) * width);
      if (excluded.has(first + i)) {
        passedOver(first + i, row.subarray(0, dIn));
        continue;
      }
      if (bad.has(i)) {
        if (nonFinite === "stop" && firstNonFinite(bytes, dtype, i * width, width) >= 0)
          throw notFinite(source, first + i);
        passedOver(first + i, row.subarray(0, dIn));
        continue;
      }
      sample.set(row, kept * width);
      numbers[kept++] = first + i;
    }
  }
  if (kept === 0) {
    throw new SaettaError("no row of the sample for the statistics is finite", {
      where: source.paths.join(", "),
      mend: "look at the file with saetta inspect",
    });
  }
  return {
    values: sample.subarray(0, kept * width),
    numbers: numbers.subarray(0, kept),
    everything: everything && rows === source.rows,
  };
}

/**
 * The normalisation of a run. The factor of "scale" brings the mean norm of the sampled rows [rows,
 * d] to sqrt(d). Throws when that is 0. `noun`: what errors call the rows.
 */
export function normalizationFor(
  kind: Normalization["kind"],
  sample: Float32Array,
  d: number,
  noun = "rows",
): Normalization {
  if (kind !== "scale") return { kind, factor: 1 };
  const rows = sample.length / d;
  const origin = new Float64Array(d);
  let norms = 0;
  for (let start = 0; start < sample.length; start += d) norms += distanceTo(sample, start, origin);
  const factor = (Math.sqrt(d) * rows) / norms;
  if (Number.isFinite(factor)) return { kind, factor };
  throw new SaettaError(`all ${rows} sampled ${noun} are 0, so they have no scale`, {
    mend: "look at the file with saetta inspect",
  });
}

/** -> sample [rows, d]: every row normalised. */
export function normalizeRows(sample: Float32Array, d: number, by: Normalization): void {
  for (let start = 0; start < sample.length; start += d) normalizeRow(sample.subarray(start, start + d), by);
}

/**
 * Mean over the columns of the biased (1/N) variance, by Welford's recurrence in float64. mse_scale
 * is its inverse. Throws when it is 0: rows that are all the same cannot be learned from.
 */
export function meanVariance(sample: Float32Array, d: number, noun = "rows"): number {
  const mean = new Float64Array(d);
  const squares = new Float64Array(d);
  const rows = sample.length / d;
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < d; i++) {
      const value = sample[row * d + i]!;
      const from = value - mean[i]!;
      mean[i]! += from / (row + 1);
      squares[i]! += from * (value - mean[i]!);
    }
  }
  const variance = squares.reduce((sum, square) => sum + square, 0) / (rows * d);
  if (!(variance > 0)) {
    throw new SaettaError(`the variance of ${rows} sampled ${noun} is 0: all ${noun} are the same`, {
      mend: "look at the file with saetta inspect",
    });
  }
  return variance;
}

export interface Median {
  readonly median: Float64Array;
  readonly iterations: number;
  /** False when the iterations ended before the point stood still. */
  readonly converged: boolean;
}

/**
 * The point [d] with the least sum of distances to the rows, by Weiszfeld's iteration from the mean
 * (each step is the mean of the rows weighted by one over their distance), with the step of Vardi
 * and Zhang (2000) where rows lie on the point itself. Stops when a step moves the point by less
 * than `tolerance` of the mean distance.
 */
export function geometricMedian(
  sample: Float32Array,
  d: number,
  { tolerance = 1e-6, maxIterations = 200 } = {},
): Median {
  const rows = sample.length / d;
  let point = columnMeans(sample, d);
  const all = Array.from({ length: rows }, (_, row) => row * d);
  // A row nearer than this is on the point: its weight, one over its distance, would hold the point
  // wherever it is.
  const near = (tolerance * all.reduce((sum, start) => sum + distanceTo(sample, start, point), 0)) / rows;
  for (let iteration = 1; iteration <= maxIterations; iteration++) {
    const pull = new Float64Array(d); // sum of unit vectors from the point to the rows
    let weights = 0;
    let distances = 0;
    let onPoint = 0;
    for (const start of all) {
      const distance = distanceTo(sample, start, point);
      if (distance <= near) {
        onPoint++;
        continue;
      }
      const weight = 1 / distance;
      distances += distance;
      weights += weight;
      for (let i = 0; i < d; i++) pull[i]! += weight * (sample[start + i]! - point[i]!);
    }
    const strength = Math.sqrt(pull.reduce((sum, value) => sum + value * value, 0));
    // Rows on the point hold it with a force of one each: it leaves only when the others pull more
    // strongly.
    const step = strength <= onPoint ? 0 : (1 - onPoint / strength) / weights;
    point = point.map((value, i) => value + step * pull[i]!);
    if (step * strength <= (tolerance * distances) / rows)
      return { median: point, iterations: iteration, converged: true };
  }
  return { median: point, iterations: maxIterations, converged: false };
}

/** From the row that begins at `start` to the point [d]. */
function distanceTo(sample: Float32Array, start: number, point: Float64Array): number {
  let square = 0;
  for (let i = 0; i < point.length; i++) {
    const off = sample[start + i]! - point[i]!;
    square += off * off;
  }
  return Math.sqrt(square);
}

/** The mean row [d] of rows [rows, d]. */
export function columnMeans(sample: Float32Array, d: number): Float64Array {
  const mean = new Float64Array(d);
  for (let at = 0; at < sample.length; at++) mean[at % d]! += sample[at]!;
  const rows = sample.length / d;
  return mean.map((sum) => sum / rows);
}

/**
 * What a transcoder starts from, after sparsify (W_dec = 0, b_dec = mean(y), b_enc = -W_enc
 * mean(x)): the normalisation of inputs and of targets, their means, and the scale of the loss.
 */

import type { Normalization } from "../sae/math.ts";
import { bytesOf, float32Of } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";
import { splitPairs } from "./pair.ts";
import { rowWidth } from "./source.ts";
import { columnMeans, meanVariance, normalizationFor, normalizeRows } from "./statistics.ts";

/** Of inputs (x) and of targets (y). */
export interface PairNormalization {
  readonly x: Normalization;
  readonly y: Normalization;
}

export interface PairStatistics {
  /** Of the normalised inputs [dIn] and targets [dOut]. */
  readonly meanX: Float64Array;
  readonly meanY: Float64Array;
  /** Mean over the columns of the biased variance of the normalised targets. */
  readonly varianceY: number;
}

interface Widths {
  readonly dIn: number;
  readonly dOut: number;
}

/** The inputs [rows, dIn] and targets [rows, dOut] of a sample of pairs, copied. */
export function splitSample(
  sample: Float32Array,
  { dIn, dOut }: Widths,
): { readonly x: Float32Array; readonly y: Float32Array } {
  const { x, y } = splitPairs(bytesOf(sample), { dIn, dOut, dtype: "f32" }, sample.length / rowWidth({ dIn, dOut }));
  return { x: float32Of(x), y: float32Of(y) };
}

/**
 * The normalisation of a run on a sample of pairs. "scale" brings the mean norm of x to sqrt(dIn)
 * and, with its own factor, that of y to sqrt(dOut). Throws UsageError for "unit" and "layer_norm",
 * SaettaError where one of the norms is 0.
 */
export function pairNormalizationFor(
  kind: Normalization["kind"],
  sample: Float32Array,
  widths: Widths,
): PairNormalization {
  if (kind === "unit" || kind === "layer_norm") {
    throw new UsageError(`--normalize ${kind} and --target exclude each other`, {
      mend: "give --normalize scale or none",
    });
  }
  const { x, y } = splitSample(sample, widths);
  return { x: normalizationFor(kind, x, widths.dIn), y: normalizationFor(kind, y, widths.dOut, "targets") };
}

/** -> sample [rows, dIn + dOut]: inputs and targets normalised; their statistics. */
export function normalizePairs(sample: Float32Array, widths: Widths, by: PairNormalization): PairStatistics {
  const { dIn, dOut } = widths;
  const { x, y } = splitSample(sample, widths);
  normalizeRows(x, dIn, by.x);
  normalizeRows(y, dOut, by.y);
  for (let row = 0, at = 0; at < sample.length; row++, at += dIn + dOut) {
    sample.set(x.subarray(row * dIn, (row + 1) * dIn), at);
    sample.set(y.subarray(row * dOut, (row + 1) * dOut), at + dIn);
  }
  return {
    meanX: columnMeans(x, dIn),
    meanY: columnMeans(y, dOut),
    varianceY: meanVariance(y, dOut, "targets"),
  };
}

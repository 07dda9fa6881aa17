/** What each row was normalised by, where rows are normalised by themselves. */

import { rowsToFloat32 } from "../data/convert.ts";
import type { RowDType } from "../data/source.ts";
import { LAYER_NORM_EPS, type Normalization, rowStatistics } from "../sae/math.ts";
import { float64Of } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";
import type { RowStatistics, SparseCodes } from "./sparse-codes.ts";

export interface StatisticsInput {
  readonly raw: Uint8Array;
  readonly dtype: RowDType;
  readonly count: number;
  readonly d: number;
  readonly normalization: Normalization;
  /** The way back multiplies by the standard deviation alone. */
  readonly withoutEps: boolean;
}

/** undefined where nothing is done to rows. */
export function statisticsOf(input: StatisticsInput): RowStatistics | undefined {
  const { raw, dtype, count, d, normalization, withoutEps } = input;
  if (normalization.kind === "none") return undefined;
  const values = dtype === "f64" ? float64Of(raw) : rowsToFloat32(raw, dtype, count * d);
  const statistics = { mean: new Float64Array(count), size: new Float64Array(count) };
  for (let row = 0; row < count; row++) {
    const { mean, size } = rowStatistics(values.subarray(row * d, (row + 1) * d), normalization);
    statistics.mean[row] = mean;
    // What the way back multiplies by; a constant row stays at 0.
    statistics.size[row] = withoutEps ? Math.max(0, size - LAYER_NORM_EPS) : size;
  }
  return statistics;
}

/** Those in the codes. Throws UsageError where rows are normalised and the codes have none. */
export function statisticsIn(
  { rows: given }: SparseCodes,
  rows: number,
  { kind }: Normalization,
): RowStatistics | undefined {
  if (kind === "none") return undefined;
  if (given?.mean.length === rows && given.size.length === rows) return given;
  throw new UsageError(
    `the autoencoder normalises each row (${kind}), and the codes do not say the mean and size of ${rows} rows`,
    {
      mend: "decode the codes that encode returned, or give means of 0 and sizes of 1 for the space of normalised rows",
    },
  );
}

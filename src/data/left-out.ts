/**
 * Rows that are left out for their values: all-zero rows, which were allocated and never written,
 * and rows beyond a largest norm. Of pairs the input decides.
 */

import { BYTES, float64Of } from "../util/bytes.ts";
import { rowsToFloat32 } from "./convert.ts";
import type { Range } from "./holdout.ts";
import { RowSet } from "./mask.ts";
import { bytesPerRow, type RowFormat, rowWidth, type Source } from "./source.ts";

export interface ValueRule {
  /** Whether all-zero rows are left out. */
  readonly zeros: boolean;
  /** The largest norm of a row that is kept; Infinity: every norm is. */
  readonly most: number;
}

/** Euclidean norms of `count` raw rows; NaN or Infinity for rows that are not finite. */
export function rowNorms(raw: Uint8Array, format: RowFormat, count: number): Float64Array {
  const { dIn, dtype } = format;
  const width = rowWidth(format);
  const size = count * width;
  const values = dtype === "f64" ? float64Of(raw.subarray(0, size * BYTES.f64)) : rowsToFloat32(raw, dtype, size);
  const norms = new Float64Array(count);
  for (let row = 0; row < count; row++) {
    let square = 0;
    for (let at = row * width; at < row * width + dIn; at++) square += values[at]! * values[at]!;
    norms[row] = Math.sqrt(square);
  }
  return norms;
}

/**
 * Which of `count` raw rows the rule leaves out, in order. Rows that are not finite are not
 * among them: `--non-finite` decides on those.
 */
export function rowsLeftOut(rule: ValueRule, raw: Uint8Array, format: RowFormat, count: number): number[] {
  const { zeros, above } = sorted(rule, raw, format, count);
  return above.length === 0 ? zeros : [...zeros, ...above].sort((a, b) => a - b);
}

function sorted(
  { zeros: leaveZeros, most }: ValueRule,
  raw: Uint8Array,
  format: RowFormat,
  count: number,
): { readonly zeros: number[]; readonly above: number[] } {
  const zeros = leaveZeros ? zeroRows(raw, format, count) : [];
  if (most === Number.POSITIVE_INFINITY) return { zeros, above: [] };
  const above: number[] = [];
  for (const [row, norm] of rowNorms(raw, format, count).entries())
    if (norm > most && Number.isFinite(norm)) above.push(row);
  return { zeros, above };
}

/**
 * Which of `count` raw rows are all zero, in order. Looks no further into a row than to its first
 * other element.
 */
export function zeroRows(raw: Uint8Array, format: RowFormat, count: number): number[] {
  const { dIn, dtype } = format;
  const [width, bytes] = [rowWidth(format), BYTES[dtype]];
  const part = raw.subarray(0, count * width * bytes);
  const { buffer, byteOffset } = part.byteOffset % bytes === 0 ? part : part.slice();
  const found: number[] = [];
  const collect = (isZero: (at: number) => boolean): number[] => {
    for (let row = 0; row < count; row++) {
      const end = row * width + dIn;
      let at = row * width;
      while (at < end && isZero(at)) at++;
      if (at === end) found.push(row);
    }
    return found;
  };
  if (bytes === 2) {
    const bits = new Uint16Array(buffer, byteOffset, count * width);
    return collect((at) => (bits[at]! & 0x7fff) === 0); // -0 is 0
  }
  const values =
    dtype === "f64"
      ? new Float64Array(buffer, byteOffset, count * width)
      : new Float32Array(buffer, byteOffset, count * width);
  return collect((at) => values[at] === 0);
}

const BYTES_PER_READ = 4 * 2 ** 20;

/**
 * Reads the rows of the ranges and finds those that the rule leaves out; rows of `skip` are not
 * looked at.
 */
export async function scanRows(
  source: Source,
  ranges: readonly Range[],
  skip: RowSet,
  rule: ValueRule,
): Promise<{ readonly zeros: RowSet; readonly above: RowSet }> {
  const { rows, grain } = source;
  const rowBytes = bytesPerRow(source);
  const piece = grain * Math.max(1, Math.floor(BYTES_PER_READ / (rowBytes * grain)));
  const found = { zeros: new RowSet(rows), above: new RowSet(rows) };
  const raw = new Uint8Array(Math.min(piece, rows) * rowBytes);
  for (const range of ranges) {
    const end = range.first + range.count;
    for (let first = range.first; first < end; ) {
      const count = Math.min(piece - (first % piece), end - first); // pieces end where the file's chunks do
      await source.read(first, count, raw);
      const { zeros, above } = sorted(rule, raw, source, count);
      for (const row of zeros) if (!skip.has(first + row)) found.zeros.add(first + row);
      for (const row of above) if (!skip.has(first + row)) found.above.add(first + row);
      first += count;
    }
  }
  return found;
}

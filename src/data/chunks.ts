/** Chosen rows of a source, in chunks for evaluation. */

import { SaettaError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import type { NonFinite } from "./batches.ts";
import { countRows, type Range } from "./holdout.ts";
import { splitPairs } from "./pair.ts";
import { bytesPerRow, rowWidth, type Source } from "./source.ts";

/** `rows` rows as little-endian elements, and the number of each in the source. */
export interface Chunk {
  readonly rows: number;
  /** The inputs [rows, dIn]. */
  readonly raw: Uint8Array;
  /** The targets [rows, dOut], of a source of pairs. */
  readonly target?: Uint8Array;
  readonly numbers: Float64Array;
}

const CHUNK_ROWS = 4096;

/**
 * The rows of the ranges, in that order. A row that is not finite stops (SaettaError that says
 * where it is), or is left out with "skip". Each chunk has its own memory.
 */
export async function* rowsOf(
  source: Source,
  ranges: readonly Range[],
  nonFinite: NonFinite = "stop",
  chunkRows = CHUNK_ROWS,
): AsyncGenerator<Chunk> {
  const rowBytes = bytesPerRow(source);
  let raw = new Uint8Array(chunkRows * rowBytes);
  let numbers = new Float64Array(chunkRows);
  let rows = 0;
  for (const range of ranges) {
    for (let done = 0; done < range.count; ) {
      const first = range.first + done;
      const count = Math.min(range.count - done, chunkRows - rows);
      await source.read(first, count, raw.subarray(rows * rowBytes, (rows + count) * rowBytes));
      for (let i = 0; i < count; i++) numbers[rows + i] = first + i;
      rows = withoutNonFinite(source, raw, numbers, rows, rows + count, nonFinite);
      done += count;
      if (rows < chunkRows) continue;
      yield chunkOf(source, rows, raw, numbers);
      raw = new Uint8Array(chunkRows * rowBytes);
      numbers = new Float64Array(chunkRows);
      rows = 0;
    }
  }
  if (rows > 0) yield chunkOf(source, rows, raw.subarray(0, rows * rowBytes), numbers.subarray(0, rows));
}

function chunkOf(source: Source, rows: number, raw: Uint8Array, numbers: Float64Array): Chunk {
  if (source.dOut === undefined) return { rows, raw, numbers };
  const { x, y } = splitPairs(raw, source, rows);
  return { rows, raw: x, target: y, numbers };
}

/** Takes rows that are not finite out of [begin, end); returns the new end. */
function withoutNonFinite(
  source: Source,
  raw: Uint8Array,
  numbers: Float64Array,
  begin: number,
  end: number,
  nonFinite: NonFinite,
): number {
  const { dtype } = source;
  const [width, rowBytes] = [rowWidth(source), bytesPerRow(source)];
  let left = end;
  for (let from = begin; from < left; ) {
    const element = firstNonFinite(raw, dtype, from * width, (left - from) * width);
    if (element < 0) break;
    const row = Math.floor(element / width);
    if (nonFinite === "stop") {
      throw new SaettaError("holds NaN or Inf", {
        where: source.locate(numbers[row]),
        mend: "mend the file, or pass --non-finite skip to leave such rows out",
      });
    }
    raw.copyWithin(row * rowBytes, (row + 1) * rowBytes, left * rowBytes);
    numbers.copyWithin(row, row + 1, left);
    left--;
    from = row;
  }
  return left;
}

/** Rows that are kept or left together when there are too many. */
const PIECE = 256;

/**
 * At most `most` rows, evenly spread over the ranges in pieces of up to 256 consecutive rows; all
 * of them when there are no more.
 */
export function atMost(ranges: readonly Range[], most: number): Range[] {
  const all = countRows(ranges);
  if (all <= most) return [...ranges];
  const pieces = ranges.flatMap(({ first, count }) =>
    Array.from({ length: Math.ceil(count / PIECE) }, (_, i) => ({
      first: first + i * PIECE,
      count: Math.min(PIECE, count - i * PIECE),
    })),
  );
  const wanted = Math.max(1, Math.round((pieces.length * most) / all));
  const rank = (i: number) => Math.floor((i * wanted) / pieces.length);
  let room = most;
  return pieces
    .filter((_, i) => rank(i + 1) > rank(i))
    .map(({ first, count }) => {
      const kept = Math.min(count, room);
      room -= kept;
      return { first, count: kept };
    })
    .filter(({ count }) => count > 0);
}

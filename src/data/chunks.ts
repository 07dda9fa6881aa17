/** Chosen rows of a source, in chunks for evaluation. */

import type { SaettaError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import { type NonFinite, notFinite } from "./batches.ts";
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
  /** The error of one of these rows, counted from 0, that is not finite. */
  refuse(row: number): SaettaError;
}

const CHUNK_ROWS = 4096;

/** Memory that chunks are read into in turn. */
export interface ChunkMemory {
  /** At least CHUNKS of them, each of as many bytes as were asked for, or more. */
  readonly buffers: readonly Uint8Array<ArrayBuffer>[];
  release(): void;
}

/** One that is used, the one before it, and one that is read ahead. */
export const CHUNKS = 3;

export interface ChunkOptions {
  /** What a row does that is not finite: stops (default), or is left out. */
  readonly nonFinite?: NonFinite | undefined;
  /** The reader of the rows checks that they are finite, and throws `refuse`. Default: false. */
  readonly isLookedAt?: boolean | undefined;
  readonly chunkRows?: number | undefined;
  /** Default: new memory. */
  readonly memory?: ((bytes: number) => ChunkMemory) | undefined;
}

/**
 * The rows of the ranges, in that order. A row that is not finite stops (SaettaError that says
 * where it is), or is left out with "skip". The next chunk is read while one is used; a chunk stays
 * as it is until the second one after it is asked for.
 */
export async function* rowsOf(
  source: Source,
  ranges: readonly Range[],
  { nonFinite = "stop", isLookedAt = false, chunkRows = CHUNK_ROWS, memory = newMemory }: ChunkOptions = {},
): AsyncGenerator<Chunk> {
  const most = Math.min(chunkRows, countRows(ranges));
  const { buffers, release } = memory(most * bytesPerRow(source));
  const looks = isLookedAt && nonFinite === "stop" ? undefined : nonFinite;
  const read = chunksInto(source, ranges, looks, most, buffers);
  let ahead = read.next();
  try {
    for (;;) {
      const { done, value } = await ahead;
      if (done) return;
      ahead = read.next();
      // The next to ask gets the error; there may be no next.
      ahead.catch(() => undefined);
      yield value;
    }
  } finally {
    await ahead.catch(() => undefined);
    release();
  }
}

function newMemory(bytes: number): ChunkMemory {
  return { buffers: Array.from({ length: CHUNKS }, () => new Uint8Array(bytes)), release: () => undefined };
}

async function* chunksInto(
  source: Source,
  ranges: readonly Range[],
  nonFinite: NonFinite | undefined,
  most: number,
  buffers: readonly Uint8Array[],
): AsyncGenerator<Chunk> {
  const rowBytes = bytesPerRow(source);
  let turn = 0;
  let numbers = new Float64Array(most);
  let rows = 0;
  for (const range of ranges) {
    for (let done = 0; done < range.count; ) {
      const raw = buffers[turn]!;
      const first = range.first + done;
      const count = Math.min(range.count - done, most - rows);
      await source.read(first, count, raw.subarray(rows * rowBytes, (rows + count) * rowBytes));
      for (let i = 0; i < count; i++) numbers[rows + i] = first + i;
      rows += count;
      if (nonFinite !== undefined) rows = withoutNonFinite(source, raw, numbers, rows - count, rows, nonFinite);
      done += count;
      if (rows < most) continue;
      yield chunkOf(source, rows, raw.subarray(0, rows * rowBytes), numbers);
      turn = (turn + 1) % buffers.length;
      numbers = new Float64Array(most);
      rows = 0;
    }
  }
  if (rows > 0) yield chunkOf(source, rows, buffers[turn]!.subarray(0, rows * rowBytes), numbers.subarray(0, rows));
}

function chunkOf(source: Source, rows: number, raw: Uint8Array, numbers: Float64Array): Chunk {
  const refuse = (row: number) => notFinite(source, numbers[row]!);
  if (source.dOut === undefined) return { rows, raw, numbers, refuse };
  const { x, y } = splitPairs(raw, source, rows);
  return { rows, raw: x, target: y, numbers, refuse };
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
    if (nonFinite === "stop") throw notFinite(source, numbers[row]!);
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

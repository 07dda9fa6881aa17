/**
 * What the readers of all kinds of chunk index share: how a dataset is cut into chunks, and the
 * entries of arrays of chunks.
 */

import { FormatError } from "../util/errors.ts";
import { type Hdf5Bytes, readBlock, readUnsigned, verify } from "./hdf5-bytes.ts";

/** How the layout message of a dataset describes its chunks. */
export interface ChunkLayout {
  readonly index: "btree1" | "single" | "implicit" | "fixed" | "extensible" | "btree2";
  readonly address: bigint;
  /** Elements along each axis. */
  readonly chunk: readonly number[];
  /** Bytes of a whole chunk before its filters. */
  readonly bytes: number;
  /** Extent of the dataset, now and at most; undefined: unlimited. */
  readonly shape: readonly number[];
  readonly most: readonly (number | undefined)[];
  /** Chunks that stand over the edge are stored as they are. */
  readonly edgesUnfiltered: boolean;
  /** Of the only chunk, where it was filtered. */
  readonly single: { readonly bytes: number; readonly mask: number } | undefined;
  /** Whether entries of arrays and B-trees hold the bytes of a chunk. */
  readonly filtered: boolean;
}

/** A chunk in the file; bit i of `mask`: filter i was left out. */
export interface StoredChunk {
  readonly position: number;
  readonly bytes: number;
  readonly mask: number;
}

/**
 * What reads one kind of index: calls `found` for each chunk with its place in the grid of chunks.
 */
export interface Finder {
  readonly file: Hdf5Bytes;
  readonly layout: ChunkLayout;
  /** Chunks along each axis of the grid as the index counts them; undefined: unlimited. */
  readonly grid: readonly (number | undefined)[];
  found(place: readonly number[], address: bigint, bytes: number, mask: number): void;
}

/** Chunk `index` of the grid, the last axis fastest; the first of `axes` may be unlimited. */
export function placeOf(index: number, { grid }: Pick<Finder, "grid">): number[] {
  const place: number[] = [];
  let rest = index;
  for (let i = grid.length - 1; i > 0; i--) {
    const size = Math.max(1, grid[i] ?? 1);
    place[i] = rest % size;
    rest = Math.floor(rest / size);
  }
  place[0] = rest;
  return place;
}

/**
 * An entry of an array of chunks at byte `at`: an address and, where chunks are filtered, bytes and
 * mask.
 */
export function arrayEntry(
  block: Buffer,
  at: number,
  entryBytes: number,
  layout: ChunkLayout,
): [address: bigint, bytes: number, mask: number] {
  const address = block.readBigUInt64LE(at);
  if (!layout.filtered) return [address, layout.bytes, 0];
  return [address, readUnsigned(block, at + 8, entryBytes - 12), block.readUInt32LE(at + entryBytes - 4)];
}

/** Throws FormatError unless entries of so many bytes can be what they must be. */
export function checkEntry(file: Hdf5Bytes, entryBytes: number, layout: ChunkLayout, at: number): void {
  const fits = layout.filtered ? entryBytes >= 13 && entryBytes <= 20 : entryBytes === 8;
  if (!fits)
    throw new FormatError(`entries of ${entryBytes} bytes in an index of chunks`, {
      where: `${file.path}, byte ${at}`,
    });
}

/** The entries of a page of an array, which a checksum follows. */
export async function readPage(file: Hdf5Bytes, at: number, bytes: number, what: string): Promise<Buffer> {
  const block = await readBlock(file, at, bytes + 4, what);
  verify(file, block, at, what);
  return block;
}

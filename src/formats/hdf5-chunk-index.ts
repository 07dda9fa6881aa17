/**
 * Where the chunks of a dataset lie: each of the six kinds of chunk index (HDF5 file format
 * specification, III.A.1, VII.A, VII.B, III.A.2 and the layout message, IV.A.2.i). An index is read
 * whole, once, and can hold no more chunks than its bytes in the file; none is visited twice.
 */

import { FormatError } from "../util/errors.ts";
import { type Hdf5Bytes, length64, position, readBlock, readStructure, UNDEFINED } from "./hdf5-bytes.ts";
import { readBTree2 } from "./hdf5-chunk-btree2.ts";
import { readExtensibleArray } from "./hdf5-chunk-extensible.ts";
import {
  arrayEntry,
  type ChunkLayout,
  checkEntry,
  type Finder,
  placeOf,
  readPage,
  type StoredChunk,
} from "./hdf5-chunk-layout.ts";

const MAX_CHUNKS = 2 ** 24;

/** Chunks by their place in the grid; those that were never written are not in it. */
export async function readChunkIndex(
  file: Hdf5Bytes,
  layout: ChunkLayout,
): Promise<(place: readonly number[]) => StoredChunk | undefined> {
  const chunks = new Map<number, StoredChunk>();
  const now = layout.shape.map((size, i) => Math.ceil(size / layout.chunk[i]!));
  const key = (place: readonly number[]): number | undefined => {
    let index = 0;
    for (const [i, at] of place.entries()) {
      if (!(at >= 0 && at < now[i]!)) return undefined;
      index = index * now[i]! + at;
    }
    return Number.isSafeInteger(index) ? index : undefined;
  };
  const where = `${file.path}, index of chunks`;
  const finder: Finder = {
    file,
    layout,
    grid: layout.most.map((size, i) => (size === undefined ? undefined : Math.ceil(size / layout.chunk[i]!))),
    found(place, address, bytes, mask) {
      const at = key(place);
      // Never written, or left over from when the dataset was larger.
      if (address === UNDEFINED || at === undefined) return;
      if (chunks.has(at)) throw new FormatError(`two chunks at [${place.join(", ")}]`, { where });
      if (chunks.size === MAX_CHUNKS)
        throw new FormatError(`more than ${MAX_CHUNKS} chunks`, { where, mend: "write larger chunks" });
      const from = position(file, address, `${where}, chunk [${place.join(", ")}]`);
      if (from + bytes > file.size) {
        throw new FormatError(`chunk [${place.join(", ")}] of ${bytes} bytes runs past the end of the file`, {
          where: `${file.path}, byte ${from}`,
        });
      }
      chunks.set(at, { position: from, bytes, mask });
    },
  };
  if (layout.address !== UNDEFINED) await READERS[layout.index](finder);
  return (place) => {
    const at = key(place);
    return at === undefined ? undefined : chunks.get(at);
  };
}

const READERS: Readonly<Record<ChunkLayout["index"], (finder: Finder) => Promise<void> | void>> = {
  btree1: readBTree1,
  single({ layout, found }) {
    const { bytes, mask } = layout.single ?? { bytes: layout.bytes, mask: 0 };
    found(
      layout.chunk.map(() => 0),
      layout.address,
      bytes,
      mask,
    );
  },
  implicit(finder) {
    const { layout, file, found } = finder;
    const most = (file.size - position(file, layout.address, `${file.path}, chunks`)) / layout.bytes;
    for (let i = 0; i < Math.min(most, countOf(finder)); i++)
      found(placeOf(i, finder), layout.address + BigInt(i * layout.bytes), layout.bytes, 0);
  },
  fixed: readFixedArray,
  extensible: readExtensibleArray,
  btree2: readBTree2,
};

/** Chunks of a grid without an unlimited axis. */
function countOf({ grid }: Finder): number {
  return grid.reduce<number>((product, size) => product * (size ?? Number.POSITIVE_INFINITY), 1);
}

const BTREE1_DEPTH = 32;

/**
 * The index of all files until HDF5 1.10: keys are [bytes, mask, first element along each axis, 0].
 */
async function readBTree1({ file, layout, found }: Finder): Promise<void> {
  const rank = layout.chunk.length;
  const keyBytes = 8 + 8 * (rank + 1);
  const what = "B-tree node";
  const seen = new Set<bigint>();
  const visit = async (address: bigint, level: number | undefined): Promise<void> => {
    if (seen.has(address))
      throw new FormatError(`the B-tree of the chunks comes back to address ${address}`, { where: file.path });
    seen.add(address);
    const { block: head, at } = await readStructure(file, address, "TREE", 24, what, false);
    const where = `${file.path}, byte ${at}`;
    const entries = head.readUInt16LE(6);
    const own = head[5]!;
    if (head[4] !== 1 || own > BTREE1_DEPTH || (level !== undefined && own !== level))
      throw new FormatError("damaged B-tree node", { where });
    const node = await readBlock(file, at + 24, entries * (keyBytes + 8), what);
    for (let i = 0; i < entries; i++) {
      const key = i * (keyBytes + 8);
      const child = node.readBigUInt64LE(key + keyBytes);
      if (own > 0) {
        await visit(child, own - 1);
        continue;
      }
      const place = layout.chunk.map((size, axis) => {
        const first = length64(file, node.readBigUInt64LE(key + 8 + 8 * axis), at + 24 + key);
        if (first % size !== 0) throw new FormatError("a chunk that does not begin where chunks do", { where });
        return first / size;
      });
      found(place, child, node.readUInt32LE(key), node.readUInt32LE(key + 4));
    }
  };
  await visit(layout.address, undefined);
}

/**
 * Datasets of a fixed extent: an array with one entry a chunk; where it is long, in pages, of which
 * those without a chunk may not be there.
 */
async function readFixedArray(finder: Finder): Promise<void> {
  const { file, layout, found } = finder;
  const { block: head, at: headAt } = await readStructure(file, layout.address, "FAHD", 28, "array of chunks");
  const entryBytes = head[6]!;
  const pageBits = head[7]!;
  const entries = length64(file, head.readBigUInt64LE(8), headAt + 8);
  const address = head.readBigUInt64LE(16);
  checkEntry(file, entryBytes, layout, headAt);
  if (address === UNDEFINED) return;
  const what = "block of an array of chunks";
  const take = (block: Buffer, from: number, first: number, count: number): void => {
    for (let i = 0; i < count; i++)
      found(placeOf(first + i, finder), ...arrayEntry(block, from + i * entryBytes, entryBytes, layout));
  };
  const perPage = 2 ** pageBits;
  if (entries <= perPage) {
    const { block } = await readStructure(file, address, "FADB", 14 + entries * entryBytes + 4, what);
    take(block, 14, 0, entries);
    return;
  }
  const pages = Math.ceil(entries / perPage);
  const prefix = 14 + Math.ceil(pages / 8) + 4;
  const { block, at } = await readStructure(file, address, "FADB", prefix, what);
  for (let page = 0; page < pages; page++) {
    if (((block[14 + (page >> 3)]! << (page & 7)) & 0x80) === 0) continue;
    const count = Math.min(perPage, entries - page * perPage);
    take(
      await readPage(file, at + prefix + page * (perPage * entryBytes + 4), count * entryBytes, what),
      0,
      page * perPage,
      count,
    );
  }
}

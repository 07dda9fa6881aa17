/**
 * The index of datasets with one unlimited axis: an extensible array (HDF5 file format
 * specification, VII.C). Its first entries stand in the index block; then come data blocks, ever
 * larger, whose addresses stand in the index block or in super blocks. Entries count chunks with
 * the unlimited axis slowest.
 */

import { FormatError } from "../util/errors.ts";
import { length64, readStructure, UNDEFINED } from "./hdf5-bytes.ts";
import { arrayEntry, checkEntry, type Finder, placeOf, readPage } from "./hdf5-chunk-layout.ts";

export async function readExtensibleArray(finder: Finder): Promise<void> {
  const { file, layout } = finder;
  const { block: head, at: headAt } = await readStructure(file, layout.address, "EAHD", 72, "array of chunks");
  const [entryBytes, maxBits, inIndex, minEntries, minPointers, pageBits] = Array.from(head.subarray(6, 12)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const where = `${file.path}, byte ${headAt}`;
  checkEntry(file, entryBytes, layout, headAt);
  const powers = [minEntries, minPointers].every((value) => value > 0 && (value & (value - 1)) === 0);
  if (!powers || maxBits > 64 || maxBits < Math.log2(minEntries) || pageBits > 32)
    throw new FormatError("damaged array of chunks", { where });
  /** Entries that were ever set. */
  const used = length64(file, head.readBigUInt64LE(44), headAt + 44);
  const address = head.readBigUInt64LE(60);
  if (address === UNDEFINED || used === 0) return;

  const unlimited = finder.grid.indexOf(undefined);
  if (unlimited < 0) throw new FormatError("an extensible array for a dataset of fixed extent", { where });
  const swapped = [undefined, ...finder.grid.filter((_, i) => i !== unlimited)];
  const take = (block: Buffer, from: number, first: number, count: number): void => {
    for (let i = 0; i < Math.min(count, used - first); i++) {
      const [slowest, ...rest] = placeOf(first + i, { grid: swapped });
      const place = [...rest.slice(0, unlimited), slowest!, ...rest.slice(unlimited)];
      finder.found(place, ...arrayEntry(block, from + i * entryBytes, entryBytes, layout));
    }
  };

  const offsetBytes = Math.ceil(maxBits / 8);
  const perPage = 2 ** pageBits;
  /** A data block of `count` entries; `isThere` says which of its pages are. */
  const dataBlock = async (
    at: bigint,
    first: number,
    count: number,
    isThere: (page: number) => boolean,
  ): Promise<void> => {
    const what = "block of an array of chunks";
    const prefix = 14 + offsetBytes;
    if (count <= perPage) {
      const { block } = await readStructure(file, at, "EADB", prefix + count * entryBytes + 4, what);
      return take(block, prefix, first, count);
    }
    const { at: from } = await readStructure(file, at, "EADB", prefix + 4, what);
    for (let page = 0; page < count / perPage && first + page * perPage < used; page++) {
      if (!isThere(page)) continue;
      const pageAt = from + prefix + 4 + page * (perPage * entryBytes + 4);
      take(await readPage(file, pageAt, perPage * entryBytes, what), 0, first + page * perPage, perPage);
    }
  };

  /**
   * Group u of data blocks: 2^floor(u/2) blocks of 2^ceil(u/2) minEntries entries. The first ones
   * are pointed at by the index block.
   */
  const groups = 1 + maxBits - Math.log2(minEntries);
  const direct = 2 * Math.log2(minPointers);
  const pointers = 2 * (minPointers - 1);
  const superBlocks = Math.max(0, groups - direct);
  const { block: index } = await readStructure(
    file,
    address,
    "EAIB",
    14 + inIndex * entryBytes + 8 * (pointers + superBlocks) + 4,
    "index of an array of chunks",
  );
  take(index, 14, 0, inIndex);
  const addresses = 14 + inIndex * entryBytes;
  let first = inIndex;
  let pointer = 0;
  for (let group = 0; group < groups && first < used; group++) {
    const blocks = 2 ** Math.floor(group / 2);
    const count = 2 ** Math.ceil(group / 2) * minEntries;
    if (group < direct) {
      for (let i = 0; i < blocks && pointer < pointers; i++, pointer++, first += count) {
        const at = index.readBigUInt64LE(addresses + 8 * pointer);
        if (at !== UNDEFINED && first < used) await dataBlock(at, first, count, () => true);
      }
      continue;
    }
    const superAt = index.readBigUInt64LE(addresses + 8 * (pointers + group - direct));
    if (superAt !== UNDEFINED) {
      const pages = count > perPage ? count / perPage : 0;
      const bitmap = blocks * Math.ceil(pages / 8);
      const prefix = 14 + offsetBytes + bitmap;
      const { block } = await readStructure(
        file,
        superAt,
        "EASB",
        prefix + 8 * blocks + 4,
        "group of an array of chunks",
      );
      for (let i = 0; i < blocks && first + i * count < used; i++) {
        const at = block.readBigUInt64LE(prefix + 8 * i);
        const isThere = (page: number): boolean => {
          const bit = i * pages + page;
          return ((block[14 + offsetBytes + (bit >> 3)]! << (bit & 7)) & 0x80) !== 0;
        };
        if (at !== UNDEFINED) await dataBlock(at, first + i * count, count, isThere);
      }
    }
    first += blocks * count;
  }
}

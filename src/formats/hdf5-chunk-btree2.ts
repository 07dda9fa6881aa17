/**
 * The index of datasets with several unlimited axes: a version 2 B-tree, whose records are chunks
 * (HDF5 file format specification, III.A.2, types 10 and 11).
 */

import { FormatError } from "../util/errors.ts";
import { length64, readStructure, readUnsigned, UNDEFINED } from "./hdf5-bytes.ts";
import type { Finder } from "./hdf5-chunk-layout.ts";

const PREFIX = 6;
const CHECKSUM = 4;
const MAX_DEPTH = 32;
const MAX_NODE_BYTES = 1 << 24;

export async function readBTree2({ file, layout, found }: Finder): Promise<void> {
  const rank = layout.chunk.length;
  const { block: head, at: headAt } = await readStructure(file, layout.address, "BTHD", 38, "B-tree of chunks");
  const where = `${file.path}, byte ${headAt}`;
  const type = head[5];
  const nodeBytes = head.readUInt32LE(6);
  const recordBytes = head.readUInt16LE(10);
  const depth = head.readUInt16LE(12);
  const root = head.readBigUInt64LE(16);
  const inRoot = head.readUInt16LE(24);
  const sizeBytes = recordBytes - 8 - 4 - 8 * rank;
  const fits = layout.filtered
    ? type === 11 && sizeBytes >= 1 && sizeBytes <= 8
    : type === 10 && recordBytes === 8 + 8 * rank;
  if (!fits || depth > MAX_DEPTH || nodeBytes > MAX_NODE_BYTES)
    throw new FormatError("damaged B-tree of chunks", { where });
  if (root === UNDEFINED || inRoot === 0) return;

  // How many records a node can hold says how wide the counts beside its children are.
  const width = (most: number): number => Math.floor(Math.log2(Math.max(1, most)) / 8) + 1;
  const inLeaf = Math.floor((nodeBytes - PREFIX - CHECKSUM) / recordBytes);
  const countBytes = width(inLeaf);
  const totals = [0]; // width of the count of all records under a child, by the child's level
  const most = [inLeaf];
  for (let level = 1, under = inLeaf; level <= depth; level++) {
    const pointer = 8 + countBytes + totals[level - 1]!;
    most[level] = Math.floor((nodeBytes - PREFIX - CHECKSUM - pointer) / (recordBytes + pointer));
    under = (most[level]! + 1) * under + most[level]!;
    totals[level] = width(under);
  }

  const seen = new Set<bigint>();
  const record = (block: Buffer, at: number): void => {
    const scaled = at + (layout.filtered ? 8 + sizeBytes + 4 : 8);
    const place = layout.chunk.map((_, axis) => length64(file, block.readBigUInt64LE(scaled + 8 * axis), headAt));
    const bytes = layout.filtered ? readUnsigned(block, at + 8, sizeBytes) : layout.bytes;
    found(place, block.readBigUInt64LE(at), bytes, layout.filtered ? block.readUInt32LE(at + 8 + sizeBytes) : 0);
  };
  const visit = async (address: bigint, level: number, records: number): Promise<void> => {
    if (seen.has(address))
      throw new FormatError(`the B-tree of the chunks comes back to address ${address}`, { where });
    seen.add(address);
    if (!(records <= most[level]!))
      throw new FormatError(`${records} records in a node of a B-tree of chunks that holds ${most[level]}`, { where });
    const pointer = level === 0 ? 0 : 8 + countBytes + totals[level - 1]!;
    const used = PREFIX + records * recordBytes + (level === 0 ? 0 : (records + 1) * pointer) + CHECKSUM;
    const what = "node of a B-tree of chunks";
    const { block } = await readStructure(file, address, level === 0 ? "BTLF" : "BTIN", used, what);
    for (let i = 0; i < records; i++) record(block, PREFIX + i * recordBytes);
    for (let i = 0; level > 0 && i <= records; i++) {
      const child = PREFIX + records * recordBytes + i * pointer;
      await visit(block.readBigUInt64LE(child), level - 1, readUnsigned(block, child + 8, countBytes));
    }
  };
  await visit(root, depth, inRoot);
}

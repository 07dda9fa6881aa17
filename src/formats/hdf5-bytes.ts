/**
 * Reading the structures of an HDF5 file: addresses that are in it, numbers of every width, blocks
 * whose checksum is right.
 */

import type { FileHandle } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";
import { lookup3 } from "./hdf5-checksum.ts";

/** "No address": 8 bytes of 0xff. */
export const UNDEFINED = 0xffff_ffff_ffff_ffffn;

/** An open file, known to begin with a superblock. Addresses in it count from byte `base`. */
export interface Hdf5Bytes {
  readonly handle: FileHandle;
  readonly path: string;
  readonly size: number;
  readonly base: number;
  /**
   * The superblock as if the file had been closed at its size now; set where a program left it open
   * in SWMR mode (single writer, multiple readers).
   */
  readonly closed?: Uint8Array | undefined;
}

/** An address of the file format -> a byte of the file, which has it. */
export function position(file: Hdf5Bytes, address: bigint, where: string): number {
  if (address === UNDEFINED || address + BigInt(file.base) >= BigInt(file.size)) {
    throw new FormatError(`address ${address} is outside of the file`, { where });
  }
  return Number(address) + file.base;
}

export function length64(file: Hdf5Bytes, value: bigint, at: number): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER))
    throw new FormatError(`a length of ${value}`, { where: `${file.path}, byte ${at}` });
  return Number(value);
}

/** A little-endian number of `width` bytes; exact to 2^53. */
export function readUnsigned(data: Buffer, at: number, width: number): number {
  let value = 0;
  for (let i = width - 1; i >= 0; i--) value = value * 256 + (data[at + i] as number);
  return value;
}

/** `bytes` bytes from byte `at` on, which the file must have. `what` names them in errors. */
export async function readBlock(file: Hdf5Bytes, at: number, bytes: number, what: string): Promise<Buffer> {
  if (!(bytes >= 0 && at + bytes <= file.size)) {
    throw new FormatError(`${what} of ${bytes} bytes runs past the end of the file`, {
      where: `${file.path}, byte ${at}`,
    });
  }
  const block = Buffer.alloc(bytes);
  await readFully(file.handle, block, at, file.path);
  return block;
}

/** Throws FormatError unless the last 4 bytes of the block are the checksum of those before. */
export function verify(file: Hdf5Bytes, block: Buffer, at: number, what: string): void {
  const end = block.length - 4;
  if (end < 0 || block.readUInt32LE(end) !== lookup3(block.subarray(0, end))) {
    throw new FormatError(`${what} is damaged: its checksum is wrong`, { where: `${file.path}, byte ${at}` });
  }
}

/**
 * A structure with a signature and a version of 0, at an address. `checked`: with its checksum, at
 * its end.
 */
export async function readStructure(
  file: Hdf5Bytes,
  address: bigint,
  signature: string,
  bytes: number,
  what: string,
  checked = true,
): Promise<{ readonly block: Buffer; readonly at: number }> {
  const at = position(file, address, `${file.path}, ${what}`);
  const block = await readBlock(file, at, bytes, what);
  if (block.toString("latin1", 0, 4) !== signature) {
    throw new FormatError(`no ${what} where there must be one (signature ${signature})`, {
      where: `${file.path}, byte ${at}`,
    });
  }
  if (checked) verify(file, block, at, what);
  return { block, at };
}

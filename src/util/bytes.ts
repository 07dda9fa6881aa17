/**
 * Bytes in memory and on disk: views of typed arrays, whole reads and writes. Every supported
 * machine is little-endian, as every format read here is.
 */

import type { FileHandle } from "node:fs/promises";
import { FormatError } from "./errors.ts";

/** Bytes of one element of each type; `raw16`: 2 bytes without a type. */
export const BYTES = {
  f64: 8,
  f32: 4,
  f16: 2,
  bf16: 2,
  raw16: 2,
  i64: 8,
  i32: 4,
  i16: 2,
  i8: 1,
  u64: 8,
  u32: 4,
  u16: 2,
  u8: 1,
  bool: 1,
} as const;

/** The bytes of a typed array, not copied. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/**
 * Bytes seen as f32, f64 or u32. Copied only when they do not stand on a multiple of the element's
 * size; a rest that makes no element is an error.
 */
export function float32Of(bytes: Uint8Array): Float32Array {
  return viewAs(Float32Array, bytes);
}

export function float64Of(bytes: Uint8Array): Float64Array {
  return viewAs(Float64Array, bytes);
}

export function uint32Of(bytes: Uint8Array): Uint32Array {
  return viewAs(Uint32Array, bytes);
}

interface ArrayType<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, offset: number, length: number): T;
}

function viewAs<T>(type: ArrayType<T>, bytes: Uint8Array): T {
  const size = type.BYTES_PER_ELEMENT;
  if (bytes.byteLength % size !== 0)
    throw new RangeError(`${bytes.byteLength} bytes are no whole number of ${size}-byte elements`);
  const held = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return new type(held.buffer, held.byteOffset, held.byteLength / size);
}

/**
 * One call of the operating system moves fewer than 2^31 bytes; less at a time also lets other work
 * in between.
 */
const PIECE = 64 * 1024 * 1024;

/** Fills `into` from byte `at` of the file. A file that ends before is a FormatError naming it. */
export async function readFully(file: FileHandle, into: Uint8Array, at: number, path: string): Promise<void> {
  let done = 0;
  while (done < into.byteLength) {
    const { bytesRead } = await file.read(into, done, Math.min(PIECE, into.byteLength - done), at + done);
    if (bytesRead === 0) {
      throw new FormatError(
        `the file ends at byte ${at + done}, before byte ${at + into.byteLength} that it must have`,
        { where: path },
      );
    }
    done += bytesRead;
  }
}

/** Pieces of `bytes` small enough for one call of the operating system. */
export function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += PIECE) yield bytes.subarray(at, Math.min(at + PIECE, bytes.byteLength));
}

/** "512 B", "1.5 KiB", "96.0 MiB". */
export function formatBytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

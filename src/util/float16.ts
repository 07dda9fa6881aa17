/**
 * The two 16-bit floats as bits in a Uint16Array, for a Node that has no Float16Array: IEEE 754
 * binary16 (f16) and bfloat16, the upper half of an f32 (bf16). Narrowing rounds to nearest, ties
 * to even; a NaN stays a NaN.
 */

import { screenOf } from "./screen.ts";

let table: Float32Array | undefined;

/** The value of each of the 65,536 f16 bit patterns. */
function f16Values(): Float32Array {
  if (table !== undefined) return table;
  table = new Float32Array(0x10000);
  for (let bits = 0; bits < 0x8000; bits++) {
    const exponent = bits >> 10;
    const mantissa = bits & 0x3ff;
    const value =
      exponent === 31
        ? mantissa === 0
          ? Infinity
          : NaN
        : exponent === 0
          ? mantissa * 2 ** -24
          : (1024 + mantissa) * 2 ** (exponent - 25);
    table[bits] = value;
    table[bits | 0x8000] = -value;
  }
  return table;
}

/** f16 bits -> f32 values, exact. `into` has at least as many elements as `bits`. */
export function decodeFloat16(bits: Uint16Array, into = new Float32Array(bits.length)): Float32Array {
  checkRoom(bits.length, into.length);
  const values = f16Values();
  for (let i = 0; i < bits.length; i++) into[i] = values[bits[i] as number] as number;
  return into;
}

/** bf16 bits -> f32 values, exact. `into` has at least as many elements as `bits`. */
export function decodeBfloat16(bits: Uint16Array, into = new Float32Array(bits.length)): Float32Array {
  checkRoom(bits.length, into.length);
  const words = new Uint32Array(into.buffer, into.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16;
  return into;
}

/**
 * f32 values -> f16 bits. Returns the index of the first finite value that rounds to infinity
 * (65520 and beyond), or -1; everything is converted either way. `into` has at least as many
 * elements as `values`.
 */
export function encodeFloat16(values: Float32Array, into: Uint16Array): number {
  checkRoom(values.length, into.length);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const scratch = new Float32Array(1);
  const scratchBits = new Uint32Array(scratch.buffer);
  let overflow = -1;
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fff_ffff;
    let half: number;
    if (magnitude >= 0x477f_f000) {
      // 65520 = 0x477ff000 is halfway between the largest f16 and 2^16, and goes to the even one,
      // which is infinity.
      if (magnitude < 0x7f80_0000 && overflow < 0) overflow = i;
      half = magnitude > 0x7f80_0000 ? 0x7e00 : 0x7c00;
    } else if (magnitude < 0x3880_0000) {
      // Below 2^-14. The ulp of an f32 in [0.5, 1) is 2^-24, the step of a subnormal f16: adding
      // 0.5 leaves the rounded count of steps.
      scratch[0] = Math.abs(values[i] as number) + 0.5;
      half = (scratchBits[0] as number) - 0x3f00_0000;
    } else {
      half = (magnitude - 0x3800_0000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
    }
    into[i] = sign | half;
  }
  return overflow;
}

/** f32 values -> bf16 bits; returns and requires what encodeFloat16 does. */
export function encodeBfloat16(values: Float32Array, into: Uint16Array): number {
  checkRoom(values.length, into.length);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let overflow = -1;
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number;
    const magnitude = word & 0x7fff_ffff;
    if (magnitude > 0x7f80_0000) {
      into[i] = (word >>> 16) | 0x40;
      continue;
    }
    const rounded = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
    if ((rounded & 0x7fff) === 0x7f80 && magnitude < 0x7f80_0000 && overflow < 0) overflow = i;
    into[i] = rounded;
  }
  return overflow;
}

/**
 * Bytes of one element of what may be scanned for non-finite values, and the bits of its exponent
 * in the word that holds them.
 */
const WIDTH = { f16: 2, bf16: 2, f32: 4, f64: 8 } as const;
const EXPONENT = { f16: 0x7c00, bf16: 0x7f80, f32: 0x7f80_0000, f64: 0x7ff0_0000 } as const;

/** Words of 4 bytes that are screened together. */
const SCREENED = 2048;

/**
 * Index of the first NaN or infinity among the elements [first, first + count) of little-endian
 * `bytes`, or -1. The index counts from the start of `bytes`.
 */
export function firstNonFinite(bytes: Uint8Array, dtype: keyof typeof WIDTH, first: number, count: number): number {
  const width = WIDTH[dtype];
  if (first < 0 || count < 0 || (first + count) * width > bytes.byteLength) {
    throw new RangeError(`elements ${first} to ${first + count} of ${Math.floor(bytes.byteLength / width)}`);
  }
  const part = bytes.subarray(first * width, (first + count) * width);
  const aligned = part.byteOffset % 4 === 0 ? part : part.slice();
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, Math.floor(aligned.byteLength / 4));
  const together = (SCREENED * 4) / width;
  for (let begin = 0; begin < count; begin += together) {
    const end = Math.min(count, begin + together);
    // The odd last element of 2 bytes is in no whole word.
    const screened = width < 8 && ((end - begin) * width) % 4 === 0;
    if (screened && allFinite(words, (begin * width) / 4, (end * width) / 4, EXPONENT[dtype], width === 2)) continue;
    const found = firstFull(aligned, width, begin, end, EXPONENT[dtype]);
    if (found >= 0) return first + found;
  }
  return -1;
}

/** Those of the rows [begin, end) of width dIn in `memory` that hold something not finite. */
export function nonFiniteRows(
  memory: Uint8Array,
  dtype: keyof typeof WIDTH,
  dIn: number,
  begin: number,
  end: number,
): number[] {
  const found: number[] = [];
  for (let row = begin; row < end; row++) {
    const element = firstNonFinite(memory, dtype, row * dIn, (end - row) * dIn);
    if (element < 0) break;
    row = Math.floor(element / dIn);
    found.push(row);
  }
  return found;
}

/**
 * Adding the lowest bit of the exponent to the exponent alone carries into the place of the sign
 * where it is all ones, and only there. `halves`: two elements a word, of which the lower cannot
 * carry into the upper.
 */
function allFinite(words: Int32Array, begin: number, end: number, exponent: number, halves: boolean): boolean {
  const mask = halves ? exponent | (exponent << 16) : exponent;
  const lowest = halves ? (0x8000 - exponent) | ((0x8000 - exponent) << 16) : 0x80_0000;
  const sign = halves ? 0x8000_8000 : 0x8000_0000;
  const screen = (end - begin) % 16 === 0 ? screenOf(words.buffer) : undefined;
  if (screen !== undefined)
    return (screen(words.byteOffset + 4 * begin, words.byteOffset + 4 * end, mask, lowest) & sign) === 0;
  const unrolled = begin + Math.floor((end - begin) / 8) * 8;
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = begin;
  for (; i < unrolled; i += 8) {
    a |= ((words[i] as number) & mask) + lowest;
    b |= ((words[i + 1] as number) & mask) + lowest;
    c |= ((words[i + 2] as number) & mask) + lowest;
    d |= ((words[i + 3] as number) & mask) + lowest;
    a |= ((words[i + 4] as number) & mask) + lowest;
    b |= ((words[i + 5] as number) & mask) + lowest;
    c |= ((words[i + 6] as number) & mask) + lowest;
    d |= ((words[i + 7] as number) & mask) + lowest;
  }
  for (; i < end; i++) a |= ((words[i] as number) & mask) + lowest;
  return ((a | b | c | d) & sign) === 0;
}

/**
 * The first element of [begin, end) whose exponent is all ones, or -1. Of 8 bytes the upper 4 hold
 * it.
 */
function firstFull(bytes: Uint8Array, width: number, begin: number, end: number, exponent: number): number {
  const step = Math.min(width, 4);
  const words =
    step === 2
      ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)
      : new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const stride = width / step;
  for (let i = begin; i < end; i++) if (((words[(i + 1) * stride - 1] as number) & exponent) === exponent) return i;
  return -1;
}

function checkRoom(needed: number, room: number): void {
  if (room < needed) throw new RangeError(`room for ${room} elements, ${needed} needed`);
}

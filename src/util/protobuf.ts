/**
 * Protocol Buffers, written: fields as pieces of bytes, to be joined at the end. A message is the
 * pieces of its fields. Source: https://protobuf.dev/programming-guides/encoding.
 */

const encoder = new TextEncoder();

/** A length-delimited field (a message, bytes): its tag and length, then `parts` as they are. */
export function wrap(number: number, parts: readonly Uint8Array[]): Uint8Array[] {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [Uint8Array.from([...varint(number * 8 + 2), ...varint(length)]), ...parts];
}

/** A string field. */
export function string(number: number, text: string): Uint8Array[] {
  return wrap(number, [encoder.encode(text)]);
}

/** An integer field of any width: a whole number from -2^53 to 2^53. */
export function integer(number: number, value: number): Uint8Array[] {
  return [Uint8Array.from([...varint(number * 8), ...varint(value)])];
}

/** A float field. */
export function float(number: number, value: number): Uint8Array[] {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return [Uint8Array.from(varint(number * 8 + 5)), bytes];
}

/** A double field. */
export function double(number: number, value: number): Uint8Array[] {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value, true);
  return [Uint8Array.from(varint(number * 8 + 1)), bytes];
}

/**
 * Negative numbers are written as their two's complement of 64 bits, as int32 and int64 both ask.
 */
function varint(value: number): number[] {
  if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is no integer of a protocol buffer`);
  if (value < 0) {
    const bytes: number[] = [];
    for (let rest = BigInt.asUintN(64, BigInt(value)); ; rest >>= 7n) {
      if (rest < 128n) return [...bytes, Number(rest)];
      bytes.push(Number(rest & 127n) | 0x80);
    }
  }
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 0x80);
  }
}

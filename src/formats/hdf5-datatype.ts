/**
 * The datatype message of HDF5 (format specification, IV.A.2.d): which numbers an element holds.
 * What tells bfloat16 from IEEE half is only here, in the places of exponent and mantissa. Only
 * little-endian numbers have a name; anything else gets a description in words.
 */

import { BYTES } from "../util/bytes.ts";

export type Hdf5Float = "f16" | "bf16" | "f32" | "f64";
/** `raw16`: 2 bytes without a type (opaque), as h5py stores the bfloat16 of ml_dtypes. */
export type Hdf5DType = Hdf5Float | "i8" | "u8" | "i16" | "u16" | "i32" | "u32" | "i64" | "u64" | "raw16";

interface FloatLayout {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
}

const FLOATS: Readonly<Record<Hdf5Float, FloatLayout>> = {
  f16: { exponentBits: 5, mantissaBits: 10, bias: 15 },
  bf16: { exponentBits: 8, mantissaBits: 7, bias: 127 },
  f32: { exponentBits: 8, mantissaBits: 23, bias: 127 },
  f64: { exponentBits: 11, mantissaBits: 52, bias: 1023 },
};

/** The types that are written. */
export type Hdf5WrittenDType = "f16" | "f32" | "f64" | "i32" | "i64";

export function isFloat(dtype: Hdf5DType | undefined): dtype is Hdf5Float {
  return dtype !== undefined && dtype in FLOATS;
}

const CLASSES = [
  "integer",
  "float",
  "time",
  "string",
  "bit field",
  "opaque",
  "compound",
  "reference",
  "enumeration",
  "variable-length",
  "array",
];
const [INTEGER, FLOAT, BITS, OPAQUE, ENUMERATION] = [0, 1, 4, 5, 8];

/** The message for a little-endian float or signed 32-bit or 64-bit integer. */
export function encodeDatatype(dtype: Hdf5WrittenDType): Buffer {
  const bytes = BYTES[dtype];
  if (dtype === "i32" || dtype === "i64") {
    const out = Buffer.alloc(12);
    out.set([0x10 | INTEGER, 0x08]); // signed
    out.writeUInt32LE(bytes, 4);
    out.writeUInt16LE(bytes * 8, 10);
    return out;
  }
  const { exponentBits, mantissaBits, bias } = FLOATS[dtype];
  const out = Buffer.alloc(20);
  out.set([0x10 | FLOAT, 0x20, bytes * 8 - 1]); // the mantissa's leading 1 is implied; the sign is the top bit
  out.writeUInt32LE(bytes, 4);
  out.writeUInt16LE(bytes * 8, 10);
  out.set([mantissaBits, exponentBits, 0, mantissaBits], 12);
  out.writeUInt32LE(bias, 16);
  return out;
}

/** The message for a fixed-length UTF-8 string, padded with NUL. */
export function encodeStringType(bytes: number): Buffer {
  const out = Buffer.alloc(8);
  out.set([0x13, 0x11]);
  out.writeUInt32LE(bytes, 4);
  return out;
}

/** The numbers' name, where there is one, and the words for people. */
export function decodeDatatype(message: Buffer): { readonly dtype?: Hdf5DType; readonly words: string } {
  if (message.length < 8) return { words: "damaged datatype" };
  const kind = (message[0] as number) & 15;
  const flags = message[1] as number;
  const bytes = message.readUInt32LE(4);
  if (kind === INTEGER && message.length >= 12) {
    const dtype = `${(flags & 8) === 0 ? "u" : "i"}${bytes * 8}`;
    if ((flags & 1) !== 0) return { words: `big-endian ${dtype}` };
    const whole = message.readUInt16LE(8) === 0 && message.readUInt16LE(10) === bytes * 8;
    return whole && isName(dtype) ? { dtype, words: dtype } : { words: `${bytes}-byte integer` };
  }
  if (kind === FLOAT && message.length >= 20) return decodeFloat(message, bytes);
  // PyTables stores booleans as a bit field of one byte.
  if (kind === BITS && bytes === 1) return { dtype: "u8", words: "bit field" };
  if (kind === OPAQUE && bytes === 2) return { dtype: "raw16", words: "2 bytes without a type" };
  if (kind === ENUMERATION) return decodeEnumeration(message);
  return { words: CLASSES[kind] ?? `datatype of class ${kind}` };
}

/** An enumeration is read as its integers. h5py stores booleans as one of int8, FALSE and TRUE. */
function decodeEnumeration(message: Buffer): { readonly dtype?: Hdf5DType; readonly words: string } {
  const base = decodeDatatype(message.subarray(8, 20));
  if (base.dtype === undefined) return { words: "enumeration" };
  const names = message.toString("latin1", 20);
  const isBoolean = BYTES[base.dtype] === 1 && names.startsWith("FALSE\0") && names.includes("TRUE\0");
  return { dtype: base.dtype, words: isBoolean ? "bool" : `enumeration of ${base.words}` };
}

function decodeFloat(message: Buffer, bytes: number): { readonly dtype?: Hdf5DType; readonly words: string } {
  const flags = message[1] as number;
  const match = Object.entries(FLOATS).find(
    ([dtype, { exponentBits, mantissaBits, bias }]) =>
      BYTES[dtype as Hdf5Float] === bytes &&
      (flags & 0x30) === 0x20 &&
      message[2] === bytes * 8 - 1 &&
      message.readUInt16LE(8) === 0 &&
      message.readUInt16LE(10) === bytes * 8 &&
      message[12] === mantissaBits &&
      message[13] === exponentBits &&
      message[14] === 0 &&
      message[15] === mantissaBits &&
      message.readUInt32LE(16) === bias,
  );
  if (match === undefined) return { words: `${bytes}-byte float of an unusual layout` };
  const dtype = match[0] as Hdf5Float;
  return (flags & 0x41) === 0 ? { dtype, words: dtype } : { words: `big-endian ${dtype}` };
}

function isName(text: string): text is Hdf5DType {
  return text in BYTES && text !== "bool";
}

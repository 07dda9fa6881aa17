/**
 * In which float type the rows of an array are read. Programs without bfloat16 store its bits as
 * 16-bit integers (PyTorch's `view(torch.int16)`, NumPy's uint16) or as 2 bytes without a type
 * (ml_dtypes through h5py or NumPy).
 */

import { FormatError } from "../util/errors.ts";
import { isRowDType, type RowDType, type Source } from "./source.ts";

/** What the 2-byte elements of an array may be said to be. */
export type RowBits = "bf16" | "f16";

/** The name of 2 bytes without a type in every format. */
export const RAW16 = "raw16";

/** Whether elements of this type may be the bits of floats. */
export const isBits = (dtype: string | undefined): boolean => dtype === "u16" || dtype === "i16" || dtype === RAW16;

export interface TypedArray {
  /** The array in words: "hidden_states (u16 [12, 5])". */
  readonly words: string;
  /** In lower case. */
  readonly dtype: string | undefined;
  /** What is wrong with elements that are neither floats nor bits of them. */
  readonly refusal: string;
  readonly rows: number;
  readonly width: number;
  readonly read: Source["read"];
}

/**
 * `asked`: what --as says. Without it 2-byte elements are bfloat16 where a sample of them looks so,
 * with a note. Throws FormatError for elements of other types, and for those that need --as.
 */
export async function rowType(
  array: TypedArray,
  asked: RowBits | undefined,
  where: string,
): Promise<{ readonly dtype: RowDType; readonly notes: readonly string[] }> {
  const { words, dtype, refusal } = array;
  const half = dtype === "f16" || dtype === "bf16";
  if (asked !== undefined && (half || isBits(dtype))) return { dtype: asked, notes: [] };
  if (isRowDType(dtype)) {
    if (asked === undefined) return { dtype, notes: [] };
    throw new FormatError(`${words} has no elements of 2 bytes to read as ${asked}`, { where, mend: "leave out --as" });
  }
  if (!isBits(dtype)) throw new FormatError(refusal, { where, mend: "name the activations with --dataset" });
  if (await looksLikeBf16(array)) {
    return { dtype: "bf16", notes: [`${where}: ${words} is read as the bits of bf16, which it looks like`] };
  }
  throw new FormatError(refusal, {
    where,
    mend: "where its elements are the bits of floats, say so: --as bf16 or --as f16",
  });
}

const SAMPLED_ROWS = 8;
const FEWEST = 8;
/**
 * Binary exponents of nearly all activations: 2^-40 to 2^20. Integers that count, and halves, have
 * others too.
 */
const [LEAST, MOST, SHARE] = [-40, 20, 0.99];

async function looksLikeBf16({ rows, width, read }: TypedArray): Promise<boolean> {
  const bytes = new Uint8Array(2 * width);
  let [numbers, usual] = [0, 0];
  for (let i = 0; i < Math.min(SAMPLED_ROWS, rows); i++) {
    await read(Math.floor((i * rows) / SAMPLED_ROWS), 1, bytes);
    for (let at = 0; at < bytes.length; at += 2) {
      const bits = bytes[at]! | (bytes[at + 1]! << 8);
      if ((bits & 0x7fff) === 0) continue; // zeros are zeros of any type
      const exponent = ((bits >> 7) & 0xff) - 127;
      numbers++;
      if (exponent >= LEAST && exponent <= MOST) usual++;
    }
  }
  return numbers >= FEWEST && usual >= SHARE * numbers;
}

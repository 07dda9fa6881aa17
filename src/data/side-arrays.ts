/**
 * Token ids and masks next to the activations of a file: found by their names, and left out with a
 * note where they cannot be read.
 */

import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import type { Source } from "./source.ts";

/** The name of vLLM's ids, next to activations [tokens, layers, width]. */
export const TOKEN_IDS = "token_ids";
/** Names of the array that holds the token ids, the first that is there counts. */
const TOKENS = ["tokens", TOKEN_IDS, "input_ids"];
/**
 * Arrays that say which rows count: 0 for padding, and for what the program that wrote the file
 * would not train on.
 */
const MASKS = ["attention_mask", "mask"];

/**
 * Whether an array of this name, without its folder, says something of the rows and is no
 * activations.
 */
export const isSideName = (name: string): boolean => [...TOKENS, ...MASKS].includes(name);

/** An array that may have one number per row of the activations. */
export interface SideArray {
  readonly name: string;
  readonly dtype: string;
  /** Undefined where it cannot be read: `open` throws why. */
  readonly shape: readonly number[] | undefined;
  /** Called once the shape is known to be right. */
  readonly open: () => Source["read"];
}

export interface SideRows extends Pick<Source, "tokens" | "mask" | "tokensProblem"> {
  readonly notes: readonly string[];
}

/**
 * The ids and the mask among the arrays of a file. They are looked for in the group of `of`, then
 * in those around it: `folders`, from the inside out, each "" or with its separator. One that
 * cannot be read is a note.
 */
export function rowsBeside(
  arrays: readonly SideArray[],
  of: { readonly name: string; readonly shape: readonly number[] },
  where: string,
  folders: readonly string[] = [""],
): SideRows {
  const notes: string[] = [];
  let tokensProblem: string | undefined;
  const [own] = folders;
  const fits = ({ shape }: SideArray): boolean => shape?.join() === of.shape.slice(0, -1).join();
  /**
   * The array of this name in the nearest folder; farther out, one of another shape belongs to
   * something else.
   */
  const nearest = (name: string): SideArray | undefined => {
    for (const folder of folders) {
      const found = arrays.find((array) => array.name === folder + name);
      if (found !== undefined && (folder === own || fits(found))) return found;
    }
    return undefined;
  };
  const usable = <T>(array: SideArray, use: (array: SideArray) => T, loss: string): T | undefined => {
    try {
      return use(array);
    } catch (thrown) {
      if (!(thrown instanceof SaettaError)) throw thrown;
      notes.push(`${messageOf(thrown)}; ${array.name} is left out, so ${loss}`);
      return undefined;
    }
  };
  let tokens: Source["tokens"];
  for (const name of TOKENS) {
    const array = tokens === undefined ? nearest(name) : undefined;
    if (array === undefined) continue;
    tokens = usable(array, (each) => tokensOf(each, of, where), "rows have no tokens");
    if (tokens === undefined) tokensProblem = notes.at(-1);
  }
  const masks = MASKS.flatMap((name) => nearest(name) ?? []).flatMap(
    (array) => usable(array, (each) => flagsOf(each, of, where), "rows of padding count") ?? [],
  );
  return {
    tokens,
    mask: masks.length === 0 ? undefined : allOf(masks),
    notes,
    tokensProblem: tokens === undefined ? tokensProblem : undefined,
  };
}

/** The reader of an array with one number per row of `of`. Throws FormatError where it has not. */
function readerOf(
  { name, dtype, shape, open }: SideArray,
  of: { readonly name: string; readonly shape: readonly number[] },
  where: string,
): { readonly read: Source["read"]; readonly words: string } {
  if (shape === undefined) return { read: open(), words: name };
  const want = of.shape.slice(0, -1);
  const words = `${name} (${dtype} [${shape.join(", ")}])`;
  if (shape.join() !== want.join()) {
    throw new FormatError(`${words} must have shape [${want.join(", ")}], as ${of.name || "the tensor"} has`, {
      where,
    });
  }
  return { read: open(), words };
}

/** Ids of tokens. */
function tokensOf(
  array: SideArray,
  of: { readonly name: string; readonly shape: readonly number[] },
  where: string,
): NonNullable<Source["tokens"]> {
  const { read, words } = readerOf(array, of, where);
  const integers = INTEGERS[array.dtype];
  if (integers === undefined) throw new FormatError(`${words} must hold integers`, { where });
  return async (first, count) => {
    const bytes = new Uint8Array(count * integers.bytes);
    await read(first, count, bytes);
    return toInt32(integers.view(bytes.buffer), `${where}, ${array.name}, row`, first);
  };
}

/** 1 for rows whose number is not 0. */
function flagsOf(
  array: SideArray,
  of: { readonly name: string; readonly shape: readonly number[] },
  where: string,
): NonNullable<Source["mask"]> {
  const { read, words } = readerOf(array, of, where);
  const width = FLAG_BYTES[array.dtype] ?? INTEGERS[array.dtype]?.bytes;
  if (width === undefined) throw new FormatError(`${words} must hold numbers or booleans`, { where });
  return async (first, count) => {
    const bytes = new Uint8Array(count * width);
    await read(first, count, bytes);
    // 0 is a number whose bytes are all 0, whatever its type.
    return Uint8Array.from({ length: count }, (_, row) => {
      for (let i = row * width; i < (row + 1) * width; i++) if (bytes[i] !== 0) return 1;
      return 0;
    });
  };
}

/** The rows that all of the masks say are there. */
function allOf(masks: readonly NonNullable<Source["mask"]>[]): NonNullable<Source["mask"]> {
  return async (first, count) => {
    const there = new Uint8Array(count).fill(1);
    for (const read of masks) for (const [i, flag] of (await read(first, count)).entries()) there[i]! &= flag;
    return there;
  };
}

/** Bytes of what a mask may be besides integers. */
const FLAG_BYTES: Readonly<Record<string, number | undefined>> = { bool: 1, f16: 2, bf16: 2, f32: 4, f64: 8 };

/** Little-endian integers as an array of their own kind. */
const INTEGERS: Readonly<
  Record<
    string,
    { readonly bytes: number; readonly view: (buffer: ArrayBuffer) => ArrayLike<number | bigint> } | undefined
  >
> = {
  i8: { bytes: 1, view: (buffer) => new Int8Array(buffer) },
  u8: { bytes: 1, view: (buffer) => new Uint8Array(buffer) },
  i16: { bytes: 2, view: (buffer) => new Int16Array(buffer) },
  u16: { bytes: 2, view: (buffer) => new Uint16Array(buffer) },
  i32: { bytes: 4, view: (buffer) => new Int32Array(buffer) },
  u32: { bytes: 4, view: (buffer) => new Uint32Array(buffer) },
  i64: { bytes: 8, view: (buffer) => new BigInt64Array(buffer) },
  u64: { bytes: 8, view: (buffer) => new BigUint64Array(buffer) },
};

function toInt32(values: ArrayLike<number | bigint>, where: string, first: number): Int32Array {
  if (values instanceof Int32Array) return values;
  const ids = new Int32Array(values.length);
  for (let i = 0; i < ids.length; i++) {
    const value = Number(values[i]);
    ids[i] = value;
    if (ids[i] !== value)
      throw new FormatError(`token id ${values[i]} is beyond 32 bits`, { where: `${where} ${first + i}` });
  }
  return ids;
}

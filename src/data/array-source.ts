/** What the sources of single files have in common: an array [sequences, positions, width] or [rows, width] seen as rows, and what stands beside it. */

import type { FileHandle } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { checkRoom, checkRows } from "../util/rows.ts";
import type { Origin, Source } from "./source.ts";

/** The array that holds the activations, and the one that holds the token ids beside it, in files that name their arrays. */
export const DEFAULT_DATASET = "hidden_states";
export const TOKENS = "tokens";
/** Arrays beside it that say which rows count: 0 for padding, and for what the program that wrote the file would not train on. */
export const MASKS = ["attention_mask", "mask"];

export interface ActivationArray
  extends Pick<Source, "dtype" | "grain" | "origin" | "read" | "tokens" | "mask" | "close"> {
  readonly path: string;
  /** Checked by `axesOf`. */
  readonly shape: readonly number[];
}

/** The array's rows as a Source. */
export function arraySource({ path, shape, dtype, grain, origin, read, tokens, mask, close }: ActivationArray): Source {
  const dIn = shape.at(-1) as number;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const sequence = shape.length === 3 ? (shape[1] as number) : undefined;
  return {
    description: `${path}: ${rows.toLocaleString("en-US")} x ${dIn} ${dtype}`,
    paths: [path],
    dIn,
    rows,
    dtype,
    sequence,
    grain,
    origin,
    read,
    tokens,
    ...(mask === undefined ? {} : { mask }),
    locate(row) {
      const place =
        sequence === undefined ? "" : ` (sequence ${Math.floor(row / sequence)}, position ${row % sequence})`;
      return `${path}, row ${row}${place}`;
    },
    close,
  };
}

/** How many of the array's axes number its rows. Throws FormatError when it has no rows, or not two or three axes. `name`: the array in words. */
export function axesOf(shape: readonly number[], name: string, where: string): 1 | 2 {
  if (shape.length !== 2 && shape.length !== 3) {
    throw new FormatError(`${name} has ${shape.length} axes`, {
      where,
      mend: "give activations of shape [sequences, positions, width] or [rows, width]",
    });
  }
  if (shape.includes(0)) throw new FormatError(`${name} has no rows`, { where, mend: "give a file with data" });
  return shape.length === 3 ? 2 : 1;
}

/** An array of a file that names its arrays. */
export interface NamedArray {
  readonly name: string;
  /** Its type and shape, as far as they are known. */
  readonly words: string;
  /** Whether it can be activations. */
  readonly likely: boolean;
}

/** The array that is meant: `name`, or else the first of `defaults` that is there, or the only likely one. Throws SaettaError that lists what there is; `noun`: what the file calls an array. */
export function chooseArray(
  all: readonly NamedArray[],
  name: string | undefined,
  defaults: readonly string[],
  noun: string,
  where: string,
): string {
  const there = (name === undefined ? defaults : [name]).find((each) => all.some((array) => array.name === each));
  if (there !== undefined) return there;
  const likely = all.filter((array) => array.likely);
  if (name === undefined && likely.length === 1) return likely[0]!.name;
  const shown = all.slice(0, 10).map(({ name: each, words }) => `${each.slice(0, 80)} (${words})`);
  const rest = all.length - shown.length;
  throw new SaettaError(
    `no ${noun} ${name ?? DEFAULT_DATASET}; the file has ${shown.join(", ") || "none"}${rest > 0 ? ` and ${rest} more` : ""}`,
    { where, mend: "name one with --dataset" },
  );
}

/** Whether an array of this shape can be activations. */
export const hasRows = (shape: readonly number[]): boolean => shape.length === 2 || shape.length === 3;

/** Reads rows of `rowBytes` that lie one after the other from byte `position` of a file on, off the event loop. */
export function plainRows(
  handle: FileHandle,
  path: string,
  position: number,
  rows: number,
  rowBytes: number,
): Source["read"] {
  return async (first, count, into) => {
    checkRows(first, count, rows);
    checkRoom(into, count, rowBytes);
    try {
      await readFully(handle, into.subarray(0, count * rowBytes), position + first * rowBytes, path);
    } catch (cause) {
      throw cause instanceof SaettaError
        ? cause
        : new SaettaError(`cannot be read (${messageOf(cause)})`, { where: path, cause });
    }
  };
}

/** What the attributes of a file say of its origin. */
export function originOf(attributes: ReadonlyMap<string, string | number>): Origin {
  const text = (name: string): string | undefined => {
    const value = attributes.get(name);
    return typeof value === "string" ? value : undefined;
  };
  const start = attributes.get("start_token");
  const all = {
    model: text("model"),
    modelSha256: text("model_sha256"),
    tensor: text("tensor"),
    tokenizer: text("tokenizer"),
    startToken: typeof start === "number" && Number.isInteger(start) ? start : undefined,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** An array of integers beside the activations. */
export interface IntegerArray {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Called once the shape is known to be right. */
  readonly open: () => Source["read"];
}

/** The ids of an array that must have one a row of `beside`. Throws FormatError when it has not. */
export function tokensOf(
  { name, dtype, shape, open }: IntegerArray,
  beside: { readonly name: string; readonly shape: readonly number[] },
  where: string,
): NonNullable<Source["tokens"]> {
  const want = beside.shape.slice(0, -1);
  const words = `${name} (${dtype} [${shape.join(", ")}])`;
  if (shape.length !== want.length || shape.some((size, i) => size !== want[i])) {
    throw new FormatError(`${words} must have shape [${want.join(", ")}], as ${beside.name} has`, { where });
  }
  const read = open();
  const integers = INTEGERS[dtype === "bool" && MASKS.some((mask) => name.endsWith(mask)) ? "u8" : dtype];
  if (integers === undefined) throw new FormatError(`${words} must hold integers`, { where });
  return async (first, count) => {
    const bytes = new Uint8Array(count * integers.bytes);
    await read(first, count, bytes);
    return toInt32(integers.view(bytes.buffer), `${where}, ${name}, row`, first);
  };
}

/** The rows that all of the arrays say are there; undefined without arrays. Each must have one number a row, as `tokensOf` checks. */
export function maskOf(
  arrays: readonly IntegerArray[],
  beside: { readonly name: string; readonly shape: readonly number[] },
  where: string,
): Source["mask"] {
  if (arrays.length === 0) return undefined;
  const readers = arrays.map((array) => tokensOf(array, beside, where));
  return async (first, count) => {
    const there = new Uint8Array(count).fill(1);
    for (const read of readers)
      for (const [i, value] of (await read(first, count)).entries()) if (value === 0) there[i] = 0;
    return there;
  };
}

/** The ids and the mask among the arrays of a file that names them; those of the group `folder` ("" or "group/"). */
export function rowsBeside(
  arrays: readonly IntegerArray[],
  beside: { readonly name: string; readonly shape: readonly number[] },
  where: string,
  folder = "",
): { readonly tokens: Source["tokens"]; readonly mask: Source["mask"] } {
  const named = (names: readonly string[]) => arrays.filter(({ name }) => names.some((one) => name === folder + one));
  const [tokens] = named([TOKENS]);
  return { tokens: tokens && tokensOf(tokens, beside, where), mask: maskOf(named(MASKS), beside, where) };
}

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

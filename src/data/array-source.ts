/**
 * What the sources of single files have in common: an array [sequences, positions, width] or [rows,
 * width] seen as rows, and what stands beside it.
 */

import type { FileHandle } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { FormatError, messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { counted } from "../util/format.ts";
import { placesAfterMove } from "../util/moved.ts";
import { checkRoom, checkRows } from "../util/rows.ts";
import { isBits, type RowBits } from "./row-type.ts";
import { isSideName } from "./side-arrays.ts";
import { isRowDType, type Origin, type Source } from "./source.ts";

/** What the user says of how files are to be read. */
export interface OpenOptions {
  /**
   * Name of the dataset (HDF5), tensor (safetensors, torch) or column (Arrow); default
   * `hidden_states`, or the file's only candidate.
   */
  readonly dataset?: string | undefined;
  /** The type of 2-byte elements. */
  readonly as?: RowBits | undefined;
  /** Which layer of an array [tokens, layers, width]; its tokens are one sequence. */
  readonly layer?: number | undefined;
}

/** The array that holds the activations, in files that name their arrays. */
export const DEFAULT_DATASET = "hidden_states";

export interface ActivationArray
  extends Pick<
    Source,
    "dtype" | "grain" | "origin" | "read" | "tokens" | "mask" | "notes" | "tokensProblem" | "close"
  > {
  readonly path: string;
  /** Checked by `axesOf`. */
  readonly shape: readonly number[];
  /** Whether all rows are one sequence. */
  readonly isSequence?: boolean;
}

/** The array's rows as a Source. */
export function arraySource({
  path,
  shape,
  dtype,
  grain,
  origin,
  read,
  tokens,
  mask,
  isSequence = false,
  ...rest
}: ActivationArray): Source {
  const dIn = shape.at(-1) as number;
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const sequence = isSequence ? rows : shape.length === 3 ? (shape[1] as number) : undefined;
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
    notes: rest.notes,
    tokensProblem: rest.tokensProblem,
    close: rest.close,
  };
}

/** A file of activations without any. */
export class NoRowsError extends FormatError {}

/**
 * How many of the array's axes number its rows. Throws FormatError when it has no rows, or not two
 * or three axes. `name`: the array in words.
 */
export function axesOf(shape: readonly number[], name: string, where: string): 1 | 2 {
  if (shape.length !== 2 && shape.length !== 3) {
    throw new FormatError(`${name} has ${counted(shape.length, "axis", "axes")}`, {
      where,
      mend: "give activations of shape [sequences, positions, width] or [rows, width]",
    });
  }
  if (shape.includes(0)) throw new NoRowsError(`${name} has no rows`, { where, mend: "give a file with data" });
  return shape.length === 3 ? 2 : 1;
}

/** An array that may have layers: its shape, and its rows as `plainRows` reads them. */
export interface LayeredArray extends Pick<ActivationArray, "shape" | "read"> {
  /** In words: "hidden_states (F16 [9, 4, 64])". */
  readonly words: string;
  readonly bytesPerElement: number;
  /** The ids of vLLM next to it, of which there is one per token and none per layer. */
  readonly tokenIds?: readonly number[] | undefined;
}

/**
 * The layer `asked` of an array [tokens, layers, width] as [tokens, width]; any other array as it
 * is. The only layer need not be asked for. Throws UsageError where the layer is not there, or the
 * array has several and none is named.
 */
export function layerOf(
  { shape, read, words, bytesPerElement, tokenIds }: LayeredArray,
  asked: number | undefined,
  where: string,
): Required<Pick<ActivationArray, "shape" | "read" | "isSequence">> {
  const [tokens = 0, layers = 0, width = 0] = shape;
  const hasLayers = shape.length === 3 && tokenIds?.length === 1 && tokenIds[0] === tokens;
  if (asked === undefined && !hasLayers) return { shape, read, isSequence: false };
  if (shape.length !== 3)
    throw new UsageError(`--layer needs [tokens, layers, width], but there is ${words}`, {
      where,
      mend: "leave it out",
    });
  const layer = asked ?? (layers === 1 ? 0 : undefined);
  if (layer === undefined || layer >= layers) {
    const range = layers === 1 ? "0" : `0 to ${layers - 1}`;
    throw new UsageError(`${words} has ${counted(layers, "layer")}`, { where, mend: `name one: --layer ${range}` });
  }
  const rowBytes = width * bytesPerElement;
  return {
    shape: [tokens, width],
    isSequence: true,
    async read(first, count, into, signal) {
      checkRows(first, count, tokens);
      checkRoom(into, count, rowBytes);
      const all = new Uint8Array(count * layers * rowBytes);
      await read(first * layers, count * layers, all, signal);
      for (let row = 0; row < count; row++) {
        const at = (row * layers + layer) * rowBytes;
        into.set(all.subarray(at, at + rowBytes), row * rowBytes);
      }
    },
  };
}

/** An array of a file that names its arrays. */
export interface NamedArray {
  readonly name: string;
  /** Its type and shape, as far as they are known. */
  readonly words: string;
  /** Whether it can be activations: floats, or 2-byte elements that may be the bits of them. */
  readonly likely: boolean | "bits";
}

/** Whether an array of this type and shape can be activations. */
export function likelihood(name: string, dtype: string | undefined, shape: readonly number[]): NamedArray["likely"] {
  if (shape.length !== 2 && shape.length !== 3) return false;
  if (isBits(dtype) && !isSideName(name.replace(/^.*[/.]/, ""))) return "bits";
  return isRowDType(dtype);
}

/**
 * The array that is meant: `name`, or else the first of `defaults` that is there, or the only
 * likely one. Throws SaettaError that lists what there is; `noun`: what the file calls an array.
 */
export function chooseArray(
  all: readonly NamedArray[],
  name: string | undefined,
  defaults: readonly string[],
  noun: string,
  where: string,
): string {
  const there = (name === undefined ? defaults : [name]).find((each) => all.some((array) => array.name === each));
  if (there !== undefined) return there;
  const floats = all.filter((array) => array.likely === true);
  const likely = floats.length > 0 ? floats : all.filter((array) => array.likely === "bits");
  if (name === undefined && likely.length === 1) return likely[0]!.name;
  const shown = all.slice(0, 10).map(({ name: each, words }) => `${each.slice(0, 80)} (${words})`);
  const rest = all.length - shown.length;
  throw new SaettaError(
    `no ${noun} ${name ?? DEFAULT_DATASET}; the file has ${shown.join(", ") || "none"}${rest > 0 ? ` and ${rest} more` : ""}`,
    { where, mend: "name one with --dataset" },
  );
}

/**
 * The groups around an array, from the inside out, each with the separator at its end: "a/b/c" ->
 * "a/b/", "a/", "".
 */
export function foldersAround(name: string, separator: "/" | "."): string[] {
  const parts = name.split(separator).slice(0, -1);
  return [...parts, ""].map((_, i) => {
    const kept = parts.slice(0, parts.length - i);
    return kept.length === 0 ? "" : kept.join(separator) + separator;
  });
}

/**
 * Reads rows of `rowBytes` that lie one after the other from byte `position` of a file on, off the
 * event loop.
 */
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

/** What the attributes of the file `path` say of its origin. */
export function originOf(attributes: ReadonlyMap<string, string | number>, path: string): Origin {
  const text = (name: string): string | undefined => {
    const value = attributes.get(name);
    return typeof value === "string" ? value : undefined;
  };
  const places = (name: string): string[] | undefined => {
    const recorded = text(name);
    return recorded === undefined ? undefined : placesAfterMove(path, recorded, text(`${name}_relative`));
  };
  const start = attributes.get("start_token");
  const all = {
    model: text("model"),
    modelSha256: text("model_sha256"),
    tensor: text("tensor"),
    tokenizer: text("tokenizer"),
    modelPlaces: places("model"),
    tokenizerPlaces: places("tokenizer"),
    startToken: typeof start === "number" && Number.isInteger(start) ? start : undefined,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** `saetta encode`: an autoencoder and rows in, a file of sparse codes out. */

import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { NonFinite } from "../data/batches.ts";
import { atMost, type Chunk, rowsOf } from "../data/chunks.ts";
import { countRows, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import { NONE } from "../engine/engine.ts";
import { stopIf } from "../util/aborted.ts";
import { SaettaError } from "../util/errors.ts";
import { makeFolders } from "../util/folders.ts";
import { VERSION } from "../util/version.ts";
import { CodesWriter, type CsrRows, codesFormatOf, type RowColumns } from "./codes-file.ts";
import { refuseWidth } from "./refuse-width.ts";
import type { Sae, SparseCodes } from "./sae.ts";

export interface EncodeOptions {
  /** The file to write: .npz, .h5 or .safetensors, laid out as `codes-file.ts` says. */
  readonly out: string;
  /** Replaces a file that is there. Default: that is an error. */
  readonly force?: boolean | undefined;
  /** The rows to encode, in this order; default: all. */
  readonly ranges?: readonly Range[] | undefined;
  /** At most so many of them, evenly spread. */
  readonly maxRows?: number | undefined;
  /** What a row does that is not finite; default: it is an error. */
  readonly nonFinite?: NonFinite | undefined;
  /** Aborted: nothing is written, and the promise is rejected. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface EncodeResult {
  readonly out: string;
  readonly rows: number;
  /** Rows of the data that are not in the file: outside the ranges, over `maxRows`, not finite. */
  readonly leftOut: number;
  readonly latents: number;
  readonly codes: number;
  /** Codes per row. */
  readonly l0: number;
  /** Whether the file has the token ids of the rows. */
  readonly tokens: boolean;
  /** Whether it has their positions in the sequence. */
  readonly positions: boolean;
}

/**
 * Writes the codes of rows of `source` to a file, which is there whole or not at all. Memory does
 * not grow with the number of rows. Throws UsageError for a name that says no format, SaettaError
 * where the widths differ, there are no rows, the file exists or cannot be written.
 */
export async function encode(sae: Sae, source: Source, options: EncodeOptions): Promise<EncodeResult> {
  const { out, nonFinite = "stop", signal, onProgress } = options;
  await checkOut(options);
  refuseWidth(sae, source);
  const { ranges = [{ first: 0, count: source.rows }], maxRows = Number.POSITIVE_INFINITY } = options;
  const chosen = atMost(ranges, maxRows);
  const total = countRows(chosen);
  const writer = new CodesWriter(out, sae.dims.n);
  try {
    await makeFolders(dirname(resolve(out)));
    const put = async ({ chunk, codes }: Encoding) => {
      await writer.add(csrOf(await codes, chunk.rows), await columnsOf(source, chunk, await codes));
      onProgress?.(writer.rows, total);
    };
    // The codes of a chunk are written while the next one is encoded.
    let before: Encoding | undefined;
    for await (const chunk of rowsOf(source, chosen, sae.chunks(nonFinite))) {
      stopIf(signal, out);
      const codes = sae.encodeRaw(chunk.raw, source.dtype, chunk.rows, chunk.refuse);
      codes.catch(() => undefined); // `put` throws it
      if (before !== undefined) await put(before);
      before = { chunk, codes };
    }
    if (before === undefined) throw new SaettaError("there are no rows to encode", { where: source.paths.join(", ") });
    await put(before);
    stopIf(signal, out);
    await writer.finish(aboutOf(sae, source));
  } finally {
    await writer.close();
  }
  return {
    out,
    rows: writer.rows,
    leftOut: source.rows - writer.rows,
    latents: sae.dims.n,
    codes: writer.codes,
    l0: writer.codes / writer.rows,
    tokens: source.tokens !== undefined,
    positions: source.sequence !== undefined,
  };
}

/**
 * Throws UsageError where the name of the file says no format, SaettaError where a file is there
 * that may not be replaced.
 */
export async function checkOut({ out, force = false }: Pick<EncodeOptions, "out" | "force">): Promise<void> {
  codesFormatOf(out);
  if (!force && (await stat(out).catch(() => undefined)) !== undefined)
    throw new SaettaError("exists already", { where: out, mend: "choose another name, or replace it with --force" });
}

interface Encoding {
  readonly chunk: Chunk;
  readonly codes: Promise<SparseCodes>;
}

/** Codes without the unused slots, in ascending order of the latents. */
export function csrOf({ k, latent, value }: SparseCodes, rows: number): CsrRows {
  const starts = new Float64Array(rows + 1);
  let codes = 0;
  for (let row = 0; row < rows; row++) {
    for (let slot = row * k; slot < (row + 1) * k && latent[slot] !== NONE; slot++) if (value[slot] !== 0) codes++;
    starts[row + 1] = codes;
  }
  const data = new Float32Array(codes);
  const indices = new Int32Array(codes);
  const order = new Float64Array(k);
  for (let row = 0; row < rows; row++) {
    let at = starts[row]!;
    let ascending = true;
    for (let slot = row * k; at < starts[row + 1]!; slot++) {
      if (value[slot] === 0) continue;
      indices[at] = latent[slot]!;
      data[at] = value[slot]!;
      ascending &&= at === starts[row] || indices[at - 1]! < indices[at]!;
      at++;
    }
    if (!ascending) sortRow(indices.subarray(starts[row], at), data.subarray(starts[row], at), order);
  }
  return { starts, data, indices };
}

/** Places of a row's codes, at most. */
const PLACES = 2 ** 21;

/** Sorts one row's codes by latent. `order`: room for as many numbers. */
function sortRow(indices: Int32Array, data: Float32Array, order: Float64Array): void {
  const values = data.slice();
  const keys = order.subarray(0, indices.length);
  for (const [place, latent] of indices.entries()) keys[place] = latent * PLACES + place;
  keys.sort();
  for (const [at, key] of keys.entries()) {
    indices[at] = Math.floor(key / PLACES);
    data[at] = values[key % PLACES]!;
  }
}

async function columnsOf(source: Source, { numbers }: Chunk, { rows }: SparseCodes): Promise<RowColumns> {
  const { sequence } = source;
  return {
    row_numbers: BigInt64Array.from(numbers, BigInt),
    tokens: source.tokens && (await tokensOf(source.tokens, numbers)),
    positions: sequence === undefined ? undefined : Int32Array.from(numbers, (row) => row % sequence),
    row_mean: rows?.mean,
    row_size: rows?.size,
  };
}

/** Rows left out between two that are wanted; larger gaps are not read. */
const SMALL_GAP = 256;

async function tokensOf(read: NonNullable<Source["tokens"]>, numbers: Float64Array): Promise<Int32Array> {
  const tokens = new Int32Array(numbers.length);
  for (let begin = 0; begin < numbers.length; ) {
    const first = numbers[begin]!;
    let end = begin + 1;
    const isNear = (gap: number) => gap > 0 && gap <= SMALL_GAP;
    while (end < numbers.length && isNear(numbers[end]! - numbers[end - 1]!)) end++;
    const span = await read(first, numbers[end - 1]! - first + 1);
    for (; begin < end; begin++) tokens[begin] = span[numbers[begin]! - first]!;
  }
  return tokens;
}

function aboutOf(sae: Sae, { description, origin }: Source): Record<string, string> {
  const known = { model: origin.model, tensor: origin.tensor, tokenizer: origin.tokenizer };
  const about = { autoencoder: sae.path, weights: sae.weights, data: description, ...known, saetta: VERSION };
  return Object.fromEntries(
    Object.entries(about).filter((each): each is [string, string] => each[1] !== undefined && each[1] !== ""),
  );
}

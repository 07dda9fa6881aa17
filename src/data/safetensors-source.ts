/**
 * Activations of one safetensors file as a Source: the float tensor `[n_seq, T, d]` or `[n, d]`
 * that is meant, with the ids of a tensor `tokens` beside it, and the origin from the metadata
 * (model, model_sha256, tensor, tokenizer, start_token; all are strings there).
 */

import {
  openSafetensors,
  SAFETENSORS_DTYPES,
  type Safetensors,
  type SafetensorsEntry,
} from "../formats/safetensors.ts";
import { bytesOf, float32Of } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { checkRoom } from "../util/rows.ts";
import {
  arraySource,
  axesOf,
  chooseArray,
  DEFAULT_DATASET,
  foldersAround,
  layerOf,
  likelihood,
  type OpenOptions,
  originOf,
  plainRows,
} from "./array-source.ts";
import { decodeInt8, SCALES } from "./int8-rows.ts";
import { CHUNK_DATASET, chunkOrigin } from "./llamascopium.ts";
import { rowType } from "./row-type.ts";
import { rowsBeside, TOKEN_IDS } from "./side-arrays.ts";
import type { Origin, Source } from "./source.ts";

/**
 * Opens the tensor `dataset`, or `hidden_states`, or `activation`, or else the only one that could
 * be meant. Throws SaettaError or FormatError naming the file.
 */
export async function openSafetensorsSource(path: string, { dataset, as, layer }: OpenOptions = {}): Promise<Source> {
  const file = await openSafetensors(path);
  return closedOnFailure(file, async () => {
    const name = choose(file, dataset);
    return sourceOf(file, name, name === CHUNK_DATASET ? await chunkOrigin(path) : {}, { as, layer });
  });
}

function choose({ path, tensors }: Safetensors, name: string | undefined): string {
  const all = [...tensors].map(([each, { dtype, shape }]) => ({
    name: each,
    words: `${dtype} [${shape.join(", ")}]`,
    likely: likelihood(each, dtype.toLowerCase(), shape),
  }));
  return chooseArray(all, name, [DEFAULT_DATASET, CHUNK_DATASET], "tensor", path);
}

async function sourceOf(
  file: Safetensors,
  name: string,
  chunk: Origin,
  { as, layer }: Pick<OpenOptions, "as" | "layer">,
): Promise<Source> {
  const { path, tensors } = file;
  const entry = tensors.get(name) as SafetensorsEntry;
  const words = inWords(name, entry);
  axesOf(entry.shape, words, path);
  const width = entry.shape.at(-1) as number;
  const { shape, read, isSequence } = layerOf(
    {
      shape: entry.shape,
      read: readerOf(file, entry, width),
      words,
      bytesPerElement: SAFETENSORS_DTYPES[entry.dtype],
      tokenIds: tensors.get(TOKEN_IDS)?.shape,
    },
    layer,
    path,
  );
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const refusal = `${words} does not hold F16, BF16, F32 or F64`;
  const scaled = isSequence ? undefined : scaledReader(file, name, entry, read);
  const typed =
    scaled === undefined
      ? await rowType({ words, dtype: entry.dtype.toLowerCase(), refusal, rows, width, read }, as, path)
      : ({ dtype: "f32", notes: [] } as const);
  const others = [...tensors].map(([each, it]) => ({
    name: each,
    dtype: it.dtype.toLowerCase(),
    shape: it.shape,
    open: () => readerOf(file, it, 1),
  }));
  const beside = rowsBeside(others, { name, shape }, path, foldersAround(name, "."));
  return arraySource({
    path,
    shape,
    isSequence,
    dtype: typed.dtype,
    grain: 1,
    origin: { ...chunk, ...originOf(attributesOf(file), path) },
    read: scaled ?? read,
    ...beside,
    notes: [...typed.notes, ...beside.notes],
    close: () => file.close(),
  });
}

function readerOf(
  { handle, path }: Safetensors,
  { dtype, shape, begin }: SafetensorsEntry,
  width: number,
): Source["read"] {
  const elements = shape.reduce((product, size) => product * size, 1);
  return plainRows(handle, path, begin, elements / width, width * SAFETENSORS_DTYPES[dtype]);
}

/**
 * The rows as f32, where they are int8 with scales next to them: a float32 per row. undefined for
 * any others.
 */
function scaledReader(
  file: Safetensors,
  name: string,
  { dtype, shape }: SafetensorsEntry,
  read: Source["read"],
): Source["read"] | undefined {
  const entry = file.tensors.get(name.replace(/[^.]*$/, SCALES));
  const fits = entry?.dtype === "F32" && entry.shape.join() === shape.slice(0, -1).join();
  if (dtype !== "I8" || entry === undefined || !fits) return undefined;
  const width = shape.at(-1) as number;
  const readScales = readerOf(file, entry, 1);
  return async (first, count, into) => {
    const [values, scales] = [new Int8Array(count * width), new Float32Array(count)];
    await Promise.all([read(first, count, bytesOf(values)), readScales(first, count, bytesOf(scales))]);
    checkRoom(into, count, 4 * width);
    const numbers = float32Of(into.subarray(0, 4 * count * width));
    decodeInt8(values, width, scales, numbers);
    if (numbers.buffer !== into.buffer) into.set(bytesOf(numbers)); // where it began between numbers
  };
}

/** The metadata, with a start token of digits as the number that it is. */
function attributesOf({ metadata }: Safetensors): ReadonlyMap<string, string | number> {
  const start = metadata.get("start_token");
  return new Map<string, string | number>(metadata).set(
    "start_token",
    start !== undefined && /^\d{1,10}$/.test(start) ? Number(start) : "",
  );
}

function inWords(name: string, { dtype, shape }: SafetensorsEntry): string {
  return `${name} (${dtype} [${shape.join(", ")}])`;
}

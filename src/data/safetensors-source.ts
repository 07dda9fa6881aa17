/**
 * Activations of one safetensors file as a Source: the float tensor `[n_seq, T, d]` or `[n, d]` that is meant, with the ids of a tensor `tokens` beside it, and
 * the origin from the metadata (model, model_sha256, tensor, tokenizer, start_token; all are strings there).
 */

import {
  openSafetensors,
  SAFETENSORS_DTYPES,
  type Safetensors,
  type SafetensorsEntry,
} from "../formats/safetensors.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import {
  arraySource,
  axesOf,
  chooseArray,
  DEFAULT_DATASET,
  hasRows,
  originOf,
  plainRows,
  rowsBeside,
} from "./array-source.ts";
import { CHUNK_DATASET, chunkOrigin } from "./llamascopium.ts";
import type { Origin, RowDType, Source } from "./source.ts";

const FLOATS: Readonly<Record<string, RowDType | undefined>> = { F16: "f16", BF16: "bf16", F32: "f32", F64: "f64" };

/** Opens the tensor `dataset`, or `hidden_states`, or `activation`, or else the only one that could be meant. Throws SaettaError or FormatError naming the file. */
export async function openSafetensorsSource(path: string, dataset?: string): Promise<Source> {
  const file = await openSafetensors(path);
  return closedOnFailure(file, async () => {
    const name = choose(file, dataset);
    return sourceOf(file, name, name === CHUNK_DATASET ? await chunkOrigin(path) : {});
  });
}

function choose({ path, tensors }: Safetensors, name: string | undefined): string {
  const all = [...tensors].map(([each, { dtype, shape }]) => ({
    name: each,
    words: `${dtype} [${shape.join(", ")}]`,
    likely: FLOATS[dtype] !== undefined && hasRows(shape),
  }));
  return chooseArray(all, name, [DEFAULT_DATASET, CHUNK_DATASET], "tensor", path);
}

function sourceOf(file: Safetensors, name: string, beside: Origin): Source {
  const { path, tensors } = file;
  const entry = tensors.get(name) as SafetensorsEntry;
  const { shape } = entry;
  axesOf(shape, inWords(name, entry), path);
  const dtype = FLOATS[entry.dtype];
  if (dtype === undefined) {
    throw new FormatError(`${inWords(name, entry)} does not hold F16, BF16, F32 or F64`, {
      where: path,
      mend: "name the activations with --dataset",
    });
  }
  const others = [...tensors].map(([each, it]) => ({
    name: each,
    dtype: it.dtype.toLowerCase(),
    shape: it.shape,
    open: () => readerOf(file, it, 1),
  }));
  return arraySource({
    path,
    shape,
    dtype,
    grain: 1,
    origin: { ...beside, ...originOf(attributesOf(file)) },
    read: readerOf(file, entry, shape.at(-1) as number),
    ...rowsBeside(others, { name, shape }, path),
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

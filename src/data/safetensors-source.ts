/**
 * Activations of one safetensors file as a Source: the float tensor `[n_seq, T, d]` or `[n, d]` that is meant, with the ids of a tensor `tokens` beside it, and
 * the origin from the metadata (model, model_sha256, tensor, tokenizer, start_token; all are strings there).
 */

import { openSafetensors, SAFETENSORS_DTYPES, type Safetensors, type SafetensorsEntry } from "../formats/safetensors.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { arraySource, axesOf, DEFAULT_DATASET, originOf, plainRows, TOKENS, tokensOf } from "./array-source.ts";
import type { RowDType, Source } from "./source.ts";

const FLOATS: Readonly<Record<string, RowDType | undefined>> = { F16: "f16", BF16: "bf16", F32: "f32", F64: "f64" };

/** Opens the tensor `dataset`, or `hidden_states`, or else the only one that could be meant. Throws SaettaError or FormatError naming the file. */
export async function openSafetensorsSource(path: string, dataset?: string): Promise<Source> {
  const file = await openSafetensors(path);
  try {
    return sourceOf(file, choose(file, dataset));
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
}

function choose({ path, tensors }: Safetensors, name: string | undefined): string {
  if (tensors.has(name ?? DEFAULT_DATASET)) return name ?? DEFAULT_DATASET;
  const likely = [...tensors].filter(([, { dtype, shape }]) => FLOATS[dtype] !== undefined && (shape.length === 2 || shape.length === 3));
  const only = likely[0];
  if (name === undefined && only !== undefined && likely.length === 1) return only[0];
  const all = [...tensors].slice(0, 10).map(([each, entry]) => inWords(each, entry));
  const rest = tensors.size - all.length;
  throw new SaettaError(
    `no tensor ${name ?? DEFAULT_DATASET}; the file has ${all.join(", ") || "none"}${rest > 0 ? ` and ${rest} more` : ""}`,
    { where: path, mend: "name one with --dataset" },
  );
}

function sourceOf(file: Safetensors, name: string): Source {
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
  const tokens = tensors.get(TOKENS);
  const beside = { name: TOKENS, dtype: tokens?.dtype.toLowerCase() ?? "", shape: tokens?.shape ?? [] };
  return arraySource({
    path,
    shape,
    dtype,
    grain: 1,
    origin: originOf(attributesOf(file)),
    read: readerOf(file, entry, shape.at(-1) as number),
    tokens: tokens && tokensOf({ ...beside, open: () => readerOf(file, tokens, 1) }, { name, shape }, path),
    close: () => file.close(),
  });
}

function readerOf({ handle, path }: Safetensors, { dtype, shape, begin }: SafetensorsEntry, width: number): Source["read"] {
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

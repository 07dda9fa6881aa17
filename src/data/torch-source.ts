/**
 * Activations of one file of torch.save as a Source: a tensor [n_seq, T, d] or [n, d], or a list of
 * them, alone, or the one of a dict that is meant (hidden_states, activation, or the only one),
 * with the ids, and masks, that a dict has next to it.
 */

import { openTorch, type TorchFile } from "../formats/torch-read.ts";
import type { TorchTensor } from "../formats/torch-tensor.ts";
import { ALONE, arraysOf, type TorchArray } from "../formats/torch-tree.ts";
import { BYTES } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import {
  arraySource,
  axesOf,
  chooseArray,
  DEFAULT_DATASET,
  foldersAround,
  layerOf,
  likelihood,
  NoRowsError,
  type OpenOptions,
  plainRows,
} from "./array-source.ts";
import { rowReader } from "./concat.ts";
import { CHUNK_DATASET, chunkOrigin } from "./llamascopium.ts";
import { rowType } from "./row-type.ts";
import { rowsBeside, TOKEN_IDS } from "./side-arrays.ts";
import type { Source } from "./source.ts";

/**
 * Opens the tensor `dataset` of a dict, or the one that is meant. Throws SaettaError or FormatError
 * naming the file.
 */
export async function openTorchSource(path: string, { dataset, ...options }: OpenOptions = {}): Promise<Source> {
  const file = await openTorch(path);
  return closedOnFailure(file, () => sourceOf(file, dataset, options));
}

async function sourceOf(
  file: TorchFile,
  dataset: string | undefined,
  { as, layer }: Omit<OpenOptions, "dataset">,
): Promise<Source> {
  const { path, root } = file;
  if (Array.isArray(root) && root.length === 0)
    throw new NoRowsError("holds an empty list", { where: path, mend: "give a file with data" });
  const arrays = arraysOf(root);
  if (arrays.size === 0) throw new FormatError("holds neither a tensor nor a dict or list of tensors", { where: path });
  const name = choose(arrays, dataset, path);
  const array = arrays.get(name)!;
  const { tensors } = array;
  const words = inWords(name, array);
  axesOf(array.shape, words, path);
  const width = array.shape.at(-1)!;
  const { shape, read, isSequence } = layerOf(
    {
      shape: array.shape,
      read: readerOf(file, name, array, width),
      words,
      bytesPerElement: BYTES[tensors[0]!.dtype],
      tokenIds: arrays.get(TOKEN_IDS)?.shape,
    },
    layer,
    path,
  );
  const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
  const refusal = `${words} does not hold f16, bf16, f32 or f64`;
  const typed = await rowType({ words, dtype: array.dtype, refusal, rows, width, read }, as, path);
  const others = [...arrays].map(([each, it]) => ({
    name: each,
    dtype: it.dtype,
    shape: it.shape,
    open: () => readerOf(file, each, it, 1),
  }));
  const beside = rowsBeside(others, { name, shape }, path, foldersAround(name, "."));
  const joined =
    tensors.length > 1 ? [`${path}: ${words} is a list of ${tensors.length} tensors, read one after another`] : [];
  return arraySource({
    path,
    shape,
    isSequence,
    dtype: typed.dtype,
    grain: 1,
    origin: name === CHUNK_DATASET ? await chunkOrigin(path) : {},
    read,
    ...beside,
    notes: [...joined, ...typed.notes, ...beside.notes],
    close: () => file.close(),
  });
}

function choose(arrays: ReadonlyMap<string, TorchArray>, name: string | undefined, where: string): string {
  const all = [...arrays].map(([each, { dtype, shape, inList }]) => ({
    name: each,
    words: `${dtype} [${shape.join(", ")}]`,
    likely: !inList && likelihood(each, dtype, shape),
  }));
  return chooseArray(all, name, [ALONE, DEFAULT_DATASET, CHUNK_DATASET], "tensor", where);
}

function readerOf(file: TorchFile, name: string, { tensors }: TorchArray, width: number): Source["read"] {
  const parts = tensors.map((tensor) => ({
    rows: tensor.elements / width,
    read: tensorReader(file, name, tensor, width),
  }));
  return rowReader(parts, width * BYTES[tensors[0]!.dtype]);
}

function tensorReader(file: TorchFile, name: string, tensor: TorchTensor, width: number): Source["read"] {
  const position = file.position(tensor);
  if (position !== undefined)
    return plainRows(file.handle, file.path, position, tensor.elements / width, width * BYTES[tensor.dtype]);
  throw new FormatError(`${inWords(name, tensor)} does not lie row by row in the file`, {
    where: file.path,
    mend: "save it contiguous: tensor.contiguous()",
  });
}

function inWords(name: string, { dtype, shape }: Pick<TorchArray, "dtype" | "shape">): string {
  return `${name === ALONE ? "the tensor" : name} (${dtype} [${shape.join(", ")}])`;
}

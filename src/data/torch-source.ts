/**
 * Activations of one file of torch.save as a Source: a tensor [n_seq, T, d] or [n, d] alone, or the one of a dict that is meant (hidden_states, activation, or the only one), with the ids,
 * and masks, that a dict has beside it.
 */

import { itemsOf, openTorch, type TorchFile } from "../formats/torch-read.ts";
import { TORCH_BYTES, TorchTensor } from "../formats/torch-tensor.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { arraySource, axesOf, chooseArray, DEFAULT_DATASET, hasRows, plainRows, rowsBeside } from "./array-source.ts";
import { CHUNK_DATASET, chunkOrigin } from "./llamascopium.ts";
import { isRowDType, type Source } from "./source.ts";

/** Opens the tensor `dataset` of a dict, or the one that is meant. Throws SaettaError or FormatError naming the file. */
export async function openTorchSource(path: string, dataset?: string): Promise<Source> {
  const file = await openTorch(path);
  return closedOnFailure(file, () => sourceOf(file, tensorsOf(file), dataset));
}

/** A tensor that stands alone has no name. */
const ALONE = "";

function tensorsOf({ root, path }: TorchFile): ReadonlyMap<string, TorchTensor> {
  if (root instanceof TorchTensor) return new Map([[ALONE, root]]);
  const items = itemsOf(root);
  if (items === undefined) throw new FormatError("holds neither a tensor nor a dict of names", { where: path });
  return new Map([...items].filter((item): item is [string, TorchTensor] => item[1] instanceof TorchTensor));
}

async function sourceOf(
  file: TorchFile,
  tensors: ReadonlyMap<string, TorchTensor>,
  dataset: string | undefined,
): Promise<Source> {
  const { path } = file;
  const name = choose(tensors, dataset, path);
  const tensor = tensors.get(name)!;
  const { shape, dtype } = tensor;
  axesOf(shape, inWords(name, tensor), path);
  if (!isRowDType(dtype)) {
    throw new FormatError(`${inWords(name, tensor)} does not hold f16, bf16, f32 or f64`, {
      where: path,
      mend: "name the activations with --dataset",
    });
  }
  const others = [...tensors].map(([each, it]) => ({
    name: each,
    dtype: it.dtype,
    shape: it.shape,
    open: () => readerOf(file, each, it, 1),
  }));
  return arraySource({
    path,
    shape,
    dtype,
    grain: 1,
    origin: name === CHUNK_DATASET ? await chunkOrigin(path) : {},
    read: readerOf(file, name, tensor, shape.at(-1)!),
    ...rowsBeside(others, { name, shape }, path),
    close: () => file.close(),
  });
}

function choose(tensors: ReadonlyMap<string, TorchTensor>, name: string | undefined, where: string): string {
  const all = [...tensors].map(([each, { dtype, shape }]) => ({
    name: each,
    words: `${dtype} [${shape.join(", ")}]`,
    likely: isRowDType(dtype) && hasRows(shape),
  }));
  return chooseArray(all, name, [ALONE, DEFAULT_DATASET, CHUNK_DATASET], "tensor", where);
}

function readerOf(file: TorchFile, name: string, tensor: TorchTensor, width: number): Source["read"] {
  const position = file.position(tensor);
  if (position !== undefined)
    return plainRows(file.handle, file.path, position, tensor.elements / width, width * TORCH_BYTES[tensor.dtype]);
  throw new FormatError(`${inWords(name, tensor)} does not lie row by row in the file`, {
    where: file.path,
    mend: "save it contiguous: tensor.contiguous()",
  });
}

function inWords(name: string, { dtype, shape }: TorchTensor): string {
  return `${name === ALONE ? "the tensor" : name} (${dtype} [${shape.join(", ")}])`;
}

/**
 * The four arrays as programs of PyTorch keep them in a dict: two linear layers, the encoder's
 * weight [n,d] and the decoder's [d,n], and two biases. Their names are the format's.
 */

import type { TorchValue } from "../formats/torch-pickle.ts";
import { itemsOf, openTorch, type TorchFile } from "../formats/torch-read.ts";
import type { TorchPart } from "../formats/torch-write.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import type { Exchanged, Floats, Rules, Weight } from "./format.ts";
import { rulesOf } from "./rules.ts";
import { as, matrixShape, torchFloats, torchTensor, transposed } from "./tensors.ts";

/** What each of our weights is called. */
export type TorchNames = { readonly [W in Weight]: string };

export interface TorchArrays {
  readonly file: TorchFile;
  readonly items: ReadonlyMap<string, TorchValue>;
  readonly d: number;
  readonly n: number;
  /** As the file has it. */
  get(weight: Weight): Promise<Floats>;
  /** As ours: the decoder [n,d]. */
  read(weight: Weight): Promise<Floats>;
}

/** Opens the file; its encoder says how large all are. Closes it when `then` throws. */
export async function withArrays<T>(
  path: string,
  names: TorchNames,
  then: (arrays: TorchArrays) => Promise<T>,
): Promise<T> {
  const file = await openTorch(path);
  return closedOnFailure(file, async () => {
    const items = itemsOf(file.root);
    if (items === undefined) throw new FormatError("holds no dict of names", { where: path });
    const { shape } = torchTensor(names.encoder, items.get(names.encoder), path);
    const [n, d] = matrixShape(names.encoder, shape, path);
    const shapes: { readonly [W in Weight]: readonly number[] } = {
      encoder: [n, d],
      latentBias: [n],
      decoder: [d, n],
      preBias: [d],
    };
    const get = (weight: Weight) =>
      torchFloats(file, names[weight], items.get(names[weight]), shapes[weight], names.encoder);
    const read = async (weight: Weight) => (weight === "decoder" ? transposed(await get(weight), d, n) : get(weight));
    return await then({ file, items, d, n, get, read });
  });
}

/** The parts of a file that are the autoencoder's arrays. */
export function arrayParts(
  { description, read }: Exchanged,
  dtype: "f32" | "f64",
  names: TorchNames,
): Readonly<Record<string, TorchPart>> {
  const { dIn: d, n } = description.dims;
  const part = (weight: Weight, shape: readonly number[], strides?: readonly number[]) => ({
    [names[weight]]: { dtype, shape, ...(strides && { strides }), bytes: async () => as(dtype, await read(weight)) },
  });
  return {
    ...part("preBias", [d]),
    ...part("latentBias", [n]),
    ...part("encoder", [n, d]),
    ...part("decoder", [d, n], [1, d]), // our rows are its columns, as they lie
  };
}

/** The file evaluated as two linear layers, and closed. */
export async function rulesOfArrays(
  { file, d, n, get }: TorchArrays,
  k: number,
  { layerNorm, subtract }: { readonly layerNorm: boolean; readonly subtract: boolean },
): Promise<Rules> {
  const [encoder, encoderBias] = [await get("encoder"), await get("latentBias")];
  const [decoder, decoderBias] = [await get("decoder"), await get("preBias")];
  await file.close();
  return rulesOf({
    ...{ d, n, k, layerNorm, encoderBias, decoderBias, subtract, byNorm: false },
    encoder: (i, j) => encoder[j * d + i]!,
    decoder: (i, j) => decoder[i * n + j]!,
  });
}

/**
 * The arrays that every autoencoder has, as programs of PyTorch keep them in a dict: two matrices
 * and two biases. Their names, and which of the matrices is transposed, are the format's.
 */

import type { TorchValue } from "../formats/torch-pickle.ts";
import { itemsOf, openTorch, type TorchFile } from "../formats/torch-read.ts";
import type { TorchPart } from "../formats/torch-write.ts";
import type { CoreParam } from "../sae/params.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import type { Exchanged, Floats, Rules } from "./format.ts";
import { type RulesOf, rulesOf } from "./rules.ts";
import { as, matrixShape, torchFloats, torchTensor, transposed } from "./tensors.ts";

export interface TorchLayout {
  /** What each of our parameters is called. */
  readonly names: { readonly [W in CoreParam]: string };
  /** Those that the file holds transposed: encoder [d,n], decoder [d,n]. */
  readonly transposed: readonly ("encoder" | "decoder")[];
}

export interface TorchArrays {
  readonly file: TorchFile;
  readonly items: ReadonlyMap<string, TorchValue>;
  readonly layout: TorchLayout;
  readonly d: number;
  readonly n: number;
  /** As the file has it. */
  get(name: CoreParam): Promise<Floats>;
  /** As ours: encoder and decoder [n,d]. */
  read(name: CoreParam): Promise<Floats>;
}

/**
 * Opens the file; `layoutOf` says how it is laid out, and its encoder how large all are. Closes it
 * when `then` throws.
 */
export async function withArrays<T>(
  path: string,
  layoutOf: (items: ReadonlyMap<string, TorchValue>) => TorchLayout,
  then: (arrays: TorchArrays) => Promise<T>,
): Promise<T> {
  const file = await openTorch(path);
  return closedOnFailure(file, async () => {
    const items = itemsOf(file.root);
    if (items === undefined) throw new FormatError("holds no dict of names", { where: path });
    const layout = layoutOf(items);
    const { names } = layout;
    const isTransposed = (name: CoreParam) => (layout.transposed as readonly CoreParam[]).includes(name);
    const { shape } = torchTensor(names.encoder, items.get(names.encoder), path);
    const [rows, columns] = matrixShape(names.encoder, shape, path);
    const [n, d] = isTransposed("encoder") ? [columns, rows] : [rows, columns];
    const shapeOf = (name: CoreParam): readonly number[] => {
      if (name === "latentBias") return [n];
      if (name === "preBias") return [d];
      return isTransposed(name) ? [d, n] : [n, d];
    };
    const get = (name: CoreParam) =>
      torchFloats(file, names[name], items.get(names[name]), shapeOf(name), names.encoder);
    const read = async (name: CoreParam) => (isTransposed(name) ? transposed(await get(name), d, n) : get(name));
    return await then({ file, items, layout, d, n, get, read });
  });
}

/** The parts of a file that are the autoencoder's arrays. */
export function arrayParts(
  { description, read }: Pick<Exchanged, "description" | "read">,
  dtype: "f32" | "f64",
  layout: TorchLayout,
): Readonly<Record<string, TorchPart>> {
  const { dIn: d, n } = description.dims;
  const bytes = (name: CoreParam) => async () => as(dtype, await read(name));
  const bias = (name: CoreParam, length: number): TorchPart => ({ dtype, shape: [length], bytes: bytes(name) });
  // Where the file's matrix is transposed our rows are its columns, as they lie.
  const matrix = (name: "encoder" | "decoder"): TorchPart => ({
    dtype,
    ...(layout.transposed.includes(name) ? { shape: [d, n], strides: [1, d] } : { shape: [n, d] }),
    bytes: bytes(name),
  });
  const { names } = layout;
  return {
    [names.preBias]: bias("preBias", d),
    [names.latentBias]: bias("latentBias", n),
    [names.encoder]: matrix("encoder"),
    [names.decoder]: matrix("decoder"),
  };
}

/** The file evaluated as two linear layers, and closed. */
export async function rulesOfArrays(
  { file, layout, d, n, get }: TorchArrays,
  flags: Pick<RulesOf, "selects" | "subtract" | "layerNorm" | "byNorm">,
): Promise<Rules> {
  const [encoder, encoderBias] = [await get("encoder"), await get("latentBias")];
  const [decoder, decoderBias] = [await get("decoder"), await get("preBias")];
  await file.close();
  const at = (matrix: Floats, name: "encoder" | "decoder") =>
    layout.transposed.includes(name)
      ? (i: number, j: number) => matrix[i * n + j]!
      : (i: number, j: number) => matrix[j * d + i]!;
  const weights = { encoder: at(encoder, "encoder"), decoder: at(decoder, "decoder"), encoderBias, decoderBias };
  return rulesOf({ d, n, ...weights, ...flags });
}

/** The arrays that every autoencoder has as parts of a torch file. */

import type { TorchPart } from "../formats/torch-write.ts";
import type { CoreParam } from "../sae/params.ts";
import type { Exchanged } from "./format.ts";
import type { Layout } from "./four-arrays.ts";
import { as } from "./tensors.ts";

/** A layout with names for all four. */
export interface FullLayout extends Layout {
  readonly names: { readonly [N in keyof Layout["names"]]-?: string };
}

/** The parts of a file that are the autoencoder's arrays. */
export function arrayParts(
  { description, read }: Pick<Exchanged, "description" | "read">,
  dtype: "f32" | "f64",
  layout: FullLayout,
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
    [names.decoderBias]: bias("preBias", d),
    [names.encoderBias]: bias("latentBias", n),
    [names.encoder]: matrix("encoder"),
    [names.decoder]: matrix("decoder"),
  };
}

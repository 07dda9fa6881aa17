/** Small files of activations. */

import { createHdf5 } from "../../src/formats/hdf5-write.ts";
import { bytesOf } from "../../src/util/bytes.ts";

export interface ActivationsLayout {
  /** Default `hidden_states`. */
  readonly name?: string;
  /** One id a row; with them the attribute start_token, 0. */
  readonly tokens?: Int32Array;
  /** Further attributes of the file, such as `model` and `tensor`. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** `values` as f32 of the given shape ([rows, width] or [sequences, positions, width]). */
export async function writeActivations(
  path: string,
  values: Float32Array,
  shape: readonly number[],
  layout: ActivationsLayout = {},
): Promise<string> {
  const { name = "hidden_states", tokens, attributes = {} } = layout;
  const datasets = [
    { name, dtype: "f32" as const, shape },
    ...(tokens ? [{ name: "tokens", dtype: "i32" as const, shape: shape.slice(0, -1) }] : []),
  ];
  const file = await createHdf5(path, {
    datasets,
    attributes: { ...attributes, ...(tokens ? { start_token: 0 } : {}) },
  });
  await file.write(name, 0, bytesOf(values));
  if (tokens) await file.write("tokens", 0, bytesOf(tokens));
  await file.close();
  return path;
}

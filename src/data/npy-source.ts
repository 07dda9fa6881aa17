/**
 * Activations of one .npy file as a Source. The format has no names, so there are no token ids and
 * no origin.
 */

import { openNpy } from "../formats/npy.ts";
import { BYTES } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { arraySource, axesOf, layerOf, type OpenOptions, plainRows } from "./array-source.ts";
import { rowType } from "./row-type.ts";
import type { Source } from "./source.ts";

/** Throws FormatError naming the file; UsageError when a dataset is named. */
export async function openNpySource(path: string, { dataset, as, layer }: OpenOptions = {}): Promise<Source> {
  if (dataset !== undefined)
    throw new UsageError("an .npy file has no named datasets", { where: path, mend: "leave out --dataset" });
  const { handle, shape: stored, type, dtype, problem, position } = await openNpy(path);
  return closedOnFailure(handle, async () => {
    if (problem !== undefined) throw new FormatError(problem.what, { where: path, mend: problem.mend });
    if (dtype === undefined) throw new FormatError(`holds ${type}`, { where: path });
    const words = `the array (${type} [${stored.join(", ")}])`;
    axesOf(stored, words, path);
    const width = stored.at(-1) as number;
    const storedRows = stored.slice(0, -1).reduce((product, size) => product * size, 1);
    const bytesPerElement = BYTES[dtype];
    const all = plainRows(handle, path, position, storedRows, width * bytesPerElement);
    const { shape, read, isSequence } = layerOf({ shape: stored, read: all, words, bytesPerElement }, layer, path);
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    const refusal = `its elements are of type ${type}, not f16, bf16, f32 or f64`;
    const typed = await rowType({ words, dtype, refusal, rows, width, read }, as, path);
    return arraySource({
      path,
      shape,
      isSequence,
      grain: 1,
      origin: {},
      read,
      tokens: undefined,
      ...typed,
      close: () => handle.close(),
    });
  });
}

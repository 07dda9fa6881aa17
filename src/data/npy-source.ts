/** Activations of one .npy file as a Source. The format has no names, so there are no token ids and no origin. */

import { BYTES } from "../engine/engine.ts";
import { openNpy } from "../formats/npy.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import { arraySource, axesOf, plainRows } from "./array-source.ts";
import type { Source } from "./source.ts";

/** Throws FormatError naming the file; UsageError when a dataset is named. */
export async function openNpySource(path: string, dataset?: string): Promise<Source> {
  if (dataset !== undefined)
    throw new UsageError("an .npy file has no named datasets", { where: path, mend: "leave out --dataset" });
  const { handle, shape, type, dtype, problem, position } = await openNpy(path);
  return closedOnFailure(handle, () => {
    if (problem !== undefined) throw new FormatError(problem.what, { where: path, mend: problem.mend });
    if (dtype === undefined) throw new FormatError(`holds ${type}`, { where: path });
    axesOf(shape, `the array (${type} [${shape.join(", ")}])`, path);
    const width = shape.at(-1) as number;
    const rows = shape.slice(0, -1).reduce((product, size) => product * size, 1);
    const read = plainRows(handle, path, position, rows, width * BYTES[dtype]);
    return arraySource({
      path,
      shape,
      dtype,
      grain: 1,
      origin: {},
      read,
      tokens: undefined,
      close: () => handle.close(),
    });
  });
}

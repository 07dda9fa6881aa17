/**
 * Activations of one Arrow file of a Hugging Face dataset as a Source, such as SAELens caches
 * (https://github.com/decoderesearch/SAELens, CacheActivationsRunner): a column a hook of [T, d]
 * (Array2D) or [d] a row of the table, token_ids [T] beside it. The hook's name is that of the
 * column.
 */

import { type ArrowColumn, type ArrowFile, openArrow } from "../formats/arrow.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, UsageError } from "../util/errors.ts";
import {
  arraySource,
  axesOf,
  chooseArray,
  DEFAULT_DATASET,
  likelihood,
  NoRowsError,
  type OpenOptions,
} from "./array-source.ts";
import { rowType } from "./row-type.ts";
import { isSideName, rowsBeside, type SideArray } from "./side-arrays.ts";
import type { Source } from "./source.ts";

/**
 * Opens the column `dataset`, or `hidden_states`, or else the only one that could be meant. Throws
 * SaettaError or FormatError naming the file.
 */
export async function openArrowSource(path: string, { dataset, as, layer }: OpenOptions = {}): Promise<Source> {
  if (layer !== undefined)
    throw new UsageError("--layer: an Arrow file has no layers", { where: path, mend: "leave it out" });
  const file = await openArrow(path);
  return closedOnFailure(file, () => sourceOf(file, choose(file, dataset), as));
}

function choose({ path, columns }: ArrowFile, name: string | undefined): ArrowColumn {
  const all = columns.map(({ name: each, type, dtype, lists }) => ({
    name: each,
    words: type,
    likely: likelihood(each, dtype, Array<number>(lists + 1).fill(1)),
  }));
  const chosen = chooseArray(all, name, [DEFAULT_DATASET], "column", path);
  return columns.find((column) => column.name === chosen)!;
}

async function sourceOf(file: ArrowFile, { name, type, dtype }: ArrowColumn, as: OpenOptions["as"]): Promise<Source> {
  const { path, columns } = file;
  const refusal = `${name} holds ${type}, not f16, f32 or f64`;
  if (dtype === undefined) throw new FormatError(refusal, { where: path, mend: "name the activations with --dataset" });
  const { shape, read } = await file.array(name);
  const words = `${name} (${type})`;
  if (shape[0] === 0) throw new NoRowsError(`${words} has no rows`, { where: path, mend: "give a file with data" });
  const [width, rows] = [shape.at(-1)!, shape.slice(0, -1).reduce((product, size) => product * size, 1)];
  const typed = await rowType({ words, dtype, refusal, rows, width, read }, as, path);
  axesOf(shape, words, path);
  const others: SideArray[] = [];
  for (const column of columns) if (isSideName(column.name)) others.push(await besideOf(file, column));
  const beside = rowsBeside(others, { name, shape }, path);
  return arraySource({
    path,
    shape,
    dtype: typed.dtype,
    grain: 1,
    origin: { tensor: name },
    read,
    ...beside,
    notes: [...typed.notes, ...beside.notes],
    close: () => file.close(),
  });
}

/** A column of single numbers; opening it throws what is wrong with it. */
async function besideOf(file: ArrowFile, { name, type }: ArrowColumn): Promise<SideArray> {
  try {
    const { dtype, shape, read } = await file.array(name, true);
    return { name, dtype, shape, open: () => read };
  } catch (thrown) {
    if (!(thrown instanceof FormatError)) throw thrown;
    return {
      name,
      dtype: type,
      shape: undefined,
      open: () => {
        throw thrown;
      },
    };
  }
}

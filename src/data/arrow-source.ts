/**
 * Activations of one Arrow file of a Hugging Face dataset as a Source, such as SAELens caches (https://github.com/decoderesearch/SAELens, CacheActivationsRunner): a column a hook of [T, d]
 * (Array2D) or [d] a row of the table, token_ids [T] beside it. The hook's name is that of the column.
 */

import { type ArrowColumn, type ArrowFile, openArrow } from "../formats/arrow.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import {
  arraySource,
  axesOf,
  chooseArray,
  DEFAULT_DATASET,
  type IntegerArray,
  MASKS,
  maskOf,
  TOKENS,
  tokensOf,
} from "./array-source.ts";
import type { RowDType, Source } from "./source.ts";

const TOKEN_COLUMNS = ["token_ids", TOKENS, "input_ids"];

/** Opens the column `dataset`, or `hidden_states`, or else the only one that could be meant. Throws SaettaError or FormatError naming the file. */
export async function openArrowSource(path: string, dataset?: string): Promise<Source> {
  const file = await openArrow(path);
  return closedOnFailure(file, () => sourceOf(file, choose(file, dataset)));
}

function choose({ path, columns }: ArrowFile, name: string | undefined): ArrowColumn {
  const all = columns.map(({ name: each, type, dtype, lists }) => ({
    name: each,
    words: type,
    likely: isFloat(dtype) && (lists === 1 || lists === 2),
  }));
  const chosen = chooseArray(all, name, [DEFAULT_DATASET], "column", path);
  return columns.find((column) => column.name === chosen)!;
}

const isFloat = (dtype: string | undefined): dtype is RowDType => dtype === "f64" || dtype === "f32" || dtype === "f16";

async function sourceOf(file: ArrowFile, { name, type, dtype }: ArrowColumn): Promise<Source> {
  const { path, columns } = file;
  if (!isFloat(dtype)) {
    throw new FormatError(`${name} holds ${type}, not f16, f32 or f64`, {
      where: path,
      mend: "name the activations with --dataset",
    });
  }
  const { shape, read } = await file.array(name);
  axesOf(shape, `${name} (${type})`, path);
  const besides = async (names: readonly string[]): Promise<IntegerArray[]> => {
    const found: IntegerArray[] = [];
    for (const column of columns.filter((each) => names.includes(each.name))) {
      const array = await file.array(column.name, true);
      found.push({ name: column.name, dtype: array.dtype, shape: array.shape, open: () => array.read });
    }
    return found;
  };
  const [tokens] = (await besides(TOKEN_COLUMNS)).sort(
    (a, b) => TOKEN_COLUMNS.indexOf(a.name) - TOKEN_COLUMNS.indexOf(b.name),
  );
  return arraySource({
    path,
    shape,
    dtype,
    grain: 1,
    origin: { tensor: name },
    read,
    tokens: tokens && tokensOf(tokens, { name, shape }, path),
    mask: maskOf(await besides(MASKS), { name, shape }, path),
    close: () => file.close(),
  });
}

/**
 * Activations of one HDF5 file as a Source: `[n_seq, T, d]` or `[n, d]`, with token ids and the
 * origin where the file has them.
 */

import { type Hdf5Dataset, type Hdf5File, openHdf5 } from "../formats/hdf5-read.ts";
import { BYTES } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import {
  arraySource,
  axesOf,
  chooseArray,
  DEFAULT_DATASET,
  foldersAround,
  layerOf,
  likelihood,
  type OpenOptions,
  originOf,
} from "./array-source.ts";
import { rowType } from "./row-type.ts";
import { rowsBeside, TOKEN_IDS } from "./side-arrays.ts";
import type { Source } from "./source.ts";

/**
 * Opens `dataset`, or `hidden_states`, or else the only dataset that could be meant. Throws
 * SaettaError or FormatError naming the file.
 */
export async function openHdf5Source(path: string, { dataset, ...options }: OpenOptions = {}): Promise<Source> {
  const file = await openHdf5(path);
  return closedOnFailure(file, () => sourceOf(file, choose(file, dataset?.replace(/^\/+/, "")), options));
}

function choose(file: Hdf5File, name: string | undefined): Hdf5Dataset {
  const found = name === undefined ? undefined : file.find(name);
  if (found !== undefined) return found;
  const all = file.datasets.map((dataset) => ({
    name: dataset.name,
    words: inWords(dataset),
    // A link is another name of something that is in the list.
    likely: dataset.link === undefined && likelihood(dataset.name, dataset.dtype, dataset.shape),
  }));
  return file.find(chooseArray(all, name, [DEFAULT_DATASET], "dataset", file.path)) as Hdf5Dataset;
}

async function sourceOf(
  file: Hdf5File,
  dataset: Hdf5Dataset,
  { as, layer }: Omit<OpenOptions, "dataset">,
): Promise<Source> {
  const { name, type, link } = dataset;
  const where = file.path;
  // What cannot be read says why, whatever its shape.
  const axes =
    dataset.problem === undefined || dataset.shape.includes(0)
      ? axesOf(dataset.shape, `${name} (${inWords(dataset)})`, where)
      : 1;
  const data = file.rows(name, axes);
  const { width } = data;
  const words = `${name} (${inWords(dataset)})`;
  const bytesPerElement = data.dtype === undefined ? 1 : BYTES[data.dtype];
  const { shape, read, isSequence } = layerOf(
    { shape: dataset.shape, read: data.read, words, bytesPerElement, tokenIds: file.find(TOKEN_IDS)?.shape },
    layer,
    where,
  );
  const rows = isSequence ? shape[0]! : data.rows;
  const grain = Math.max(1, Math.floor((data.grain * rows) / data.rows));
  const refusal = `${name} holds ${type}, not f16, bf16, f32 or f64`;
  const typed = await rowType({ words, dtype: data.dtype, refusal, rows, width, read }, as, where);
  const others = file.datasets.map((each) => ({
    name: each.name,
    dtype: each.dtype ?? each.type,
    shape: each.problem === undefined ? each.shape : undefined,
    open: () => file.rows(each.name, isSequence ? 1 : axes).read,
  }));
  const folders = [...foldersAround(name, "/"), ...(link === undefined ? [] : foldersAround(link, "/"))];
  const beside = rowsBeside(others, { name, shape }, where, folders);
  return arraySource({
    path: where,
    shape,
    isSequence,
    dtype: typed.dtype,
    grain,
    origin: originOf(file.attributes, where),
    read,
    ...beside,
    notes: [...file.notes, ...typed.notes, ...beside.notes],
    close: () => file.close(),
  });
}

function inWords({ type, shape }: Hdf5Dataset): string {
  return `${type} [${shape.join(", ")}]`;
}

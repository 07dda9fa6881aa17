/** Activations of one HDF5 file as a Source: `[n_seq, T, d]` or `[n, d]`, with token ids and the origin where the file has them. */

import { isFloat } from "../formats/hdf5-datatype.ts";
import { type Hdf5Dataset, type Hdf5File, openHdf5 } from "../formats/hdf5-read.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { arraySource, axesOf, chooseArray, DEFAULT_DATASET, hasRows, originOf, rowsBeside } from "./array-source.ts";
import type { Source } from "./source.ts";

/** Opens `dataset`, or `hidden_states`, or else the only dataset that could be meant. Throws SaettaError or FormatError naming the file. */
export async function openHdf5Source(path: string, dataset?: string): Promise<Source> {
  const file = await openHdf5(path);
  return closedOnFailure(file, () => sourceOf(file, choose(file, dataset?.replace(/^\/+/, ""))));
}

function choose({ path, datasets }: Hdf5File, name: string | undefined): Hdf5Dataset {
  const all = datasets.map((dataset) => ({
    name: dataset.name,
    words: inWords(dataset),
    likely: isFloat(dataset.dtype) && hasRows(dataset.shape),
  }));
  const chosen = chooseArray(all, name, [DEFAULT_DATASET], "dataset", path);
  return datasets.find((dataset) => dataset.name === chosen) as Hdf5Dataset;
}

function sourceOf(file: Hdf5File, dataset: Hdf5Dataset): Source {
  const { name, shape, type } = dataset;
  const where = file.path;
  // What cannot be read says why, whatever its shape.
  const axes =
    dataset.problem === undefined || shape.includes(0) ? axesOf(shape, `${name} (${inWords(dataset)})`, where) : 1;
  const data = file.rows(name, axes);
  const { dtype, grain, read } = data;
  if (!isFloat(dtype)) {
    throw new FormatError(`${name} holds ${type}, not f16, bf16, f32 or f64`, {
      where,
      mend: "name the activations with --dataset",
    });
  }
  const folder = name.slice(0, name.lastIndexOf("/") + 1);
  const others = file.datasets.map((each) => ({
    name: each.name,
    dtype: each.type,
    shape: each.shape,
    open: () => file.rows(each.name, axes).read,
  }));
  return arraySource({
    path: where,
    shape,
    dtype,
    grain,
    origin: originOf(file.attributes),
    read,
    ...rowsBeside(others, dataset, where, folder),
    close: () => file.close(),
  });
}

function inWords({ type, shape }: Hdf5Dataset): string {
  return `${type} [${shape.join(", ")}]`;
}

/** Activations of one HDF5 file as a Source: `[n_seq, T, d]` or `[n, d]`, with token ids and the origin where the file has them. */

import { isFloat } from "../formats/hdf5-datatype.ts";
import { type Hdf5Dataset, type Hdf5File, openHdf5 } from "../formats/hdf5-read.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { arraySource, axesOf, DEFAULT_DATASET, hasRows, originOf, rowsBeside } from "./array-source.ts";
import type { Source } from "./source.ts";

/** Opens `dataset`, or `hidden_states`, or else the only dataset that could be meant. Throws SaettaError or FormatError naming the file. */
export async function openHdf5Source(path: string, dataset?: string): Promise<Source> {
  const file = await openHdf5(path);
  return closedOnFailure(file, () => sourceOf(file, choose(file, dataset?.replace(/^\/+/, ""))));
}

function choose(file: Hdf5File, name: string | undefined): Hdf5Dataset {
  const named = file.datasets.find((dataset) => dataset.name === (name ?? DEFAULT_DATASET));
  if (named !== undefined) return named;
  const likely = file.datasets.filter((dataset) => isFloat(dataset.dtype) && hasRows(dataset.shape));
  const only = likely[0];
  if (name === undefined && only !== undefined && likely.length === 1) return only;
  throw new SaettaError(`no dataset ${name ?? DEFAULT_DATASET}; the file has ${listed(file.datasets)}`, {
    where: file.path,
    mend: "name one with --dataset",
  });
}

function sourceOf(file: Hdf5File, dataset: Hdf5Dataset): Source {
  const { name, shape, type } = dataset;
  const where = file.path;
  // What cannot be read says why, whatever its shape.
  const axes = dataset.problem === undefined || shape.includes(0) ? axesOf(shape, inWords(dataset), where) : 1;
  const data = file.rows(name, axes);
  const { dtype, grain, read } = data;
  if (!isFloat(dtype)) {
    throw new FormatError(`${name} holds ${type}, not f16, bf16, f32 or f64`, { where, mend: "name the activations with --dataset" });
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

function inWords({ name, type, shape }: Hdf5Dataset): string {
  return `${name} (${type} [${shape.join(", ")}])`;
}

function listed(datasets: readonly Hdf5Dataset[]): string {
  if (datasets.length === 0) return "no datasets";
  const shown = datasets.slice(0, 10).map(inWords).join(", ");
  return datasets.length > 10 ? `${shown} and ${datasets.length - 10} more` : shown;
}

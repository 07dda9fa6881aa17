/** From the paths that a user gives to a Source. A new kind of file is one more line here. */

import { extname } from "node:path";
import { firstBytes, formatOf } from "../formats/open-file.ts";
import { UsageError } from "../util/errors.ts";
import { openArrowSource } from "./arrow-source.ts";
import { concatSources } from "./concat.ts";
import { openHdf5Source } from "./hdf5-source.ts";
import { openNpySource } from "./npy-source.ts";
import { openSafetensorsSource } from "./safetensors-source.ts";
import { filesOf } from "./shards.ts";
import type { Source } from "./source.ts";
import { openTorchSource } from "./torch-source.ts";

export interface OpenOptions {
  /** Name of the dataset (HDF5) or tensor (safetensors); default `hidden_states`, or the file's only candidate. */
  readonly dataset?: string;
}

/**
 * One or many files as one Source, in the order given; a folder stands for the files in it, and a name with * or ? for those that match. Throws SaettaError or
 * FormatError, naming the file, when one cannot be read or does not go with the others; UsageError without paths.
 */
export async function openSource(paths: readonly string[], options: OpenOptions = {}): Promise<Source> {
  if (paths.length === 0)
    throw new UsageError("no data given", { mend: "name one or more HDF5, npy, safetensors, Arrow or torch files" });
  const sources: Source[] = [];
  try {
    for (const path of paths)
      for (const file of await filesOf(path)) sources.push(await openFileSource(file, options.dataset));
    return concatSources(sources);
  } catch (thrown) {
    for (const source of sources) await source.close();
    throw thrown;
  }
}

/** By what the file begins with, else by its name; an HDF5 file may begin with anything. */
async function openFileSource(path: string, dataset: string | undefined): Promise<Source> {
  const format = formatOf(await firstBytes(path)) ?? extname(path).toLowerCase().slice(1);
  if (format === "npy") return openNpySource(path, dataset);
  if (format === "safetensors") return openSafetensorsSource(path, dataset);
  if (format === "arrow") return openArrowSource(path, dataset);
  if (format === "zip" || format === "pt" || format === "pth") return openTorchSource(path, dataset);
  return openHdf5Source(path, dataset);
}

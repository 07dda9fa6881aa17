/** From the paths that a user gives to a Source. A new kind of file is one more line here. */

import { UsageError } from "../util/errors.ts";
import { concatSources } from "./concat.ts";
import { openHdf5Source } from "./hdf5-source.ts";
import type { Source } from "./source.ts";

export interface OpenOptions {
  /** Name of the dataset, for HDF5; default `hidden_states`, or the file's only candidate. */
  readonly dataset?: string;
}

/**
 * One or many HDF5 files as one Source, in the order given. Throws SaettaError or FormatError, naming the file, when one cannot be read or does not
 * go with the others; UsageError without paths.
 */
export async function openSource(paths: readonly string[], options: OpenOptions = {}): Promise<Source> {
  if (paths.length === 0) throw new UsageError("no data given", { mend: "name one or more HDF5 files" });
  const sources: Source[] = [];
  try {
    for (const path of paths) sources.push(await openHdf5Source(path, options.dataset));
    return concatSources(sources);
  } catch (thrown) {
    for (const source of sources) await source.close();
    throw thrown;
  }
}

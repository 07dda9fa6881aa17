/** From the paths that a user gives to a Source. A new kind of file is one more line here. */

import { extname } from "node:path";
import { firstBytes, formatOf, noParquet } from "../formats/open-file.ts";
import { UsageError } from "../util/errors.ts";
import { NoRowsError, type OpenOptions } from "./array-source.ts";
import { concatSources } from "./concat.ts";
import { pairSources } from "./pair.ts";
import { repeatsOf } from "./repeats.ts";
import { filesOf } from "./shards.ts";
import type { Source } from "./source.ts";

export type { OpenOptions };

const NO_REPEATS = { repeated: [], notes: [] } as const;

/** How data is opened that may be inputs with targets. */
export interface DataOptions extends OpenOptions {
  /** The files of the targets; undefined for an autoencoder. */
  readonly target?: readonly string[] | undefined;
  /** Name of the dataset in the files of the targets; default: `dataset`. */
  readonly targetDataset?: string | undefined;
  /** "keep": files that repeat an earlier one are not left out. */
  readonly repeats?: "keep" | undefined;
}

/**
 * The files `paths` as one Source; with `target` the pairs of their rows and those of `target`.
 * Throws what `openSource` and `pairSources` throw.
 */
export async function openData(paths: readonly string[], options: DataOptions = {}): Promise<Source> {
  const { target, targetDataset, ...rest } = options;
  const x = await openSource(paths, rest);
  if (target === undefined) return x;
  let y: Source | undefined;
  try {
    y = await openSource(target, { ...rest, dataset: targetDataset ?? rest.dataset });
    return await pairSources(x, y);
  } catch (thrown) {
    await x.close();
    await y?.close();
    throw thrown;
  }
}

/**
 * One or many files as one Source, in the order given; a folder means the files in it, and a name
 * with * or ? those that match. A file without rows is left out, with a note, where others have
 * some, and so is one that repeats an earlier one, unless `repeats` is "keep". Throws SaettaError
 * or FormatError, naming the file, when one cannot be read or does not go with the others;
 * UsageError without paths.
 */
export async function openSource(
  paths: readonly string[],
  options: OpenOptions & Pick<DataOptions, "repeats"> = {},
): Promise<Source> {
  if (paths.length === 0)
    throw new UsageError("no data given", { mend: "name one or more HDF5, npy, safetensors, Arrow or torch files" });
  const sources: Source[] = [];
  const notes: string[] = [];
  let empty: NoRowsError | undefined;
  try {
    for (const path of paths) {
      const found = await filesOf(path, options.dataset);
      notes.push(...found.notes);
      for (const file of found.files) {
        try {
          sources.push(await openFileSource(file, options));
        } catch (thrown) {
          if (!(thrown instanceof NoRowsError)) throw thrown;
          empty ??= thrown;
          notes.push(`${file} has no rows and is left out`);
        }
      }
    }
    if (sources.length === 0 && empty !== undefined) throw empty;
    const {
      kept,
      repeated,
      notes: said,
    } = options.repeats === "keep" ? { ...NO_REPEATS, kept: sources } : await repeatsOf(sources);
    for (const source of repeated) await source.close();
    return concatSources(kept, [...notes, ...said]);
  } catch (thrown) {
    for (const source of sources) await source.close();
    throw thrown;
  }
}

/**
 * By what the file begins with, else by its name; an HDF5 file may begin with anything. Only the
 * reader of its format is loaded.
 */
export async function openFileSource(path: string, options: OpenOptions): Promise<Source> {
  const first = await firstBytes(path);
  if (first.length === 0) throw new NoRowsError("the file is empty", { where: path, mend: "write or copy it again" });
  const format = formatOf(first) ?? extname(path).toLowerCase().slice(1);
  if (format === "parquet") throw noParquet(path);
  if (format === "npy") return (await import("./npy-source.ts")).openNpySource(path, options);
  if (format === "safetensors") return (await import("./safetensors-source.ts")).openSafetensorsSource(path, options);
  if (format === "arrow") return (await import("./arrow-source.ts")).openArrowSource(path, options);
  if (format === "zip" || format === "pt" || format === "pth")
    return (await import("./torch-source.ts")).openTorchSource(path, options);
  return (await import("./hdf5-source.ts")).openHdf5Source(path, options);
}

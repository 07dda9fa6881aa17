/**
 * What names of files say of activations: which files hold them, which belong together, which a
 * pattern means.
 */

import { extname } from "node:path";
import { SaettaError } from "../util/errors.ts";

/** Extensions of files of activations, by the kind of file. */
const KINDS: Readonly<Record<string, string>> = {
  ".h5": "HDF5",
  ".hdf5": "HDF5",
  ".npy": "npy",
  ".safetensors": "safetensors",
  ".arrow": "Arrow",
  ".pt": "torch",
};

/** Whether a file of this name in a folder is taken for activations. */
export function isActivationsName(name: string): boolean {
  return kindOf(name) !== undefined;
}

/** The kind of file that a name says; undefined for one of no activations. */
export function kindOf(name: string): string | undefined {
  return KINDS[extname(name).toLowerCase()];
}

export const isParquet = (name: string): boolean => name.toLowerCase().endsWith(".parquet");

/**
 * How the names of indices end that say which file of several holds which tensor
 * (https://github.com/huggingface/safetensors).
 */
export const INDEX = ".safetensors.index.json";

/** The files that tell a folder that Hugging Face's save_to_disk wrote. */
export const STATE = "state.json";
export const INFO = "dataset_info.json";
/** Of a DatasetDict: a folder for each split. */
export const DICT = "dataset_dict.json";
/** Where SAELens keeps the parts of a cache until all are written. */
export const UNJOINED = ".tmp_shards";

export const isDataset = (names: readonly string[]): boolean => names.includes(STATE) && names.includes(INFO);

const collator = new Intl.Collator("en", { numeric: true });

/** Numbers in names by their value. */
export function natural(names: readonly string[]): string[] {
  return [...names].sort((a, b) => collator.compare(a, b) || (a < b ? -1 : 1));
}

/**
 * Whether the whole name matches: * any characters, ? one; a name that begins with a dot only where
 * the pattern does.
 */
export function matches(name: string, pattern: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  // After a mismatch only the last * need take one character more, so this takes at most name x
  // pattern steps.
  let [at, of, star, resume] = [0, 0, -1, 0];
  while (at < name.length) {
    if (pattern[of] === "*") {
      star = of++;
      resume = at;
    } else if (pattern[of] === "?" || pattern[of] === name[at]) {
      of++;
      at++;
    } else if (star >= 0) {
      of = star + 1;
      at = ++resume;
    } else return false;
  }
  return /^\**$/.test(pattern.slice(of));
}

/** The error for a folder with activations in files of several kinds. */
export function severalKinds(folder: string, names: readonly string[]): SaettaError {
  return new SaettaError(`the folder has files of several kinds (${[...new Set(names.map(kindOf))].join(", ")})`, {
    where: folder,
    mend: `name those that are meant, such as '${folder}/*${extname(names[0]!)}'`,
  });
}

/** The error for a folder without files of activations. */
export function noActivations(folder: string): SaettaError {
  return new SaettaError("the folder has no files of activations (.h5, .hdf5, .npy, .safetensors, .arrow, .pt)", {
    where: folder,
    mend: "name another",
  });
}

/** The files behind what a user names: a file, a folder of shards, or a quoted pattern. */

import type { Dirent } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { cannotOpen } from "../formats/open-file.ts";
import { FormatError, hasCode, SaettaError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";

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
  return KINDS[extname(name).toLowerCase()] !== undefined;
}

/**
 * The files of `path`, in natural order (shard-2 before shard-10): of a folder all that are activations by their names, of one kind; of a name with * or ? in
 * its last part all that match, unless a file has that very name; else the path itself. Throws SaettaError when there are none, or kinds are mixed.
 */
export async function filesOf(path: string): Promise<string[]> {
  const found = await stat(path).catch((cause: unknown) => {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) return undefined;
    throw cannotOpen(path, cause);
  });
  if (found?.isDirectory()) return shards(path);
  const pattern = basename(path);
  if (found !== undefined || !/[*?]/.test(pattern)) return [path];
  const folder = dirname(path);
  const names = await readdir(folder).catch((cause: unknown) => {
    throw cannotOpen(folder, cause);
  });
  const matching = natural(names.filter((name) => matches(name, pattern)));
  if (matching.length > 0) return matching.map((name) => (path === pattern ? name : join(folder, name)));
  throw new SaettaError("no file matches", {
    where: path,
    mend: "check the pattern (* and ? stand for any characters in the file's name)",
  });
}

async function shards(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) => {
    throw cannotOpen(folder, cause);
  });
  if (isDataset(entries.map(({ name }) => name))) return datasetFiles(folder);
  const kindOf = (name: string) => KINDS[extname(name).toLowerCase()];
  const names = natural(
    entries.filter((entry) => !entry.isDirectory() && isActivationsName(entry.name)).map(({ name }) => name),
  );
  const kinds = new Set(names.map(kindOf));
  if (names.length === 0) {
    const datasets = await datasetsIn(folder, entries);
    if (datasets.length > 0) return (await Promise.all(datasets.map(datasetFiles))).flat();
    throw new SaettaError("the folder has no files of activations (.h5, .hdf5, .npy, .safetensors, .arrow, .pt)", {
      where: folder,
      mend: "name another",
    });
  }
  if (kinds.size > 1) {
    throw new SaettaError(`the folder has files of several kinds (${[...kinds].join(", ")})`, {
      where: folder,
      mend: `name those that are meant, such as '${join(folder, `*${extname(names[0] as string)}`)}'`,
    });
  }
  return names.map((name) => join(folder, name));
}

/** The files that tell a folder that Hugging Face's save_to_disk wrote. */
const STATE = "state.json";
const INFO = "dataset_info.json";

const isDataset = (names: readonly string[]): boolean => names.includes(STATE) && names.includes(INFO);

/** The files of a Hugging Face dataset, in the order that it gives. */
async function datasetFiles(folder: string): Promise<string[]> {
  const where = join(folder, STATE);
  const state = new Fields(await readJsonFile(where), STATE, where);
  const listed = state.get("_data_files");
  if (!Array.isArray(listed) || listed.length === 0) throw new FormatError('"_data_files" names no file', { where });
  const indices = state.get("_indices_data_files");
  if (Array.isArray(indices) && indices.length > 0) {
    throw new FormatError("is a choice of the rows of its files, in an order of its own, which is not read", {
      where,
      mend: "save it after flatten_indices()",
    });
  }
  return listed.map((entry) => {
    const name = new Fields(entry, "an entry of _data_files", where).string("filename");
    if (basename(name) !== name || name === "." || name === "..")
      throw new FormatError(`names ${JSON.stringify(name)}, which is no file of the folder`, { where });
    return join(folder, name);
  });
}

/** The folders in it that are datasets, as SAELens leaves them before it joins them (shard_00000, ...). */
async function datasetsIn(folder: string, entries: readonly Dirent[]): Promise<string[]> {
  const found: string[] = [];
  for (const name of natural(entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name))) {
    const names = await readdir(join(folder, name)).catch((): string[] => []);
    if (isDataset(names)) found.push(join(folder, name));
  }
  return found;
}

const collator = new Intl.Collator("en", { numeric: true });

/** Numbers in names by their value. */
function natural(names: readonly string[]): string[] {
  return [...names].sort((a, b) => collator.compare(a, b) || (a < b ? -1 : 1));
}

/** Whether the whole name matches: * any characters, ? one; a name that begins with a dot only where the pattern does. */
function matches(name: string, pattern: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  // After a mismatch only the last * need take one character more, so this takes at most name x pattern steps.
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

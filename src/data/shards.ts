/** The files behind what a user names: a file, a folder of shards, or a quoted pattern. */

import { readdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { cannotOpen } from "../formats/open-file.ts";
import { hasCode, SaettaError } from "../util/errors.ts";

/** Extensions of files of activations, by the kind of file. */
const KINDS: Readonly<Record<string, string>> = { ".h5": "HDF5", ".hdf5": "HDF5", ".npy": "npy", ".safetensors": "safetensors" };

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
  const kindOf = (name: string) => KINDS[extname(name).toLowerCase()];
  const names = natural(entries.filter((entry) => !entry.isDirectory() && isActivationsName(entry.name)).map(({ name }) => name));
  const kinds = new Set(names.map(kindOf));
  if (names.length === 0) {
    throw new SaettaError("the folder has no files of activations (.h5, .hdf5, .npy, .safetensors)", {
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

/**
 * Autoencoders in the folders below one that is none: the hook points of a repository, the trainers
 * of a sweep, runs.
 */

import { join, relative } from "node:path";
import { isRunFolder } from "../checkpoint/layout.ts";
import { disk } from "../checkpoint/storage.ts";
import { namesForeign } from "../interchange/index.ts";
import { SaettaError } from "../util/errors.ts";

/** A repository has a folder per model, layer and size. Bounds the time that a large tree takes. */
const DEEPEST = 4;
const MOST_FOLDERS = 2000;
const MOST_SHOWN = 6;

/** The folders of autoencoders below `root`, relative to it, in the order of their numbers. */
async function foldersBelow(root: string): Promise<string[]> {
  const found: string[] = [];
  const open = [{ path: root, depth: 0 }];
  for (let i = 0; i < open.length && i < MOST_FOLDERS; i++) {
    const { path, depth } = open[i]!;
    const names = new Set(await disk.list(path).catch(() => []));
    if (depth > 0 && (namesForeign(names) || (await isRunFolder(path, names)))) found.push(relative(root, path));
    else if (depth < DEEPEST) for (const name of names) open.push({ path: join(path, name), depth: depth + 1 });
  }
  return found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

/** Throws SaettaError that names the autoencoders below the folder, where there are some. */
export async function refuseFolderOfSaes(root: string): Promise<void> {
  const found = await foldersBelow(root);
  const [first] = found;
  if (first === undefined) return;
  const shown = found.slice(0, MOST_SHOWN).join(", ");
  const more = found.length > MOST_SHOWN ? ` and ${found.length - MOST_SHOWN} more` : "";
  throw new SaettaError(
    `holds ${found.length === 1 ? "an autoencoder" : `${found.length} autoencoders`}: ${shown}${more}`,
    {
      where: root,
      mend: `name ${found.length === 1 ? "it" : "one"}: ${join(root, first)}`,
    },
  );
}

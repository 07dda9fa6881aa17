/**
 * The files of a folder or of a repository: which there are, how large they are, and ranges of
 * their bytes. What is looked up through this works without a copy of the whole.
 */

import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { readFully } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import { openToRead } from "./open-file.ts";

export interface ListedFile {
  /** Relative to the root, with "/" between names. */
  readonly path: string;
  readonly bytes: number;
}

export interface Listing {
  /** How a user names the root: a folder, or hf://org/repo@revision. */
  readonly root: string;
  /** All files below the root, in any order. Links are followed. */
  entries(): Promise<readonly ListedFile[]>;
  /**
   * The bytes [begin, end) of the file. Throws FormatError, naming root and path, where the file
   * has fewer.
   */
  readRange(path: string, begin: number, end: number): Promise<Uint8Array>;
}

/** Bounds the time and the memory that a large tree takes. */
const DEEPEST = 8;
const MOST_FOLDERS = 10_000;
const MOST_FILES = 200_000;

/**
 * The listing of a folder on disk as it is when it is first asked for; hidden files and folders are
 * left out.
 */
export function folderListing(root: string): Listing {
  let files: Promise<readonly ListedFile[]> | undefined;
  return {
    root,
    entries() {
      files ??= filesBelow(root);
      return files;
    },
    async readRange(path, begin, end) {
      const where = join(root, path);
      const { handle } = await openToRead(where);
      return closedOnFailure(handle, async () => {
        const bytes = new Uint8Array(end - begin);
        await readFully(handle, bytes, begin, where);
        await handle.close();
        return bytes;
      });
    },
  };
}

async function filesBelow(root: string): Promise<ListedFile[]> {
  const files: ListedFile[] = [];
  const open = [{ path: "", depth: 0 }];
  // Links may lead back up: each folder is listed once.
  const listed = new Set<string>();
  for (let i = 0; i < open.length; i++) {
    const { path, depth } = open[i]!;
    const folder = await realpath(join(root, path)).catch(() => undefined);
    if (folder === undefined || listed.has(folder)) continue;
    listed.add(folder);
    const names = await readdir(folder).catch(() => []);
    for (const name of names.sort()) {
      if (name.startsWith(".")) continue;
      const below = path === "" ? name : `${path}/${name}`;
      const found = await stat(join(root, below)).catch(() => undefined);
      if (found?.isFile()) files.push({ path: below, bytes: found.size });
      else if (found?.isDirectory() && depth < DEEPEST) open.push({ path: below, depth: depth + 1 });
    }
    if (open.length > MOST_FOLDERS || files.length > MOST_FILES) {
      throw new FormatError(`holds more than ${MOST_FOLDERS} folders or ${MOST_FILES} files`, {
        where: root,
        mend: "name a folder below it",
      });
    }
  }
  return files;
}

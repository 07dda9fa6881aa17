/**
 * A folder of files that is there whole or not at all: written aside, synced, given a manifest,
 * renamed. Killed at any moment, it leaves either the finished folder or a leftover whose name no
 * reader takes for a finished one. `beginFolder`, `writeFile` and `finishFolder` are its parts, for
 * files that several processes write.
 */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { MANIFEST } from "../run-files/names.ts";
import { pieces } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { type ManifestEntry, manifestText } from "./manifest.ts";
import { disk, isDiskFull, type Storage } from "./storage.ts";

/** A file to be written: `content` calls `write` with its bytes, in order. */
export interface Content {
  readonly name: string;
  readonly content: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>;
}

/** What a write or a removal leaves behind when it is cut short. */
const ASIDE = /^\.aside-/;

const asideOf = (parent: string, name: string): string => join(parent, `.aside-${name}`);

/**
 * Writes the files and their manifest as the folder `parent/name`, which must not exist. Returns
 * its path. One writer at a time: hold the lock of the run.
 */
export async function commitFolder(
  parent: string,
  name: string,
  files: readonly Content[],
  storage: Storage = disk,
): Promise<string> {
  const aside = await beginFolder(parent, name, storage);
  try {
    const manifest: Record<string, ManifestEntry> = {};
    for (const { name: file, content } of files) manifest[file] = await writeFile(join(aside, file), content, storage);
    return await finishFolder(parent, name, manifest, storage);
  } catch (thrown) {
    await storage.remove(aside).catch(() => undefined); // what went wrong first is what counts
    throw thrown;
  }
}

/**
 * Makes the folder in which the files of `parent/name` are written. Returns its path. Throws
 * SaettaError when `parent/name` is there already.
 */
export async function beginFolder(parent: string, name: string, storage: Storage = disk): Promise<string> {
  if ((await storage.list(parent)).includes(name)) {
    throw new SaettaError("exists already, and a checkpoint is never overwritten", { where: join(parent, name) });
  }
  await removeLeftovers(parent, storage);
  const aside = asideOf(parent, name);
  await storage.makeFolder(aside);
  return aside;
}

/**
 * Writes the manifest beside the files, which are synced, and gives the folder its name. Returns
 * its path; it is on the disk then.
 */
export async function finishFolder(
  parent: string,
  name: string,
  files: Readonly<Record<string, ManifestEntry>>,
  storage: Storage = disk,
): Promise<string> {
  const [aside, target] = [asideOf(parent, name), join(parent, name)];
  const text = new TextEncoder().encode(manifestText(files));
  await writeFile(join(aside, MANIFEST), (write) => write(text), storage);
  await storage.syncFolder(aside);
  await storage.rename(aside, target);
  try {
    await storage.syncFolder(parent);
  } catch (thrown) {
    // Where the disk was full it can be written again; after any other error it is left, for it may
    // well be whole.
    if (isDiskFull(thrown)) await storage.rename(target, aside).catch(() => undefined);
    throw thrown;
  }
  return target;
}

/** Writes and syncs a new file. Returns what the manifest will say of it. */
export async function writeFile(
  path: string,
  content: Content["content"],
  storage: Storage = disk,
): Promise<ManifestEntry> {
  const hash = createHash("sha256");
  let size = 0;
  const file = await storage.create(path);
  try {
    await content(async (bytes) => {
      for (const piece of pieces(bytes)) {
        hash.update(piece);
        await file.write(piece, size);
        size += piece.byteLength;
      }
    });
    await file.sync();
  } finally {
    await file.close();
  }
  return { size, sha256: hash.digest("hex") };
}

/** Removes what writers that were cut short left in `parent`. */
export async function removeLeftovers(parent: string, storage: Storage = disk): Promise<void> {
  for (const name of await storage.list(parent)) if (isLeftover(name)) await storage.remove(join(parent, name));
}

/** True for the name of what a writer that was cut short leaves. */
export function isLeftover(name: string): boolean {
  return ASIDE.test(name);
}

/**
 * Removes a finished folder: first its name, so that half of it is never taken for a checkpoint.
 */
export async function removeFolder(parent: string, name: string, storage: Storage = disk): Promise<void> {
  const aside = asideOf(parent, name);
  await storage.rename(join(parent, name), aside);
  await storage.syncFolder(parent); // or a power cut may find files gone and the name still there
  await storage.remove(aside);
}

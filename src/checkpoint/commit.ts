/**
 * A folder of files that is there whole or not at all: written aside, synced, given a manifest, renamed. Killed at any moment, it leaves either the finished folder
 * or a leftover whose name no reader takes for a finished one.
 */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { pieces } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { disk, type Storage } from "./storage.ts";

export const MANIFEST = "manifest.json";

/** A file to be written: `content` calls `write` with its bytes, in order. */
export interface Content {
  readonly name: string;
  readonly content: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>;
}

/** What manifest.json says of one file. */
export interface ManifestEntry {
  readonly size: number;
  readonly sha256: string;
}

/** What a write or a removal leaves behind when it is cut short. */
const ASIDE = /^\.aside-/;

/** Writes the files and their manifest as the folder `parent/name`, which must not exist. Returns its path. One writer at a time: hold the lock of the run. */
export async function commitFolder(parent: string, name: string, files: readonly Content[], storage: Storage = disk): Promise<string> {
  const target = join(parent, name);
  if ((await storage.list(parent)).includes(name)) {
    throw new SaettaError("exists already, and a checkpoint is never overwritten", { where: target });
  }
  await removeLeftovers(parent, storage);
  const aside = join(parent, `.aside-${name}`);
  await storage.makeFolder(aside);
  const manifest: Record<string, ManifestEntry> = {};
  try {
    for (const { name: file, content } of files) manifest[file] = await writeFile(join(aside, file), content, storage);
    const text = new TextEncoder().encode(`${JSON.stringify({ format_version: 1, files: manifest }, undefined, 2)}\n`);
    await writeFile(join(aside, MANIFEST), (write) => write(text), storage);
    await storage.syncFolder(aside);
    await storage.rename(aside, target);
  } catch (thrown) {
    await storage.remove(aside).catch(() => undefined); // what went wrong first is what counts
    throw thrown;
  }
  await storage.syncFolder(parent);
  return target;
}

async function writeFile(path: string, content: Content["content"], storage: Storage): Promise<ManifestEntry> {
  const hash = createHash("sha256");
  let size = 0;
  const file = await storage.create(path);
  try {
    await content(async (bytes) => {
      for (const piece of pieces(bytes)) {
        hash.update(piece);
        await file.write(piece);
      }
      size += bytes.byteLength;
    });
    await file.sync();
  } finally {
    await file.close();
  }
  return { size, sha256: hash.digest("hex") };
}

/** Removes what writers that were cut short left in `parent`. */
export async function removeLeftovers(parent: string, storage: Storage = disk): Promise<void> {
  for (const name of await storage.list(parent)) if (ASIDE.test(name)) await storage.remove(join(parent, name));
}

/** Removes a finished folder: first its name, so that half of it is never taken for a checkpoint. */
export async function removeFolder(parent: string, name: string, storage: Storage = disk): Promise<void> {
  const aside = join(parent, `.aside-${name}`);
  await storage.rename(join(parent, name), aside);
  await storage.remove(aside);
}

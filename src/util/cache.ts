/**
 * Files that can be made again, kept between runs: in the package's `build/`, else the user's cache
 * folder, else a folder of the user in the system's temporary folder. Kernels are loaded from here,
 * so the last one is only used while nobody else can write to it.
 */

import { lstat, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { atomicWrite } from "./atomic-write.ts";
import { hasCode, SaettaError } from "./errors.ts";
import { makeFolders } from "./folders.ts";

/** src/util and dist/util are equally deep in the package. */
const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));

/** Where to look, in this order. */
export function cacheFolders(): readonly string[] {
  return [join(PACKAGE, "build"), userCache(), temporaryCache()].filter((folder) => folder !== undefined);
}

function userCache(): string | undefined {
  if (process.env.XDG_CACHE_HOME) return join(process.env.XDG_CACHE_HOME, "saetta");
  try {
    return join(homedir(), ".cache", "saetta");
  } catch {
    return undefined; // a user without a home, as in some containers
  }
}

/** Undefined where files have no owners to check. */
export function temporaryCache(): string | undefined {
  const user = process.getuid?.();
  return user === undefined ? undefined : join(tmpdir(), `saetta-cache-${user}`);
}

/**
 * Those of the folders that may be read from: in the temporary folder anybody may have made one
 * under our name.
 */
export async function trustedFolders(folders: readonly string[]): Promise<readonly string[]> {
  const trusted: string[] = [];
  for (const folder of folders) if (folder !== temporaryCache() || (await isPrivate(folder))) trusted.push(folder);
  return trusted;
}

/** True for a folder (no link) of this user that no other user can write to. */
async function isPrivate(folder: string): Promise<boolean> {
  const found = await lstat(folder).catch(() => undefined);
  return found?.isDirectory() === true && found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
}

/**
 * The bytes of file `name` in the first of the folders that has it; else what `make` makes, kept in
 * the first folder that takes it: written aside there and renamed, so that it is never half
 * written. Where no folder takes it, it is made again next time.
 */
export async function keepIn(
  folders: readonly string[],
  name: string,
  make: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  for (const folder of await trustedFolders(folders)) {
    try {
      return await readFile(join(folder, name));
    } catch (error) {
      if (!hasCode(error, "ENOENT", "ENOTDIR", "EACCES")) throw error;
    }
  }
  const bytes = await make();
  for (const folder of folders) if (await keep(folder, name, bytes)) break;
  return bytes;
}

/** Whether the folder took the file. */
async function keep(folder: string, name: string, bytes: Uint8Array): Promise<boolean> {
  try {
    await makeCache(folder);
    await atomicWrite(join(folder, name), (write) => write(bytes));
    return true;
  } catch {
    return false;
  }
}

/**
 * The first folder that can be written, made where it is not there yet. Throws SaettaError when
 * none can.
 */
export async function writableFolder(folders: readonly string[], where: string): Promise<string> {
  let last: unknown;
  for (const folder of folders) {
    try {
      await makeCache(folder);
      await rm(await mkdtemp(join(folder, ".probe-")), { recursive: true });
      return folder;
    } catch (cause) {
      last = cause;
    }
  }
  throw new SaettaError(`no folder for the compiled kernels can be written (${folders.join(", ")})`, {
    where,
    mend: "make one of them writable, or set XDG_CACHE_HOME or TMPDIR",
    cause: last,
  });
}

async function makeCache(folder: string): Promise<void> {
  if (folder !== temporaryCache()) return makeFolders(folder);
  await mkdir(folder, { mode: 0o700 }).catch((thrown: unknown) => {
    if (!hasCode(thrown, "EEXIST")) throw thrown;
  });
  if (!(await isPrivate(folder))) throw new SaettaError("other users can write to it", { where: folder });
}

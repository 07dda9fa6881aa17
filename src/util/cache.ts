/** Files that can be made again, kept between runs: in the package's `build/`, or the user's cache folder where that cannot be written. */

import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { hasCode, SaettaError } from "./errors.ts";
import { makeFolders } from "./folders.ts";

/** src/util and dist/util are equally deep in the package. */
const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));

/** Where to look, in this order. */
export function cacheFolders(): readonly string[] {
  return [join(PACKAGE, "build"), join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "saetta")];
}

/** The bytes of file `name` in the first of the folders that has it; else what `make` makes, written aside there and renamed, so that it is never half written. */
export async function keepIn(
  folders: readonly string[],
  name: string,
  where: string,
  make: () => Promise<Uint8Array>,
): Promise<Uint8Array> {
  for (const folder of folders) {
    try {
      return await readFile(join(folder, name));
    } catch (error) {
      if (!hasCode(error, "ENOENT", "ENOTDIR", "EACCES")) throw error;
    }
  }
  const bytes = await make();
  const folder = await writableFolder(folders, where);
  const temporary = join(folder, `${name}.${process.pid}.tmp`);
  try {
    await writeFile(temporary, bytes);
    await rename(temporary, join(folder, name));
  } finally {
    await rm(temporary, { force: true });
  }
  return bytes;
}

/** The first folder that can be written, made where it is not there yet. Throws SaettaError when none can. */
export async function writableFolder(folders: readonly string[], where: string): Promise<string> {
  let last: unknown;
  for (const folder of folders) {
    try {
      await makeFolders(folder);
      await rm(await mkdtemp(join(folder, ".probe-")), { recursive: true });
      return folder;
    } catch (cause) {
      last = cause;
    }
  }
  throw new SaettaError(`no folder for the compiled kernels can be written (${folders.join(", ")})`, {
    where,
    mend: "make one of them writable or set XDG_CACHE_HOME",
    cause: last,
  });
}

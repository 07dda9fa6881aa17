/**
 * Opening a file to read, with errors for people; and what kind of file it is by its first bytes.
 */

import { type FileHandle, open } from "node:fs/promises";
import { readFully } from "../util/bytes.ts";
import { FormatError, hasCode, messageOf, SaettaError } from "../util/errors.ts";

/** Opens a plain file. Throws SaettaError when it cannot be opened or is none. */
export async function openToRead(path: string): Promise<{ readonly handle: FileHandle; readonly size: number }> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, "r");
    const stats = await handle.stat();
    if (!stats.isFile()) throw new SaettaError("not a file", { where: path, mend: "name a file" });
    return { handle, size: stats.size };
  } catch (thrown) {
    await handle?.close();
    throw cannotOpen(path, thrown);
  }
}

/** What went wrong when a file was opened, in one line. */
export function cannotOpen(path: string, cause: unknown): SaettaError {
  if (cause instanceof SaettaError) return cause;
  const missing = hasCode(cause, "ENOENT", "ENOTDIR");
  const tooMany = hasCode(cause, "EMFILE", "ENFILE");
  const mend = missing
    ? "check the path"
    : tooMany
      ? "raise the limit on open files (ulimit -n)"
      : "check that it may be read";
  return new SaettaError(missing ? "no such file" : `cannot be read (${messageOf(cause)})`, {
    where: path,
    mend,
    cause,
  });
}

export type ArrayFormat = "hdf5" | "npy" | "safetensors" | "zip" | "arrow" | "parquet";

/**
 * What a Parquet file, or a folder of them, is answered with. `from`: the arguments with which
 * Python's `datasets` loads it.
 */
export function noParquet(path: string, from = '"parquet", data_files=FILES'): FormatError {
  return new FormatError("is Parquet, which is not read", {
    where: path,
    mend: `convert it: datasets.load_dataset(${from}, split="train").save_to_disk(DIR), then name DIR`,
  });
}

/** The first bytes of a file, at most 16. */
export async function firstBytes(path: string): Promise<Uint8Array> {
  const { handle, size } = await openToRead(path);
  try {
    const bytes = new Uint8Array(Math.min(size, 16));
    await readFully(handle, bytes, 0, path);
    return bytes;
  } finally {
    await handle.close();
  }
}

/**
 * The format that the first bytes show; undefined for anything else (an HDF5 file with a user
 * block, too, shows nothing).
 */
export function formatOf(first: Uint8Array): ArrayFormat | undefined {
  const text = Buffer.from(first).toString("latin1");
  if (text.startsWith("\x89HDF\r\n\x1a\n")) return "hdf5";
  if (text.startsWith("\x93NUMPY")) return "npy";
  if (text.startsWith("PAR1")) return "parquet";
  if (text.startsWith("PK\x03\x04")) return "zip";
  if (text.startsWith("\xff\xff\xff\xff") || text.startsWith("ARROW1\0\0")) return "arrow";
  // The length of a header that is allowed has four bytes at most.
  if (text.slice(4, 9) === "\0\0\0\0{") return "safetensors";
  return undefined;
}

/**
 * NumPy's .npz: a zip archive of one .npy file per array, stored (np.savez) or deflated
 * (np.savez_compressed). No array takes more memory than its header and the directory state, which
 * must agree.
 */

import type { FileHandle } from "node:fs/promises";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { NPY_START, type NpyHeader, npyHeader } from "./npy.ts";
import { openToRead } from "./open-file.ts";
import { entryData, localEntry, readZip, type ZipEntry } from "./zip.ts";

export interface Npz {
  readonly path: string;
  /** By name, without ".npy". */
  readonly arrays: ReadonlyMap<string, NpyHeader>;
  /**
   * The elements of an array, little-endian, in the order in which they are stored. Throws
   * FormatError when they are damaged.
   */
  read(name: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

const NPY = ".npy";
/** Each entry costs a read; the autoencoders that are published have five. */
const MOST_ARRAYS = 1000;

/** Whether the entries of a zip archive are those of such a file. */
export function isNpz(names: Iterable<string>): boolean {
  const all = [...names];
  return all.length > 0 && all.every((name) => name.endsWith(NPY));
}

/**
 * Opens a file and checks the headers of its arrays. Throws FormatError naming file, array and byte
 * when it is damaged. Close it.
 */
export async function openNpz(path: string): Promise<Npz> {
  const { handle, size } = await openToRead(path);
  return closedOnFailure(handle, async () => {
    const entries = await readZip(handle, size, path);
    if (!isNpz(entries.keys()))
      throw new FormatError("is a zip archive, but not only of .npy files, as np.savez writes them", { where: path });
    if (entries.size > MOST_ARRAYS)
      throw new FormatError(`holds ${entries.size} arrays, more than ${MOST_ARRAYS}`, { where: path });
    const arrays = new Map<string, NpyHeader>();
    for (const [name, entry] of entries)
      arrays.set(name.slice(0, -NPY.length), await headerOf(handle, entry, `${path}, ${name}`));
    return {
      path,
      arrays,
      read(name) {
        const entry = entries.get(`${name}${NPY}`);
        if (entry === undefined) throw new FormatError(`has no array "${name}"`, { where: path });
        return elementsOf(handle, entry, arrays.get(name)!.position, path);
      },
      close: () => handle.close(),
    };
  });
}

/**
 * Name and shape of the array at the start of a file of which only the first bytes are there;
 * undefined where they do not show them.
 */
export function firstArray(
  start: Uint8Array,
): { readonly name: string; readonly shape: readonly number[] } | undefined {
  const local = localEntry(start);
  if (local === undefined || !local.name.endsWith(NPY)) return undefined;
  try {
    const { shape } = npyHeader(local.data, undefined, local.name);
    return { name: local.name.slice(0, -NPY.length), shape };
  } catch (thrown) {
    if (thrown instanceof FormatError) return undefined;
    throw thrown;
  }
}

async function headerOf(handle: FileHandle, entry: ZipEntry, where: string): Promise<NpyHeader> {
  const first = new Uint8Array(Math.min(NPY_START, entry.size));
  let filled = 0;
  for await (const piece of entryData(handle, entry, where)) {
    const part = piece.subarray(0, first.byteLength - filled);
    first.set(part, filled);
    filled += part.byteLength;
    if (filled === first.byteLength) break;
  }
  return npyHeader(first, entry.size, where);
}

async function elementsOf(handle: FileHandle, entry: ZipEntry, position: number, path: string): Promise<Uint8Array> {
  const bytes = allocate(entry.size - position, path);
  let at = -position;
  for await (const piece of entryData(handle, entry, path)) {
    if (at + piece.byteLength > 0) bytes.set(at < 0 ? piece.subarray(-at) : piece, Math.max(0, at));
    at += piece.byteLength;
  }
  return bytes;
}

function allocate(bytes: number, path: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new SaettaError(`an array of ${bytes} bytes does not fit into memory`, { where: path, cause });
  }
}

/**
 * Files of torch.save since PyTorch 1.6: a zip archive of data.pkl, the pickled object, and
 * data/KEY, the elements of each storage (https://github.com/pytorch/pytorch,
 * torch/serialization.py). What was pickled is read by torch-pickle.ts, which runs nothing.
 */

import type { FileHandle } from "node:fs/promises";
import { BYTES, readFully } from "../util/bytes.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { openToRead } from "./open-file.ts";
import { parsePickle, type TorchKey, type TorchValue } from "./torch-pickle.ts";
import { gathered, isContiguous, type TorchStorage, type TorchTensor } from "./torch-tensor.ts";
import { checkEntry, readEntry, readZip, type ZipEntry } from "./zip.ts";

export interface TorchFile {
  readonly path: string;
  readonly root: TorchValue;
  /**
   * The elements of a tensor of this file in row-major order, little-endian. Throws FormatError
   * when they are damaged, SaettaError when they do not fit the memory.
   */
  read(tensor: TorchTensor): Promise<Uint8Array>;
  /**
   * Where the elements of a tensor start in the file, one after the other in row-major order;
   * undefined where they do not lie so. They are not compared with their checksum.
   */
  position(tensor: TorchTensor): number | undefined;
  /** For reads at such places. */
  readonly handle: FileHandle;
  close(): Promise<void>;
}

const MOST_PICKLE = 64 * 1024 * 1024;

/**
 * What torch.save wrote before PyTorch 1.6, and with _use_new_zipfile_serialization=False: pickles,
 * the first of a magic number.
 */
const LEGACY = Buffer.from("8a0a6cfc9c46f9206aa850192e", "hex");

/**
 * Opens a file of torch.save. Throws FormatError naming file and byte when it is damaged or holds
 * more than data, SaettaError when it cannot be opened. Close it.
 */
export async function openTorch(path: string): Promise<TorchFile> {
  const { handle, size } = await openToRead(path);
  return closedOnFailure(handle, () => parse(handle, size, path));
}

async function parse(handle: FileHandle, size: number, path: string): Promise<TorchFile> {
  const first = new Uint8Array(Math.min(16, size));
  await readFully(handle, first, 0, path);
  refuseOthers(first, path);
  const entries = await readZip(handle, size, path);
  const prefix = prefixOf(entries, path);
  const pickle = entries.get(`${prefix}data.pkl`)!;
  const length = pickle.end - pickle.begin;
  if (length > MOST_PICKLE)
    throw new FormatError(`byte ${pickle.begin}: a pickle of ${length} bytes is too large for weights`, {
      where: path,
    });
  await refuseBigEndian(handle, entries.get(`${prefix}byteorder`), path);
  const root = parsePickle(await readEntry(handle, pickle, path), path, pickle.begin);
  const checked = new Set<string>();
  return {
    path,
    root,
    async read(tensor) {
      if (tensor.elements === 0) return new Uint8Array(0);
      const { storage } = tensor;
      const entry = entryOf(entries, prefix, storage, path);
      if (!checked.has(entry.name)) await checkEntry(handle, entry, path);
      checked.add(entry.name);
      const width = BYTES[storage.dtype];
      // The elements from the first to the last that the view touches.
      const span = tensor.shape.reduce((sum, each, axis) => sum + (each - 1) * tensor.strides[axis]!, 0) + 1;
      const touched = allocate(span * width, path);
      await readFully(handle, touched, entry.begin + tensor.offset * width, path);
      return isContiguous(tensor) ? touched : gathered(touched, tensor, allocate(tensor.elements * width, path));
    },
    position(tensor) {
      if (!isContiguous(tensor)) return undefined;
      const entry = entryOf(entries, prefix, tensor.storage, path);
      return entry.method === 0 ? entry.begin + tensor.offset * BYTES[tensor.dtype] : undefined;
    },
    handle,
    close: () => handle.close(),
  };
}

function refuseOthers(first: Uint8Array, path: string): void {
  const bytes = Buffer.from(first);
  if (bytes.subarray(2, 2 + LEGACY.length).equals(LEGACY)) {
    throw new FormatError("byte 0: is a torch file as PyTorch wrote them before 1.6, which are not read", {
      where: path,
      mend: "load it with torch.load and save it again with torch.save",
    });
  }
  if (bytes.toString("latin1", 0, 4) !== "PK\x03\x04") {
    throw new FormatError("byte 0: is no file of torch.save, which begin as zip archives do", { where: path });
  }
}

/** "NAME/" of the one entry "NAME/data.pkl". */
function prefixOf(entries: ReadonlyMap<string, ZipEntry>, path: string): string {
  const names = [...entries.keys()];
  const pickles = names.filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  const [only] = pickles;
  if (only !== undefined && pickles.length === 1) {
    const prefix = only.slice(0, -"data.pkl".length);
    if (entries.has(`${prefix}constants.pkl`)) {
      throw new FormatError("is a TorchScript archive, which holds a program", {
        where: path,
        mend: "save the state dict alone: torch.save(model.state_dict(), path)",
      });
    }
    return prefix;
  }
  const npz = names.length > 0 && names.every((name) => name.endsWith(".npy"));
  const what = npz
    ? "is a zip archive of arrays, as np.savez writes them"
    : `is a zip archive with ${pickles.length} data.pkl, not one`;
  throw new FormatError(`byte 0: ${what}; torch.save writes one`, {
    where: path,
    ...(npz ? { mend: "save one array with np.save" } : {}),
  });
}

async function refuseBigEndian(handle: FileHandle, entry: ZipEntry | undefined, path: string): Promise<void> {
  if (entry === undefined || entry.end - entry.begin > 16) return;
  const order = Buffer.from(await readEntry(handle, entry, path)).toString("latin1");
  if (order !== "little")
    throw new FormatError(`byte ${entry.begin}: numbers are ${order}-endian, which is not read`, { where: path });
}

function entryOf(
  entries: ReadonlyMap<string, ZipEntry>,
  prefix: string,
  { key, dtype, elements }: TorchStorage,
  path: string,
): ZipEntry {
  const name = `${prefix}data/${key}`;
  const entry = entries.get(name);
  if (entry === undefined)
    throw new FormatError(`the storage ${JSON.stringify(name)} is not in the archive`, { where: path });
  const [found, needed] = [entry.end - entry.begin, elements * BYTES[dtype]];
  if (found !== needed) {
    throw new FormatError(
      `byte ${entry.begin}: storage "${name}" has ${found} bytes, but ${elements} ${dtype} take ${needed}`,
      {
        where: path,
      },
    );
  }
  return entry;
}

function allocate(bytes: number, path: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new SaettaError(`a tensor of ${bytes} bytes does not fit into one array`, { where: path, cause });
  }
}

/** The items of a dict with text as keys; undefined for anything else. */
export function itemsOf(value: TorchValue | undefined): ReadonlyMap<string, TorchValue> | undefined {
  if (!(value instanceof Map)) return undefined;
  return [...value.keys()].every((key: TorchKey) => typeof key === "string")
    ? (value as ReadonlyMap<string, TorchValue>)
    : undefined;
}

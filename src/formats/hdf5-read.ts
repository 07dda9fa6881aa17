/**
 * Reads HDF5 files: what is in them, and rows of their datasets. libhdf5 finds the objects and reads chunked data; contiguous data is read
 * with plain reads at its offset, off the event loop. Soft, external and virtual references are never followed, so no other file is ever opened.
 */

import { resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import { readFully } from "../util/bytes.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { HDF5_BYTES, type Hdf5DType } from "./hdf5-datatype.ts";
import { type DatasetHeader, type Hdf5Bytes, type Hdf5Storage, readDatasetHeader, readSuperblock } from "./hdf5-header.ts";
import { ask, type Hdf5Library, loadHdf5 } from "./hdf5-library.ts";
import { type Grid, gridOf, slabs } from "./hdf5-slabs.ts";
import { cannotOpen, openToRead } from "./open-file.ts";

export interface Hdf5Dataset {
  /** Without the leading slash: "hidden_states", "group/name". */
  readonly name: string;
  readonly shape: readonly number[];
  /** In words: "f16", "big-endian f32", "compound". */
  readonly type: string;
  /** Undefined when the elements are not little-endian numbers. */
  readonly dtype: Hdf5DType | undefined;
  /** Undefined when the data cannot be read. */
  readonly layout: Hdf5Storage["kind"] | undefined;
  /** Of chunked data. */
  readonly chunk: readonly number[] | undefined;
  /** Why the data cannot be read, in words; undefined when it can. */
  readonly problem: string | undefined;
}

/** A dataset seen as rows of `width` elements. */
export interface Hdf5Rows {
  readonly dtype: Hdf5DType;
  readonly rows: number;
  readonly width: number;
  /** Rows stored together; at least 1. */
  readonly grain: number;
  /** Rows [first, first + count) into the start of `into`, as little-endian elements. */
  read(first: number, count: number, into: Uint8Array): Promise<void>;
}

/** Objects that a file may have; a file of activations has a handful. */
const MAX_OBJECTS = 10_000;
const MAX_ATTRIBUTE_BYTES = 64 * 1024;
/** What a chunk may hold: the library holds one whole in memory. */
const MAX_CHUNK_BYTES = 512 << 20;

/** Opens a file and lists it. Throws FormatError when it is not HDF5, empty, truncated or damaged; SaettaError when it cannot be read at all. */
export async function openHdf5(path: string): Promise<Hdf5File> {
  const { handle, size } = await openToRead(path);
  try {
    const bytes = await readSuperblock(handle, size, path);
    const library = await loadHdf5();
    const found = list(library, path);
    const datasets = new Map<string, [Hdf5Dataset, DatasetHeader]>();
    for (const [name, address] of found.datasets) {
      const header = await readDatasetHeader(bytes, address);
      datasets.set(name, [described(name, header), header]);
    }
    return new Hdf5File(bytes, library, datasets, found.attributes);
  } catch (cause) {
    await handle.close();
    throw cannotOpen(path, cause);
  }
}

function described(name: string, { shape, type, dtype, storage, problem }: DatasetHeader): Hdf5Dataset {
  const chunk = storage?.kind === "chunked" ? storage.chunk : undefined;
  return { name, shape, type, dtype, layout: storage?.kind, chunk, problem };
}

export class Hdf5File {
  readonly path: string;
  readonly datasets: readonly Hdf5Dataset[];
  /** Scalar strings and numbers of the root. */
  readonly attributes: ReadonlyMap<string, string | number>;
  readonly #bytes: Hdf5Bytes;
  readonly #library: Hdf5Library;
  readonly #headers: ReadonlyMap<string, [Hdf5Dataset, DatasetHeader]>;
  /** The library's file, opened when chunked data is first asked for. */
  #id: bigint | undefined;
  #closed: boolean = false;

  constructor(
    bytes: Hdf5Bytes,
    library: Hdf5Library,
    headers: ReadonlyMap<string, [Hdf5Dataset, DatasetHeader]>,
    attributes: ReadonlyMap<string, string | number>,
  ) {
    this.path = bytes.path;
    this.datasets = [...headers.values()].map(([dataset]) => dataset);
    this.attributes = attributes;
    this.#bytes = bytes;
    this.#library = library;
    this.#headers = headers;
  }

  /**
   * The dataset as rows: its first `axes` axes (1 or 2) number the rows, what is left, if anything, is the width. Throws SaettaError when there is no such
   * dataset, its data cannot be read or its rank is not `axes` or `axes` + 1.
   */
  rows(name: string, axes: 1 | 2): Hdf5Rows {
    const found = this.#headers.get(name);
    const where = this.path;
    if (found === undefined) throw new SaettaError(`no dataset ${name}`, { where });
    const { shape, dtype, storage, problem } = found[1];
    if (problem !== undefined || dtype === undefined || storage === undefined) {
      throw new FormatError(`${name} cannot be read: ${problem}`, {
        where,
        mend: "write it as plain little-endian numbers in this file, uncompressed or with gzip",
      });
    }
    if (shape.length < axes || shape.length > axes + 1) throw new RangeError(`${name} of shape [${shape.join(", ")}] by ${axes} axes`);
    const total = shape.reduce((product, size) => product * size, HDF5_BYTES[dtype]);
    if (!Number.isSafeInteger(total)) throw new FormatError(`${name} of shape [${shape.join(", ")}] is too large`, { where });
    const width = shape[axes] ?? 1;
    const rows = shape.slice(0, axes).reduce((product, size) => product * size, 1);
    const view = { dtype, rows, width };
    const checked = (read: Hdf5Rows["read"]): Hdf5Rows["read"] => {
      return async (first, count, into) => {
        if (!(first >= 0 && count >= 0 && first + count <= rows)) throw new RangeError(`rows ${first} to ${first + count} of ${rows}`);
        if (into.byteLength < count * width * HDF5_BYTES[dtype]) throw new RangeError(`${count} rows do not fit ${into.byteLength} bytes`);
        if (this.#closed) throw new Error(`${this.path} is closed`);
        await read(first, count, into);
      };
    };
    if (storage.kind === "contiguous") {
      if (storage.bytes !== total) {
        throw new FormatError(`${name} of ${total} bytes is stored in ${storage.bytes}`, { where: `${where}, byte ${storage.position}` });
      }
      const rowBytes = width * HDF5_BYTES[dtype];
      const read: Hdf5Rows["read"] = async (first, count, into) => {
        try {
          await readFully(this.#bytes.handle, into.subarray(0, count * rowBytes), storage.position + first * rowBytes, this.path);
        } catch (cause) {
          throw cause instanceof SaettaError ? cause : new SaettaError(`cannot be read (${messageOf(cause)})`, { where, cause });
        }
      };
      return { ...view, grain: 1, read: checked(read) };
    }
    const chunk = storage.kind === "chunked" ? storage.chunk : shape;
    const chunkBytes = chunk.reduce((product, size) => product * size, HDF5_BYTES[dtype]);
    if (chunk.length !== shape.length || chunkBytes > MAX_CHUNK_BYTES) {
      throw new FormatError(`${name} of shape [${shape.join(", ")}] is stored in chunks of [${chunk.join(", ")}]`, {
        where,
        mend: "write it with chunks of a few MiB",
      });
    }
    const grid = gridOf(shape, chunk, axes, HDF5_BYTES[dtype]);
    return { ...view, grain: grid.grain, read: checked((first, count, into) => this.#readChunked(name, grid, dtype, first, count, into)) };
  }

  async #readChunked(name: string, grid: Grid, dtype: Hdf5DType, first: number, count: number, into: Uint8Array): Promise<void> {
    const library = this.#library;
    const rowBytes = grid.width * HDF5_BYTES[dtype];
    let begun = false;
    for (const { outer, inner } of slabs(grid, first, count)) {
      // The library blocks the event loop: let others have it between slabs.
      if (begun) await setImmediate();
      begun = true;
      if (this.#closed) throw new Error(`${this.path} was closed while it was read`);
      const [height, length] = [outer[1] - outer[0], inner[1] - inner[0]];
      const bytes = height * length * rowBytes;
      ask(this.path, `reading ${name}`, () => {
        this.#id ??= openFile(this.#library, this.path);
        const at = library._malloc(bytes);
        if (at === 0) throw new Error(`no memory for a slab of ${bytes} bytes`);
        try {
          const start = [outer[0], inner[0], 0].slice(3 - grid.rank - grid.unused, 3 - grid.unused).map(BigInt);
          const size = [height, length, grid.width].slice(3 - grid.rank - grid.unused, 3 - grid.unused).map(BigInt);
          const stride = size.map(() => 1n);
          if (library.get_dataset_data(this.#id, name, size, start, stride, BigInt(at)) < 0) throw new Error("the library gives no reason");
          for (let i = 0; i < height; i++) {
            const from = at + i * length * rowBytes;
            const row = (outer[0] + i) * grid.inner + inner[0] - first;
            into.set(library.HEAPU8.subarray(from, from + length * rowBytes), row * rowBytes);
          }
        } finally {
          library._free(at);
        }
      });
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#bytes.handle.close();
    const id = this.#id;
    if (id !== undefined) ask(this.path, "closing", () => this.#library.close_file(id));
  }
}

function openFile(library: Hdf5Library, path: string): bigint {
  return library.open(resolve(path), library.H5F_ACC_RDONLY, false, -1, -1);
}

/** Every dataset that hard links reach, by name, with the address of its object header; and the attributes of the root. */
function list(library: Hdf5Library, path: string): { datasets: Map<string, bigint>; attributes: Map<string, string | number> } {
  return ask(path, "opening", () => {
    const id = openFile(library, path);
    try {
      const datasets = new Map<string, bigint>();
      const seen = new Set<bigint>([addressOf(library, id, "/")]);
      const groups = [""];
      for (let prefix = groups.pop(); prefix !== undefined; prefix = groups.pop()) {
        for (const child of library.get_names(id, `/${prefix}`, false)) {
          const name = prefix + child;
          if (library.get_external_link(id, name).filename !== undefined || library.get_symbolic_link(id, name) !== null) continue;
          const type = library.get_type(id, name);
          const address = addressOf(library, id, name);
          if (type === library.H5G_DATASET) datasets.set(name, address);
          else if (type === library.H5G_GROUP && !seen.has(address)) groups.push(`${name}/`);
          seen.add(address);
          if (datasets.size + seen.size > MAX_OBJECTS) throw new FormatError(`more than ${MAX_OBJECTS} objects`, { where: path });
        }
      }
      return { datasets, attributes: attributesOf(library, id) };
    } finally {
      library.close_file(id);
    }
  });
}

/** An object reference of the old kind is the address of the object's header. */
function addressOf(library: Hdf5Library, id: bigint, name: string): bigint {
  return Buffer.from(library.create_object_reference(id, name)).readBigUInt64LE();
}

function attributesOf(library: Hdf5Library, id: bigint): Map<string, string | number> {
  const attributes = new Map<string, string | number>();
  for (const name of library.get_attribute_names(id, "/")) {
    const value = scalarAttribute(library, id, name);
    if (value !== undefined) attributes.set(name, value);
  }
  return attributes;
}

/** A string or a number that JavaScript holds exactly; undefined for anything else. */
function scalarAttribute(library: Hdf5Library, id: bigint, name: string): string | number | undefined {
  const { type, size, shape, vlen, signed } = library.get_attribute_metadata(id, "/", name);
  const { H5T_STRING, H5T_INTEGER, H5T_FLOAT } = library.H5T_class_t;
  const text = type === H5T_STRING.value;
  const whole = type === H5T_INTEGER.value && [1, 2, 4, 8].includes(size);
  if (shape?.length !== 0 || size > MAX_ATTRIBUTE_BYTES) return undefined;
  if (!text && !whole && !(type === H5T_FLOAT.value && (size === 4 || size === 8))) return undefined;
  const at = library._malloc(size);
  if (at === 0) throw new Error(`no memory for an attribute of ${size} bytes`);
  try {
    library.get_attribute_data(id, "/", name, BigInt(at));
    const bytes = Buffer.from(library.HEAPU8.slice(at, at + size));
    if (text && vlen) {
      const value = library.UTF8ToString(bytes.readUInt32LE());
      library.reclaim_vlen_memory(id, "/", name, BigInt(at));
      return value;
    }
    if (text) return bytes.toString("utf8").replace(/\0.*$/s, "");
    if (!whole) return size === 4 ? bytes.readFloatLE() : bytes.readDoubleLE();
    if (size < 8) return signed ? bytes.readIntLE(0, size) : bytes.readUIntLE(0, size);
    const value = Number(signed ? bytes.readBigInt64LE() : bytes.readBigUInt64LE());
    return Number.isSafeInteger(value) ? value : undefined;
  } finally {
    library._free(at);
  }
}

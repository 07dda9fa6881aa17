/**
 * Reads HDF5 files: what is in them, and rows of their datasets. libhdf5 finds the objects and
 * reads the attributes; the data is read by us, off the event loop: contiguous data with plain
 * reads at its offset, chunks by their index. Soft links are followed within the file; external and
 * virtual references never are, so no other file is ever opened.
 */

import { BYTES, readFully } from "../util/bytes.ts";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import { checkRoom, checkRows } from "../util/rows.ts";
import type { Hdf5Bytes } from "./hdf5-bytes.ts";
import { ChunkReader } from "./hdf5-chunks.ts";
import type { Hdf5DType } from "./hdf5-datatype.ts";
import { type DatasetHeader, type Hdf5Storage, readDatasetHeader, readSuperblock } from "./hdf5-header.ts";
import { listHdf5 } from "./hdf5-library.ts";
import { slabLayout } from "./hdf5-slabs.ts";
import type { Hdf5Listing } from "./hdf5-worker.ts";
import { cannotOpen, openToRead } from "./open-file.ts";

export interface Hdf5Dataset {
  /** Without the leading slash: "hidden_states", "group/name". */
  readonly name: string;
  /** Another name of the same dataset, where this one is a soft link or a further hard link. */
  readonly link?: string;
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

/** What a chunk may hold: one is held whole in memory. */
const MAX_CHUNK_BYTES = 512 << 20;

/**
 * Opens a file and lists it. Throws FormatError when it is not HDF5, empty, truncated or damaged;
 * SaettaError when it cannot be read at all.
 */
export async function openHdf5(path: string): Promise<Hdf5File> {
  const { handle, size } = await openToRead(path);
  try {
    const bytes = await readSuperblock(handle, size, path);
    const found = await listHdf5(path, bytes.closed && { at: bytes.base, bytes: bytes.closed });
    const datasets = new Map<string, [Hdf5Dataset, DatasetHeader]>();
    const names = new Map<bigint, string>();
    for (const [name, address] of found.datasets) {
      const header = await readDatasetHeader(bytes, address);
      datasets.set(name, [described(name, header, names.get(address)), header]);
      if (!names.has(address)) names.set(address, name);
    }
    addLinks(datasets, found);
    return new Hdf5File(bytes, datasets, new Map(found.links), new Map(found.attributes));
  } catch (cause) {
    await handle.close();
    throw cannotOpen(path, cause);
  }
}

function described(
  name: string,
  { shape, type, dtype, storage, problem }: DatasetHeader,
  link: string | undefined,
): Hdf5Dataset {
  const chunk = storage?.kind === "chunked" ? storage.layout.chunk : undefined;
  return { name, shape, type, dtype, layout: storage?.kind, chunk, problem, ...(link !== undefined && { link }) };
}

/**
 * -> datasets: those that soft links lead to, under the names of the links, and links that lead out
 * of the file or nowhere.
 */
function addLinks(datasets: Map<string, [Hdf5Dataset, DatasetHeader]>, { links, external }: Hdf5Listing): void {
  const broken = (name: string, problem: string): void => {
    const header: DatasetHeader = { shape: [], type: "link", dtype: undefined, storage: undefined, problem };
    datasets.set(name, [described(name, header, undefined), header]);
  };
  const all = new Map(links);
  const groups = new Set<string>([""]);
  for (const name of [...datasets.keys(), ...all.keys()])
    for (let at = name.indexOf("/"); at >= 0; at = name.indexOf("/", at + 1)) groups.add(name.slice(0, at));
  for (const [name, target] of links) {
    const resolved = followLinks(name, all);
    const found = resolved === undefined ? undefined : datasets.get(resolved);
    if (found !== undefined && resolved !== undefined)
      datasets.set(name, [{ ...found[0], name, link: resolved }, found[1]]);
    else if (resolved === undefined || !groups.has(resolved))
      broken(name, `it is a link to ${target}, which is not in the file`);
  }
  for (const [name, file] of external) broken(name, `it is a link into another file, ${file}, which is not followed`);
}

const MOST_LINKS = 32;

/**
 * The path that `name` stands for once no part of it is a link; undefined where links go round in
 * circles.
 */
export function followLinks(name: string, links: ReadonlyMap<string, string>): string | undefined {
  let parts = partsOf(name);
  for (let followed = 0; followed <= MOST_LINKS; followed++) {
    const end = parts.findIndex((_, i) => links.has(parts.slice(0, i + 1).join("/")));
    if (end < 0) return parts.join("/");
    parts = [...partsOf(links.get(parts.slice(0, end + 1).join("/"))!), ...parts.slice(end + 1)];
    if (parts.length > MOST_PARTS) return undefined;
  }
  return undefined;
}

const MOST_PARTS = 256;

/** HDF5 knows "." for the group itself, but no "..". */
const partsOf = (path: string): string[] => path.split("/").filter((part) => part !== "" && part !== ".");

export class Hdf5File {
  readonly path: string;
  readonly datasets: readonly Hdf5Dataset[];
  /** What a reader of the data must know of the file. */
  readonly notes: readonly string[];
  /** Scalar strings and numbers of the root. */
  readonly attributes: ReadonlyMap<string, string | number>;
  readonly #bytes: Hdf5Bytes;
  readonly #headers: ReadonlyMap<string, [Hdf5Dataset, DatasetHeader]>;
  readonly #links: ReadonlyMap<string, string>;
  #closed: boolean = false;

  constructor(
    bytes: Hdf5Bytes,
    headers: ReadonlyMap<string, [Hdf5Dataset, DatasetHeader]>,
    links: ReadonlyMap<string, string>,
    attributes: ReadonlyMap<string, string | number>,
  ) {
    this.path = bytes.path;
    this.notes = bytes.closed
      ? [`${bytes.path} was not closed by the program that wrote it (SWMR mode): it is read as far as it was written`]
      : [];
    this.#links = links;
    this.datasets = [...headers.values()].map(([dataset]) => dataset);
    this.attributes = attributes;
    this.#bytes = bytes;
    this.#headers = headers;
  }

  /** The dataset of this name, which may lead through links; undefined where there is none. */
  find(name: string): Hdf5Dataset | undefined {
    const plain = partsOf(name).join("/");
    const found = this.#headers.get(plain) ?? this.#headers.get(followLinks(plain, this.#links) ?? "");
    return found?.[0];
  }

  /**
   * The dataset as rows: its first `axes` axes (1 or 2) number the rows, what is left, if anything,
   * is the width. Throws SaettaError when there is no such dataset, its data cannot be read or its
   * rank is not `axes` or `axes` + 1.
   */
  rows(name: string, axes: 1 | 2): Hdf5Rows {
    const found = this.#headers.get(name);
    const where = this.path;
    if (found === undefined) throw new SaettaError(`no dataset ${name}`, { where });
    const { shape, dtype, storage, problem } = found[1];
    if (problem !== undefined || dtype === undefined || storage === undefined) {
      const mend =
        found[1].type === "link"
          ? "name the file that holds the data"
          : "write it as plain little-endian numbers in this file, uncompressed or with gzip";
      throw new FormatError(`${name} cannot be read: ${problem}`, { where, mend });
    }
    if (shape.length < axes || shape.length > axes + 1)
      throw new RangeError(`${name} of shape [${shape.join(", ")}] by ${axes} axes`);
    const total = shape.reduce((product, size) => product * size, BYTES[dtype]);
    if (!Number.isSafeInteger(total))
      throw new FormatError(`${name} of shape [${shape.join(", ")}] is too large`, { where });
    const width = shape[axes] ?? 1;
    const rows = shape.slice(0, axes).reduce((product, size) => product * size, 1);
    const view = { dtype, rows, width };
    const checked = (read: Hdf5Rows["read"]): Hdf5Rows["read"] => {
      return async (first, count, into) => {
        checkRows(first, count, rows);
        checkRoom(into, count, width * BYTES[dtype]);
        if (this.#closed) throw new Error(`${this.path} is closed`);
        await read(first, count, into);
      };
    };
    if (storage.kind === "contiguous") {
      if (storage.bytes !== total) {
        throw new FormatError(`${name} of ${total} bytes is stored in ${storage.bytes}`, {
          where: `${where}, byte ${storage.position}`,
        });
      }
      const rowBytes = width * BYTES[dtype];
      const read: Hdf5Rows["read"] = async (first, count, into) => {
        try {
          await readFully(
            this.#bytes.handle,
            into.subarray(0, count * rowBytes),
            storage.position + first * rowBytes,
            this.path,
          );
        } catch (cause) {
          throw cause instanceof SaettaError
            ? cause
            : new SaettaError(`cannot be read (${messageOf(cause)})`, { where, cause });
        }
      };
      return { ...view, grain: 1, read: checked(read) };
    }
    if (storage.kind === "compact") {
      const { data } = storage;
      if (data.length !== total)
        throw new FormatError(`${name} of ${total} bytes is stored in ${data.length}`, { where });
      const rowBytes = width * BYTES[dtype];
      const read: Hdf5Rows["read"] = async (first, count, into) =>
        into.set(data.subarray(first * rowBytes, (first + count) * rowBytes));
      return { ...view, grain: Math.max(1, rows), read: checked(read) };
    }
    const { chunk, bytes } = storage.layout;
    if (bytes > MAX_CHUNK_BYTES) {
      throw new FormatError(`${name} of shape [${shape.join(", ")}] is stored in chunks of [${chunk.join(", ")}]`, {
        where,
        mend: "write it with chunks of a few MiB",
      });
    }
    const layout = slabLayout(shape, chunk, axes, BYTES[dtype]);
    const reader = new ChunkReader(this.#bytes, name, storage, layout);
    return { ...view, grain: layout.grain, read: checked((first, count, into) => reader.read(first, count, into)) };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#bytes.handle.close();
  }
}

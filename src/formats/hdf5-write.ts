/**
 * Writes the plainest HDF5 file there is: contiguous little-endian datasets of known shape at the
 * root, and attributes of the root. Superblock version 0, object headers version 1, links kept in
 * the root's header (HDF5 file format specification, II.A, IV.A.1.a, IV.A.2). Every HDF5 library
 * since 1.8 reads it. Data starts at multiples of 4096 bytes, so that it can be read, or mapped, at
 * its offset.
 */

import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { refuseExisting, refuseWriting } from "../util/atomic-write.ts";
import { BYTES, pieces } from "../util/bytes.ts";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { encodeDatatype, encodeStringType, type Hdf5WrittenDType } from "./hdf5-datatype.ts";

export interface Hdf5Layout {
  readonly datasets: readonly {
    readonly name: string;
    readonly dtype: Hdf5WrittenDType;
    readonly shape: readonly number[];
  }[];
  /** Of the root. Strings are stored as fixed-length UTF-8, integers as 32 or 64 bits. */
  readonly attributes: Readonly<Record<string, string | number>>;
}

export interface Hdf5Writer {
  /**
   * Little-endian elements into the dataset, from element `at` on. Each element is written once, in
   * any order.
   */
  write(name: string, at: number, bytes: Uint8Array): Promise<void>;
  /** Makes the file safe on disk and gives it its name. Rejects when a dataset is not complete. */
  close(): Promise<void>;
  /** Removes what was written. Does nothing after close. */
  discard(): Promise<void>;
}

const ALIGNMENT = 4096;
const UNDEFINED = 0xffff_ffff_ffff_ffffn;
const SUPERBLOCK_BYTES = 96;

/**
 * Starts a file, beside `path` under a temporary name until it is closed. Throws SaettaError when
 * `path` exists or its folder cannot be written.
 */
export async function createHdf5(path: string, layout: Hdf5Layout): Promise<Hdf5Writer> {
  const { head, addresses } = layOutHdf5(path, layout);
  const placed = new Map(
    layout.datasets.map((dataset, i) => [
      dataset.name,
      { elementBytes: BYTES[dataset.dtype], address: addresses[i]!, bytes: bytesIn(dataset), done: [] },
    ]),
  );
  await refuseExisting(path);
  const temporary = `${path}.${process.pid}.tmp`;
  let handle: FileHandle;
  try {
    handle = await open(temporary, "wx");
  } catch (cause) {
    if (hasCode(cause, "EEXIST")) {
      throw new SaettaError("is left from an interrupted run", {
        where: temporary,
        mend: "remove it and start again",
        cause,
      });
    }
    throw new SaettaError(`cannot be written (${messageOf(cause)})`, {
      where: path,
      mend: "name a folder that exists and is writable",
      cause,
    });
  }
  const file = new File(path, temporary, handle, placed);
  try {
    await file.put(head, 0);
  } catch (thrown) {
    await file.discard();
    throw thrown;
  }
  return file;
}

interface Placed {
  readonly elementBytes: number;
  readonly address: number;
  readonly bytes: number;
  /** Byte ranges written so far, [from, to), sorted and merged. */
  readonly done: [number, number][];
}

class File implements Hdf5Writer {
  readonly #path: string;
  readonly #temporary: string;
  readonly #handle: FileHandle;
  readonly #placed: ReadonlyMap<string, Placed>;
  #renamed: boolean = false;

  constructor(path: string, temporary: string, handle: FileHandle, placed: ReadonlyMap<string, Placed>) {
    this.#path = path;
    this.#temporary = temporary;
    this.#handle = handle;
    this.#placed = placed;
  }

  async write(name: string, at: number, bytes: Uint8Array): Promise<void> {
    const dataset = this.#placed.get(name);
    if (dataset === undefined) throw new RangeError(`no dataset ${name}`);
    const from = at * dataset.elementBytes;
    const to = from + bytes.byteLength;
    if (
      !(Number.isSafeInteger(from) && from >= 0 && to <= dataset.bytes && bytes.byteLength % dataset.elementBytes === 0)
    ) {
      throw new RangeError(`${bytes.byteLength} bytes at element ${at} do not fit ${name} of ${dataset.bytes} bytes`);
    }
    if (bytes.byteLength === 0) return;
    claim(dataset.done, from, to);
    await this.put(bytes, dataset.address + from);
  }

  async put(bytes: Uint8Array, position: number): Promise<void> {
    try {
      let at = position;
      for (const piece of pieces(bytes)) {
        for (let done = 0; done < piece.byteLength; ) {
          const { bytesWritten } = await this.#handle.write(piece, done, piece.byteLength - done, at);
          done += bytesWritten;
          at += bytesWritten;
        }
      }
    } catch (cause) {
      refuseWriting(this.#path, cause);
    }
  }

  async close(): Promise<void> {
    for (const [name, { bytes, done }] of this.#placed) {
      const written = done.reduce((sum, [from, to]) => sum + to - from, 0);
      if (written !== bytes)
        throw new SaettaError(`${name} has ${written} of its ${bytes} bytes; the file is not complete`, {
          where: this.#path,
        });
    }
    try {
      await this.#handle.sync();
      await this.#handle.close();
      await refuseExisting(this.#path);
      await rename(this.#temporary, this.#path);
      this.#renamed = true;
      const folder = await open(dirname(this.#path), "r");
      await folder.sync().finally(() => folder.close());
    } catch (cause) {
      if (cause instanceof SaettaError) throw cause;
      refuseWriting(this.#path, cause);
    }
  }

  async discard(): Promise<void> {
    if (this.#renamed) return;
    await this.#handle.close(); // again is harmless
    await rm(this.#temporary, { force: true });
  }
}

/** Adds [from, to) to the sorted, merged ranges. */
function claim(done: [number, number][], from: number, to: number): void {
  let i = done.length;
  while (i > 0 && (done[i - 1] as [number, number])[0] > from) i--;
  const before = done[i - 1];
  const after = done[i];
  if ((before !== undefined && before[1] > from) || (after !== undefined && after[0] < to)) {
    throw new RangeError(`bytes ${from} to ${to} were written before`);
  }
  const range: [number, number] = [before?.[1] === from ? before[0] : from, after?.[0] === to ? after[1] : to];
  done.splice(before?.[1] === from ? i - 1 : i, (before?.[1] === from ? 1 : 0) + (after?.[0] === to ? 1 : 0), range);
}

type Dataset = Hdf5Layout["datasets"][number];

function bytesIn({ dtype, shape }: Dataset): number {
  return shape.reduce((product, size) => product * size, BYTES[dtype]);
}

/**
 * Everything before the data, and the byte of the file where the data of each dataset begins: in
 * their order, with gaps of zeros. `path` names the file in errors.
 */
export function layOutHdf5(
  path: string,
  { datasets, attributes }: Hdf5Layout,
): { readonly head: Buffer; readonly addresses: readonly number[] } {
  const names = new Set<string>();
  for (const dataset of datasets) {
    const { name, shape } = dataset;
    const whole =
      shape.length > 0 &&
      shape.every((size) => Number.isInteger(size) && size >= 0) &&
      Number.isSafeInteger(bytesIn(dataset));
    if (!whole || !/^[\w.-]{1,255}$/.test(name) || names.has(name))
      throw new RangeError(`not a dataset: ${name} [${shape.join(", ")}]`);
    names.add(name);
  }
  // The sizes of the headers do not depend on the addresses in them: place with addresses of 0,
  // then write the real ones.
  const root = (headers: readonly number[]): Buffer =>
    objectHeader([
      // Link info: links are in this header.
      message(0x02, Buffer.concat([Buffer.of(0, 0), u64(UNDEFINED), u64(UNDEFINED)])),
      message(0x0a, Buffer.of(0, 0)), // group info: all defaults
      ...datasets.map(({ name }, i) =>
        message(0x06, Buffer.concat([Buffer.of(1, 0, name.length), Buffer.from(name), u64(headers[i] ?? 0)])),
      ),
      ...Object.entries(attributes).map(([name, value]) => attributeMessage(path, name, value)),
    ]);
  const lengths = datasets.map((dataset) => datasetHeader(dataset, 0).length);
  let at = SUPERBLOCK_BYTES + root([]).length;
  const headers = lengths.map((length) => {
    at += length;
    return at - length;
  });
  const parts = [root(headers)];
  const addresses: number[] = [];
  for (const dataset of datasets) {
    if (bytesIn(dataset) > 0) at = Math.ceil(at / ALIGNMENT) * ALIGNMENT;
    addresses.push(at);
    parts.push(datasetHeader(dataset, at));
    at += bytesIn(dataset);
  }
  if (!Number.isSafeInteger(at)) throw new RangeError(`a file of ${at} bytes`);
  return { head: Buffer.concat([superblock(at), ...parts]), addresses };
}

function superblock(endOfFile: number): Buffer {
  const out = Buffer.alloc(SUPERBLOCK_BYTES);
  out.set([0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]);
  out.set([8, 8], 13); // bytes of an address, of a length
  out.set([4, 0, 16, 0], 16); // fan-out of groups of the old kind, of which there are none
  out.writeBigUInt64LE(UNDEFINED, 32); // no list of free space
  out.writeBigUInt64LE(BigInt(endOfFile), 40);
  out.writeBigUInt64LE(UNDEFINED, 48); // no driver
  out.writeBigUInt64LE(BigInt(SUPERBLOCK_BYTES), 64); // the root's object header
  return out;
}

function datasetHeader(dataset: Dataset, address: number): Buffer {
  const bytes = bytesIn(dataset);
  return objectHeader([
    message(0x01, dataspace(dataset.shape)),
    message(0x03, encodeDatatype(dataset.dtype), 1),
    message(0x05, Buffer.of(2, 1, 2, 1, 0, 0, 0, 0)), // fill value: zero, never needed, storage allocated early
    // Layout: contiguous. A dataset without elements has no storage.
    message(0x08, Buffer.concat([Buffer.of(3, 1), u64(bytes === 0 ? UNDEFINED : address), u64(bytes)])),
  ]);
}

function attributeMessage(path: string, name: string, value: string | number): Buffer {
  let type: Buffer;
  let data: Buffer;
  if (typeof value === "string") {
    if (value.includes("\0")) throw new RangeError(`attribute ${name} holds a NUL`);
    data = value === "" ? Buffer.alloc(1) : Buffer.from(value, "utf8");
    type = encodeStringType(data.length);
  } else {
    if (!Number.isSafeInteger(value)) throw new RangeError(`attribute ${name} is not an integer: ${value}`);
    const small = value === (value | 0);
    data = Buffer.alloc(small ? 4 : 8);
    if (small) data.writeInt32LE(value);
    else data.writeBigInt64LE(BigInt(value));
    type = encodeDatatype(small ? "i32" : "i64");
  }
  const label = Buffer.from(`${name}\0`, "utf8");
  const space = dataspace([]);
  const head = Buffer.alloc(8);
  head.writeUInt8(1);
  for (const [i, part] of [label, type, space].entries()) head.writeUInt16LE(part.length, 2 + 2 * i);
  const body = Buffer.concat([head, padded(label), padded(type), padded(space), data]);
  if (body.length > 0xfff0)
    throw new SaettaError(`attribute ${name} of ${data.length} bytes is too long for HDF5`, { where: path });
  return message(0x0c, body);
}

function dataspace(shape: readonly number[]): Buffer {
  return Buffer.concat([Buffer.of(1, shape.length, 0, 0, 0, 0, 0, 0), ...shape.map(u64)]);
}

function objectHeader(messages: readonly Buffer[]): Buffer {
  const body = Buffer.concat(messages);
  const head = Buffer.alloc(16);
  head.writeUInt8(1);
  head.writeUInt16LE(messages.length, 2);
  head.writeUInt32LE(1, 4); // one link points here
  head.writeUInt32LE(body.length, 8);
  return Buffer.concat([head, body]);
}

function message(type: number, data: Buffer, flags = 0): Buffer {
  const body = padded(data);
  const head = Buffer.alloc(8);
  head.writeUInt16LE(type);
  head.writeUInt16LE(body.length, 2);
  head.writeUInt8(flags, 4);
  return Buffer.concat([head, body]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 7)]);
}

function u64(value: number | bigint): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

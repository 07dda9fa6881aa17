/**
 * What is read from an HDF5 file without the HDF5 library: the superblock, and the object header of
 * a dataset: its shape, datatype and layout (HDF5 file format specification, II and IV). This tells
 * where contiguous data lies, and float16 from bfloat16, and sees virtual and external data before
 * the library would open other files for them.
 */

import type { FileHandle } from "node:fs/promises";
import { BYTES, formatBytes, readFully } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";
import { type Hdf5Bytes, length64, position, readBlock, readUnsigned, UNDEFINED } from "./hdf5-bytes.ts";
import { lookup3 } from "./hdf5-checksum.ts";
import type { ChunkLayout } from "./hdf5-chunk-layout.ts";
import { decodeDatatype, type Hdf5DType } from "./hdf5-datatype.ts";
import { type Filter, parseFilters } from "./hdf5-filters.ts";

const SIGNATURE = Buffer.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a);
/** More than any real object header (HDF5 limits a message to 64 KiB). */
const MAX_HEADER_BYTES = 4 << 20;
const MAX_HEADER_BLOCKS = 256;
/**
 * Consistency marks of a superblock of version 3: a program has the file open to write, in SWMR
 * mode.
 */
const [MARK_WRITING, MARK_SWMR] = [1, 4];

/** How the numbers of a dataset are stored. `position` is a byte of the file. */
export type Hdf5Storage =
  | { readonly kind: "contiguous"; readonly position: number; readonly bytes: number }
  | {
      readonly kind: "chunked";
      readonly layout: ChunkLayout;
      readonly filters: readonly Filter[];
      /** What an element is that was never written. */
      readonly fill: Uint8Array;
    }
  | { readonly kind: "compact"; readonly data: Uint8Array };

export interface DatasetHeader {
  readonly shape: readonly number[];
  /** In words: "f16", "big-endian f32", "compound". */
  readonly type: string;
  readonly dtype: Hdf5DType | undefined;
  /** Undefined where the data cannot be read from this file; `problem` says why. */
  readonly storage: Hdf5Storage | undefined;
  readonly problem: string | undefined;
}

/**
 * Finds the superblock: at byte 0, 512, 1024, 2048, ... Throws FormatError when there is none or
 * the file is shorter than it says.
 */
export async function readSuperblock(handle: FileHandle, size: number, path: string): Promise<Hdf5Bytes> {
  if (size === 0) throw new FormatError("the file is empty", { where: path, mend: "write or copy it again" });
  const block = Buffer.alloc(96);
  for (let base = 0; base + 48 <= size; base = base === 0 ? 512 : base * 2) {
    const head = block.subarray(0, Math.min(block.length, size - base));
    await readFully(handle, head, base, path);
    if (!head.subarray(0, 8).equals(SIGNATURE)) continue;
    const closed = checkSuperblock(head, base, size, path);
    return { handle, path, size, base, closed };
  }
  throw new FormatError("not an HDF5 file (no HDF5 signature at byte 0)", {
    where: path,
    mend: "give a file written by h5py or by saetta harvest",
  });
}

/**
 * -> the superblock of the file as if it had been closed now, where it was left open in SWMR mode.
 */
function checkSuperblock(head: Buffer, base: number, size: number, path: string): Uint8Array | undefined {
  const version = head[8] as number;
  const old = version < 2;
  const where = `${path}, byte ${base}`;
  if (version > 3)
    throw new FormatError(`superblock version ${version} is not known`, {
      where,
      mend: "write it with an older library version",
    });
  const [address, length] = old ? [head[13], head[14]] : [head[9], head[10]];
  if (address !== 8 || length !== 8)
    throw new FormatError(`addresses of ${address} and lengths of ${length} bytes; only 8 are read`, { where });
  const at = old ? (version === 0 ? 24 : 28) : 12;
  if (at + 24 > head.length)
    throw new FormatError("the file is truncated inside its superblock", { where, mend: "copy or write it again" });
  const stored = head.readBigUInt64LE(at);
  const end = head.readBigUInt64LE(at + 16);
  if (end === UNDEFINED || end < stored) throw new FormatError("the superblock gives no end of the file", { where });
  const needed = end - stored + BigInt(base);
  if (needed > BigInt(size)) {
    throw new FormatError(`the file is truncated: it has ${size} of ${needed} bytes`, {
      where: path,
      mend: "copy or write it again",
    });
  }
  const marks = version === 3 ? (head[11] as number) : 0;
  const swmr = (marks & MARK_SWMR) !== 0;
  if ((marks & MARK_WRITING) !== 0 && !swmr) {
    throw new FormatError("was not closed by the program that wrote it, and may lack what was written last", {
      where: path,
      mend: "close it there, or clear the mark with h5clear --status and check it",
    });
  }
  return swmr ? closedSuperblock(head.subarray(0, 48), stored + BigInt(size - base), where) : undefined;
}

/**
 * A superblock of version 3 without its marks, whose file ends at address `end`. Its checksum must
 * be right before it is made right again.
 */
function closedSuperblock(head: Buffer, end: bigint, where: string): Uint8Array {
  if (head.readUInt32LE(44) !== lookup3(head.subarray(0, 44)))
    throw new FormatError("the superblock is damaged: its checksum is wrong", { where });
  const closed = Buffer.from(head);
  closed[11] = 0;
  closed.writeBigUInt64LE(end, 28);
  closed.writeUInt32LE(lookup3(closed.subarray(0, 44)), 44);
  return closed;
}

/**
 * Reads the object header of the dataset at `address`. Throws FormatError, naming file and byte,
 * when it is damaged.
 */
export async function readDatasetHeader(file: Hdf5Bytes, address: bigint): Promise<DatasetHeader> {
  const messages = await readMessages(file, position(file, address, `${file.path}, object header`));
  const find = (type: number): Message | undefined => messages.find((m) => m.type === type);
  const needed = (type: number, name: string): Message => {
    const found = find(type);
    if (found === undefined)
      throw new FormatError(`the dataset has no ${name}`, { where: `${file.path}, byte ${address}` });
    return found;
  };
  const space = needed(0x01, "dataspace");
  const datatype = needed(0x03, "datatype");
  const layout = needed(0x08, "layout");
  const extent = space.shared ? undefined : parseDataspace(file, space);
  const type = datatype.shared ? { words: "committed datatype" } : decodeDatatype(datatype.data);
  const pipeline = find(0x0b);
  const filters =
    pipeline === undefined ? [] : pipeline.shared ? "its filters are described elsewhere" : parseFilters(pipeline.data);
  const stored = storageOf();
  const problem =
    extent === undefined
      ? "it has no plain shape"
      : typeof stored === "string"
        ? stored
        : type.dtype === undefined
          ? `its elements are of type ${type.words}`
          : undefined;

  function storageOf(): Hdf5Storage | string | undefined {
    if (find(0x07) !== undefined) return "its data is in another file (external storage)";
    if (typeof filters === "string") return filters;
    if (extent === undefined) return undefined;
    const kind = layout.data[1];
    // Where elements are no numbers, what is in the chunks is of no use.
    if (kind === 2 && type.dtype === undefined) return undefined;
    const elementBytes = type.dtype === undefined ? 1 : BYTES[type.dtype];
    const fill = parseFill(find(0x05), elementBytes, `${file.path}, byte ${address}`);
    return parseLayout(file, layout, { extent, elementBytes, filters, fill });
  }
  return {
    shape: extent?.shape ?? [],
    type: type.words,
    dtype: type.dtype,
    storage: typeof stored === "string" ? undefined : stored,
    problem,
  };
}

interface Message {
  readonly type: number;
  readonly shared: boolean;
  readonly data: Buffer;
  /** Byte of the file where the data begins. */
  readonly at: number;
}

async function readMessages(file: Hdf5Bytes, start: number): Promise<Message[]> {
  const { path } = file;
  const prefix = await readBlock(file, start, Math.min(48, file.size - start), "an object header");
  const damaged = (): FormatError => new FormatError("damaged object header", { where: `${path}, byte ${start}` });
  const messages: Message[] = [];
  /**
   * Blocks to read: [first byte, bytes]. Version 2 blocks end with a checksum; its continuations
   * begin with a signature.
   */
  const blocks: [number, number][] = [];
  let prefixBytes: number;
  let trackOrder = false;
  const modern = prefix.toString("latin1", 0, 4) === "OHDR";
  if (modern && prefix.length >= 32 && prefix[4] === 2) {
    const flags = prefix[5] as number;
    trackOrder = (flags & 4) !== 0;
    const sizeAt = 6 + ((flags & 0x20) === 0 ? 0 : 16) + ((flags & 0x10) === 0 ? 0 : 4);
    const width = 1 << (flags & 3);
    prefixBytes = sizeAt + width;
    const size = width === 8 ? Number(prefix.readBigUInt64LE(sizeAt)) : prefix.readUIntLE(sizeAt, width);
    blocks.push([start + prefixBytes, size]);
  } else if (!modern && prefix.length >= 16 && prefix[0] === 1) {
    blocks.push([start + 16, prefix.readUInt32LE(8)]);
  } else throw damaged();

  let total = 0;
  for (let i = 0; i < blocks.length; i++) {
    const [first, length] = blocks[i] as [number, number];
    total += length;
    if (blocks.length > MAX_HEADER_BLOCKS || total > MAX_HEADER_BYTES) throw damaged();
    const block = await readBlock(file, first, length, "an object header");
    const prefixed = modern ? (trackOrder ? 6 : 4) : 8;
    let at = modern && i > 0 ? 4 : 0;
    const end = modern && i > 0 ? length - 4 : length;
    while (at + prefixed <= end) {
      const type = modern ? (block[at] as number) : block.readUInt16LE(at);
      const size = block.readUInt16LE(at + (modern ? 1 : 2));
      const flags = block[at + (modern ? 3 : 4)] as number;
      const from = at + prefixed;
      at = from + size;
      if (at > end)
        throw new FormatError("a message runs past its object header", { where: `${path}, byte ${first + from}` });
      const data = block.subarray(from, at);
      if (type !== 0x10) messages.push({ type, shared: (flags & 2) !== 0, data, at: first + from });
      else if (size < 16) throw damaged();
      else
        blocks.push([
          position(file, data.readBigUInt64LE(0), `${path}, byte ${first + from}`),
          length64(file, data.readBigUInt64LE(8), first + from),
        ]);
    }
  }
  return messages;
}

interface Extent {
  readonly shape: readonly number[];
  /** undefined: unlimited. */
  readonly most: readonly (number | undefined)[];
}

/** undefined: no or not a simple extent. */
function parseDataspace(file: Hdf5Bytes, { data, at }: Message): Extent | undefined {
  const [version, rank = 0, flags = 0] = data;
  if (version !== 1 && version !== 2)
    throw new FormatError(`dataspace version ${version} is not known`, { where: `${file.path}, byte ${at}` });
  if (version === 2 && data[3] === 2) return undefined;
  const first = version === 1 ? 8 : 4;
  const limited = (flags & 1) !== 0;
  if (rank > 32 || data.length < first + 8 * rank * (limited ? 2 : 1))
    throw new FormatError("damaged dataspace", { where: `${file.path}, byte ${at}` });
  const size = (i: number): number => length64(file, data.readBigUInt64LE(first + 8 * i), at);
  const shape = Array.from({ length: rank }, (_, i) => size(i));
  const most = shape.map((now, i) => {
    if (!limited) return now;
    return data.readBigUInt64LE(first + 8 * (rank + i)) === UNDEFINED ? undefined : size(rank + i);
  });
  if (most.some((size, i) => size !== undefined && size < shape[i]!))
    throw new FormatError("a dataset larger than it may be", { where: `${file.path}, byte ${at}` });
  return { shape, most };
}

/** What else says how the data is stored. */
interface Around {
  readonly extent: Extent;
  readonly elementBytes: number;
  readonly filters: readonly Filter[];
  readonly fill: Uint8Array;
}

/** A string says why the data cannot be read. */
function parseLayout(file: Hdf5Bytes, { data, at }: Message, around: Around): Hdf5Storage | string {
  const [version, kind] = data;
  if (version === undefined || version < 3 || version > 5) return `layout version ${version} is not known`;
  const where = `${file.path}, byte ${at}`;
  if (kind === 0) {
    if (data.length < 4 || data.length < 4 + data.readUInt16LE(2)) throw damagedLayout(where);
    return { kind: "compact", data: data.subarray(4, 4 + data.readUInt16LE(2)) };
  }
  if (kind === 1) {
    if (data.length < 18) throw damagedLayout(where);
    const address = data.readBigUInt64LE(2);
    if (address === UNDEFINED) return "it was never written";
    const first = position(file, address, where);
    const bytes = length64(file, data.readBigUInt64LE(10), at);
    if (first + bytes > file.size) {
      throw new FormatError(`the data of ${formatBytes(bytes)} runs past the end of the file`, {
        where: `${file.path}, byte ${first}`,
      });
    }
    return { kind: "contiguous", position: first, bytes };
  }
  if (kind === 2) return parseChunked(data, version, where, around);
  return kind === 3 ? "its data is in other files (virtual dataset)" : `layout class ${kind} is not known`;
}

function damagedLayout(where: string): FormatError {
  return new FormatError("damaged layout message", { where });
}

const INDEXES = [undefined, "single", "implicit", "fixed", "extensible", "btree2"] as const;
/**
 * Bytes that the description of each kind of index takes, without those of a filtered single chunk.
 */
const INDEX_BYTES = { single: 0, implicit: 0, fixed: 1, extensible: 5, btree2: 6 } as const;

function parseChunked(
  data: Buffer,
  version: number,
  where: string,
  { extent, elementBytes, filters, fill }: Around,
): Hdf5Storage | string {
  const { shape, most } = extent;
  const old = version === 3;
  // The last dimension is the element's size.
  const rank = data[old ? 2 : 3] ?? 0;
  const width = old ? 4 : (data[4] ?? 0);
  const first = old ? 11 : 5;
  const end = first + width * rank;
  if (rank < 2 || rank > 33 || width < 1 || width > 8 || data.length < end + (old ? 0 : 1)) throw damagedLayout(where);
  const dimensions = Array.from({ length: rank }, (_, i) => readUnsigned(data, first + width * i, width));
  const chunk = dimensions.slice(0, -1);
  if (chunk.some((size) => !(size >= 1 && size <= 0xffff_ffff)))
    throw new FormatError(`chunks of [${chunk.join(", ")}]`, { where });
  if (chunk.length !== shape.length || dimensions.at(-1) !== elementBytes) {
    throw new FormatError(`chunks of [${dimensions.join(", ")}] for [${shape.join(", ")}] of ${elementBytes} bytes`, {
      where,
    });
  }
  const bytes = chunk.reduce((product, size) => product * size, elementBytes);
  const common = { chunk, bytes, shape, most, filtered: filters.length > 0 };
  if (old) {
    const layout: ChunkLayout = {
      ...common,
      index: "btree1",
      address: data.readBigUInt64LE(3),
      edgesUnfiltered: false,
      single: undefined,
    };
    return { kind: "chunked", layout, filters, fill };
  }
  const flags = data[2]!;
  const index = INDEXES[data[end]!];
  if (index === undefined) return `an index of chunks of kind ${data[end]} is not known`;
  const measured = index === "single" && (flags & 2) !== 0;
  const addressAt = end + 1 + (measured ? 12 : INDEX_BYTES[index]);
  if (data.length < addressAt + 8) throw damagedLayout(where);
  const single = measured ? { bytes: readUnsigned(data, end + 1, 8), mask: data.readUInt32LE(end + 9) } : undefined;
  const layout: ChunkLayout = {
    ...common,
    index,
    address: data.readBigUInt64LE(addressAt),
    edgesUnfiltered: (flags & 1) !== 0,
    single,
  };
  return { kind: "chunked", layout, filters, fill };
}

/**
 * The fill value message (IV.A.2.f): the element that stands where nothing was written; zeros where
 * it says none.
 */
function parseFill(message: Message | undefined, elementBytes: number, where: string): Uint8Array {
  const zero = new Uint8Array(elementBytes);
  if (message === undefined || message.shared) return zero;
  const { data } = message;
  const version = data[0];
  const [defined, sizeAt] = version === 3 ? [((data[1] ?? 0) & 0x20) !== 0, 2] : [data[3] === 1, 4];
  if (!defined || data.length < sizeAt + 4) return zero;
  const size = data.readUInt32LE(sizeAt);
  if (size === 0 || size === 0xffff_ffff) return zero;
  if (size !== elementBytes || data.length < sizeAt + 4 + size)
    throw new FormatError("damaged fill value message", { where });
  return data.subarray(sizeAt + 4, sizeAt + 4 + size);
}

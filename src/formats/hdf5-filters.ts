/**
 * The filter pipeline of HDF5 (format specification, IV.A.2.l): what chunks were put through before
 * they were stored, and how it is undone. What comes out of a filter is bounded by what the chunk
 * holds, so that no chunk unpacks to more than the file's own description of it.
 */

import { promisify } from "node:util";
import { inflate } from "node:zlib";
import { hasCode, messageOf } from "../util/errors.ts";

const DEFLATE = 1;
const SHUFFLE = 2;
const FLETCHER32 = 3;

const NAMES: Readonly<Record<number, string>> = {
  4: "szip",
  5: "n-bit",
  6: "scale-offset",
  307: "bzip2",
  32000: "lzf",
  32001: "blosc",
  32004: "lz4",
  32008: "bitshuffle",
  32013: "zfp",
  32015: "zstd",
  32026: "blosc2",
};

export interface Filter {
  readonly id: number;
  readonly values: readonly number[];
}

/**
 * The filters in the order in which they were applied; a string says why they cannot be undone
 * here.
 */
export function parseFilters(message: Buffer): readonly Filter[] | string {
  const damaged = "its description of filters is damaged";
  const [version, count] = message;
  if ((version !== 1 && version !== 2) || count === undefined || count > 32) return damaged;
  const filters: Filter[] = [];
  let at = version === 1 ? 8 : 2;
  for (let i = 0; i < count; i++) {
    if (at + 2 > message.length) return damaged;
    const id = message.readUInt16LE(at);
    // The second version leaves out the length of the names of HDF5's own filters, and all padding.
    const named = version === 1 || id >= 256;
    if (at + (named ? 8 : 6) > message.length) return damaged;
    const nameBytes = named ? message.readUInt16LE(at + 2) : 0;
    const number = message.readUInt16LE(at + (named ? 6 : 4));
    const name = at + (named ? 8 : 6);
    const data = name + (version === 1 ? Math.ceil(nameBytes / 8) * 8 : nameBytes);
    if (id !== DEFLATE && id !== SHUFFLE && id !== FLETCHER32) {
      return `it is compressed with a filter that is not known here (${NAMES[id] ?? `number ${id}`})`;
    }
    if (data + 4 * number > message.length) return damaged;
    filters.push({ id, values: Array.from({ length: number }, (_, j) => message.readUInt32LE(data + 4 * j)) });
    at = data + 4 * number + (version === 1 && number % 2 === 1 ? 4 : 0);
  }
  return filters;
}

const inflated = promisify(inflate) as (
  bytes: Uint8Array,
  options: { maxOutputLength: number; chunkSize: number },
) => Promise<Buffer>;

/**
 * What a chunk of `bytes` bytes was before the filters; bit i of `mask` says that filter i was left
 * out. Throws Error that says what is wrong.
 */
export async function unfiltered(
  stored: Uint8Array,
  filters: readonly Filter[],
  mask: number,
  bytes: number,
): Promise<Uint8Array> {
  let data = stored;
  // Before the last filter is undone there may be checksums besides the chunk.
  const most = bytes + 4 * filters.length;
  for (let i = filters.length - 1; i >= 0; i--) {
    const { id, values } = filters[i]!;
    if (((mask >>> i) & 1) === 1) continue;
    if (id === DEFLATE) data = await unpacked(data, most);
    else if (id === SHUFFLE) data = unshuffled(data, values[0] ?? 0);
    else data = checked(data);
  }
  if (data.length !== bytes) throw new Error(`it holds ${data.length} bytes, not ${bytes}`);
  return data;
}

async function unpacked(data: Uint8Array, most: number): Promise<Uint8Array> {
  try {
    // In one go: each piece of `chunkSize` is a way to another thread and back.
    return await inflated(data, { maxOutputLength: most, chunkSize: Math.max(64, most + 1) });
  } catch (cause) {
    if (hasCode(cause, "ERR_BUFFER_TOO_LARGE")) throw new Error(`it unpacks to more than ${most} bytes`, { cause });
    throw new Error(`no deflate stream (${messageOf(cause)})`, { cause });
  }
}

/**
 * Byte j of element i stands at j * elements + i. What is no whole element stands at the end as it
 * is.
 */
function unshuffled(data: Uint8Array, size: number): Uint8Array {
  if (size <= 1) return data;
  const elements = Math.floor(data.length / size);
  const out = new Uint8Array(data.length);
  if (size === 2) {
    const halves = new Uint16Array(out.buffer, 0, elements);
    for (let i = 0; i < elements; i++) halves[i] = data[i]! | (data[elements + i]! << 8);
  } else if (size === 4) {
    const words = new Uint32Array(out.buffer, 0, elements);
    const [second, third, last] = [elements, 2 * elements, 3 * elements];
    for (let i = 0; i < elements; i++) {
      words[i] = data[i]! | (data[second + i]! << 8) | (data[third + i]! << 16) | (data[last + i]! << 24);
    }
  } else unshuffledBytes(data, out, size, elements);
  out.set(data.subarray(elements * size), elements * size);
  return out;
}

function unshuffledBytes(data: Uint8Array, out: Uint8Array, size: number, elements: number): void {
  for (let j = 0, from = 0; j < size && elements > 0; j++)
    for (let i = 0, to = j; i < elements; i++, to += size) out[to] = data[from++]!;
}

/** The data before a Fletcher-32 checksum that is right. */
function checked(data: Uint8Array): Uint8Array {
  const length = data.length - 4;
  if (length < 0) throw new Error("its checksum is missing");
  const stored = Buffer.from(data.buffer, data.byteOffset + length, 4).readUInt32LE();
  const sum = fletcher32(data.subarray(0, length));
  // Versions before 1.6.3 stored it with the bytes of each half the other way round.
  const swapped = (((sum & 0x00ff00ff) << 8) | ((sum >>> 8) & 0x00ff00ff)) >>> 0;
  if (stored !== sum && stored !== swapped) throw new Error("its checksum is wrong");
  return data.subarray(0, length);
}

/** Over big-endian 16-bit words, as HDF5 computes it on any machine. */
export function fletcher32(data: Uint8Array): number {
  let low = 0;
  let high = 0;
  const fold = (sum: number): number => (sum & 0xffff) + (sum >>> 16);
  const words = data.length >>> 1;
  for (let i = 0; i < words; ) {
    // As many as 32 bits take without a carry.
    for (const end = Math.min(words, i + 360); i < end; i++) {
      low += (data[2 * i]! << 8) | data[2 * i + 1]!;
      high += low;
    }
    low = fold(low);
    high = fold(high);
  }
  if (data.length % 2 === 1) {
    low += data[data.length - 1]! << 8;
    high += low;
    low = fold(low);
    high = fold(high);
  }
  low = fold(low);
  high = fold(high);
  return ((high << 16) | low) >>> 0;
}

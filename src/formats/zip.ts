/**
 * Zip archives, as torch.save and NumPy write them: entries stored or deflated, with zip64 records
 * where sizes or offsets pass 32 bits (PKWARE, "APPNOTE.TXT", 4.3 to 4.5). No more is inflated than
 * the directory states, and the directory cannot state more than deflate can hold.
 */

import { once } from "node:events";
import type { FileHandle } from "node:fs/promises";
import { Readable } from "node:stream";
import { constants, crc32, createInflateRaw, inflateRawSync } from "node:zlib";
import { readFully } from "../util/bytes.ts";
import { FormatError, hasCode } from "../util/errors.ts";

/** An entry of an archive; its data are the bytes [begin, end) of the file. */
export interface ZipEntry {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
  readonly crc32: number;
  /** Bytes of the data once they are inflated. */
  readonly size: number;
  /** 0: stored as it is. 8: deflated. */
  readonly method: number;
}

export const ZIP = {
  local: 0x0403_4b50,
  central: 0x0201_4b50,
  end: 0x0605_4b50,
  end64: 0x0606_4b50,
  locator64: 0x0706_4b50,
  /** Lengths of the fixed parts, in bytes. */
  localBytes: 30,
  centralBytes: 46,
  endBytes: 22,
  end64Bytes: 56,
  locator64Bytes: 20,
  /** What stands in a field of 2 or 4 bytes whose value is in a zip64 record. */
  full16: 0xffff,
  full32: 0xffff_ffff,
} as const;

const DEFLATED = 8;
/** Deflate makes at most 258 bytes of 2 bits. */
const MOST_INFLATED = 1032;
const MOST_ENTRIES = 100_000;
const MOST_DIRECTORY = 64 * 1024 * 1024;

/**
 * The entries of an archive of `size` bytes, by name. Throws FormatError for what is damaged,
 * compressed, encrypted or overlaps.
 */
export async function readZip(file: FileHandle, size: number, path: string): Promise<ReadonlyMap<string, ZipEntry>> {
  const refuse: Refuse = (what, at, mend) => {
    throw new FormatError(`byte ${at}: ${what}`, { where: path, ...(mend === undefined ? {} : { mend }) });
  };
  const directory = await findDirectory(file, size, path, refuse);
  const bytes = await part(file, directory.begin, directory.size, path);
  const listed = parseDirectory(bytes, directory, refuse);
  const entries: ZipEntry[] = [];
  for (const each of listed) entries.push(await withData(file, each, directory.begin, path, refuse));
  const ordered = listed.map((each, i) => ({ header: each.header, end: entries[i]!.end, name: each.name }));
  ordered.sort((a, b) => a.header - b.header);
  for (const [i, { header, name }] of ordered.entries()) {
    const before = ordered[i - 1];
    if (before !== undefined && header < before.end) refuse(`entry "${name}" starts inside "${before.name}"`, header);
  }
  return new Map(entries.map((entry) => [entry.name, entry]));
}

type Refuse = (what: string, at: number, mend?: string) => never;

interface Directory {
  readonly begin: number;
  readonly size: number;
  readonly entries: number;
}

async function findDirectory(file: FileHandle, size: number, path: string, refuse: Refuse): Promise<Directory> {
  const tail = await part(
    file,
    Math.max(0, size - ZIP.endBytes - ZIP.full16),
    Math.min(size, ZIP.endBytes + ZIP.full16),
    path,
  );
  const start = size - tail.byteLength;
  const view = viewOf(tail);
  let at = tail.byteLength - ZIP.endBytes;
  // The record ends with a comment whose length it gives, at the end of the file.
  while (
    at >= 0 &&
    !(view.getUint32(at, true) === ZIP.end && at + ZIP.endBytes + view.getUint16(at + 20, true) === tail.byteLength)
  )
    at--;
  if (at < 0) return refuse("the archive has no end record: the file is cut short or no zip archive", size);
  const end = start + at;
  const found = {
    entries: view.getUint16(at + 10, true),
    size: view.getUint32(at + 12, true),
    begin: view.getUint32(at + 16, true),
  };
  const large = found.entries === ZIP.full16 || found.size === ZIP.full32 || found.begin === ZIP.full32;
  const directory = large ? await findDirectory64(file, end, path, refuse) : { ...found, limit: end };
  const { entries, begin, limit } = directory;
  if (begin + directory.size > limit)
    refuse(`the directory, bytes ${begin} to ${begin + directory.size}, passes byte ${limit}`, end);
  if (entries > MOST_ENTRIES || directory.size > MOST_DIRECTORY)
    refuse(`the archive has ${entries} entries, too many to be read`, end);
  return directory;
}

async function findDirectory64(
  file: FileHandle,
  end: number,
  path: string,
  refuse: Refuse,
): Promise<Directory & { readonly limit: number }> {
  const at = end - ZIP.locator64Bytes;
  if (at < 0) return refuse("the end record refers to a zip64 record, for which there is no room", end);
  const locator = viewOf(await part(file, at, ZIP.locator64Bytes, path));
  if (locator.getUint32(0, true) !== ZIP.locator64)
    refuse("the end record refers to a zip64 record, which is not there", at);
  const limit = Number(locator.getBigUint64(8, true));
  if (!(limit + ZIP.end64Bytes <= at))
    return refuse(`the zip64 end record at byte ${limit} would pass its locator`, at);
  const record = viewOf(await part(file, limit, ZIP.end64Bytes, path));
  if (record.getUint32(0, true) !== ZIP.end64) refuse("no zip64 end record", limit);
  const [entries, size, begin] = [32, 40, 48].map((offset) => Number(record.getBigUint64(offset, true))) as [
    number,
    number,
    number,
  ];
  return { entries, size, begin, limit };
}

interface Listed extends Pick<ZipEntry, "name" | "crc32" | "method" | "size"> {
  /** Bytes in the file. */
  readonly stored: number;
  /** Where its local header starts. */
  readonly header: number;
}

function parseDirectory(bytes: Uint8Array, { begin, entries }: Directory, refuse: Refuse): Listed[] {
  const view = viewOf(bytes);
  const found = new Map<string, Listed>();
  let at = 0;
  for (let i = 0; i < entries; i++) {
    const here = begin + at;
    if (at + ZIP.centralBytes > bytes.byteLength || view.getUint32(at, true) !== ZIP.central) {
      refuse(`entry ${i} of ${entries} is not in the directory`, here);
    }
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => view.getUint16(at + field, true)) as [
      number,
      number,
      number,
    ];
    const next = at + ZIP.centralBytes + nameLength + extraLength + commentLength;
    if (next > bytes.byteLength) refuse(`entry ${i} passes the end of the directory`, here);
    const nameEnd = at + ZIP.centralBytes + nameLength;
    const name = Buffer.from(bytes.subarray(at + ZIP.centralBytes, nameEnd)).toString("utf8");
    const method = view.getUint16(at + 10, true);
    if ((view.getUint16(at + 8, true) & 1) !== 0) refuse(`entry "${name}" is encrypted`, here);
    const extra = bytes.subarray(nameEnd, nameEnd + extraLength);
    const fields = [view.getUint32(at + 24, true), view.getUint32(at + 20, true), view.getUint32(at + 42, true)];
    const [size, stored, header] = widened(fields, extra) ?? refuse(`entry "${name}" lacks its zip64 sizes`, here);
    if (method === 0 && size !== stored) refuse(`entry "${name}" has ${size} bytes but ${stored} are stored`, here);
    if (found.has(name)) refuse(`entry "${name}" stands twice in the archive`, here);
    if (method === DEFLATED && size > MOST_INFLATED * stored)
      refuse(`entry "${name}" states ${size} bytes, more than ${stored} can inflate to`, here);
    found.set(name, { name, size, stored, header, method, crc32: view.getUint32(at + 16, true) });
    at = next;
  }
  return [...found.values()];
}

/**
 * Size, stored size and offset, those that do not fit 32 bits from the zip64 extra field (id 1),
 * where they stand in this order.
 */
function widened(fields: readonly number[], extra: Uint8Array): [number, number, number] | undefined {
  const view = viewOf(extra);
  let at = 0;
  let end = 0;
  for (let next = 0; next + 4 <= extra.byteLength; ) {
    const length = view.getUint16(next + 2, true);
    if (view.getUint16(next, true) === 1 && next + 4 + length <= extra.byteLength)
      [at, end] = [next + 4, next + 4 + length];
    next += 4 + length;
  }
  const wide: number[] = [];
  for (const field of fields) {
    if (field !== ZIP.full32) {
      wide.push(field);
      continue;
    }
    if (at + 8 > end) return undefined;
    wide.push(Number(view.getBigUint64(at, true)));
    at += 8;
  }
  return wide as [number, number, number];
}

/** Finds the data behind the entry's local header, which must be before `limit`. */
async function withData(
  file: FileHandle,
  { name, size, stored, header, method, crc32: sum }: Listed,
  limit: number,
  path: string,
  refuse: Refuse,
): Promise<ZipEntry> {
  if (!(header + ZIP.localBytes <= limit))
    return refuse(`entry "${name}" starts at byte ${header}, beyond the entries`, limit);
  const local = viewOf(await part(file, header, ZIP.localBytes, path));
  if (local.getUint32(0, true) !== ZIP.local) refuse(`entry "${name}" does not start here`, header);
  const begin = header + ZIP.localBytes + local.getUint16(26, true) + local.getUint16(28, true);
  const end = begin + stored;
  if (!(end <= limit)) refuse(`entry "${name}" ends at byte ${end}, beyond the entries, which end at ${limit}`, header);
  const own = await part(file, header + ZIP.localBytes, local.getUint16(26, true), path);
  if (Buffer.from(own).toString("utf8") !== name)
    refuse(`the entry here is not "${name}", as the directory says`, header);
  return { name, begin, end, crc32: sum, size, method };
}

/** More than any header of an array. */
const MOST_OF_START = 1024 * 1024;

/**
 * The entry at the start of an archive of which only the first bytes are there, with as much of its
 * data as they hold; undefined where there is none, or it is damaged.
 */
export function localEntry(start: Uint8Array): { readonly name: string; readonly data: Uint8Array } | undefined {
  if (start.byteLength < ZIP.localBytes) return undefined;
  const view = viewOf(start);
  const [method, nameLength, extraLength] = [8, 26, 28].map((at) => view.getUint16(at, true)) as [
    number,
    number,
    number,
  ];
  if (view.getUint32(0, true) !== ZIP.local || (method !== 0 && method !== DEFLATED)) return undefined;
  const nameEnd = ZIP.localBytes + nameLength;
  const name = Buffer.from(start.subarray(ZIP.localBytes, nameEnd)).toString("utf8");
  const data = start.subarray(nameEnd + extraLength);
  if (method === 0) return { name, data };
  try {
    const options = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: MOST_OF_START };
    return { name, data: inflateRawSync(data, options) };
  } catch (thrown) {
    if (hasCode(thrown, "Z_DATA_ERROR", "Z_BUF_ERROR", "Z_NEED_DICT", "ERR_BUFFER_TOO_LARGE")) return undefined;
    throw thrown;
  }
}

/** Bytes of an entry that are looked at together. */
const PIECE = 16 * 1024 * 1024;
/** The same where only the first may be looked at, and where they are deflated. */
const DATA_PIECE = 1024 * 1024;
const DEFLATED_PIECE = 64 * 1024;

/**
 * Reads the whole entry piece by piece and compares its checksum. Throws FormatError when it
 * differs.
 */
export async function checkEntry(file: FileHandle, entry: ZipEntry, path: string): Promise<void> {
  refuseCompressed(entry, path);
  let found = 0;
  for await (const piece of storedPieces(file, entry, PIECE, path)) found = crc32(piece, found);
  compareSum(entry, found, path);
}

/** The bytes of an entry, after its checksum has been compared. */
export async function readEntry(file: FileHandle, entry: ZipEntry, path: string): Promise<Uint8Array> {
  refuseCompressed(entry, path);
  const bytes = await part(file, entry.begin, entry.end - entry.begin, path);
  compareSum(entry, crc32(bytes), path);
  return bytes;
}

/**
 * The data of an entry, stored or deflated, in pieces that are valid until the next one. All of
 * them together have the size and the checksum that the directory states: what differs throws
 * FormatError.
 */
export async function* entryData(file: FileHandle, entry: ZipEntry, path: string): AsyncGenerator<Uint8Array> {
  const { name, begin, size, method } = entry;
  const refuse = (what: string): never => {
    throw new FormatError(`byte ${begin}: entry "${name}" ${what}`, { where: path, mend: "get the file again" });
  };
  if (method !== 0 && method !== DEFLATED) refuse(`is compressed by method ${method}, which is not read`);
  let [bytes, sum] = [0, 0];
  const pieces = method === 0 ? storedPieces(file, entry, DATA_PIECE, path) : inflated(file, entry, path, refuse);
  for await (const piece of pieces) {
    bytes += piece.byteLength;
    if (bytes > size) refuse(`holds more than the ${size} bytes that it states`);
    sum = crc32(piece, sum);
    yield piece;
  }
  if (bytes < size) refuse(`holds ${bytes} bytes, but states ${size}`);
  compareSum(entry, sum, path);
}

/** The bytes of an entry as they are in the file; each piece is overwritten by the next. */
async function* storedPieces(
  file: FileHandle,
  { begin, end }: ZipEntry,
  most: number,
  path: string,
): AsyncGenerator<Uint8Array> {
  const room = new Uint8Array(Math.min(most, end - begin));
  for (let at = begin; at < end; at += most) {
    const piece = room.subarray(0, Math.min(most, end - at));
    await readFully(file, piece, at, path);
    yield piece;
  }
}

async function* inflated(
  file: FileHandle,
  entry: ZipEntry,
  path: string,
  refuse: (what: string) => never,
): AsyncGenerator<Uint8Array> {
  const deflated = async function* () {
    // The stream may hold several pieces at once.
    for await (const piece of storedPieces(file, entry, DEFLATED_PIECE, path)) yield piece.slice();
  };
  const source = Readable.from(deflated());
  const inflate = createInflateRaw();
  source.on("error", (error) => inflate.destroy(error));
  try {
    for await (const piece of source.pipe(inflate)) yield piece as Uint8Array;
  } catch (thrown) {
    if (hasCode(thrown, "Z_DATA_ERROR", "Z_BUF_ERROR", "Z_NEED_DICT")) refuse("is damaged: it cannot be inflated");
    throw thrown;
  } finally {
    inflate.destroy();
    source.destroy();
    // The file may be closed as soon as this returns.
    if (!source.closed) await once(source, "close");
  }
}

function refuseCompressed({ name, begin, method }: ZipEntry, path: string): void {
  if (method === 0) return;
  const what = `byte ${begin}: entry "${name}" is compressed (method ${method}), which torch.save never does`;
  throw new FormatError(what, { where: path, mend: "save it again with torch.save" });
}

function compareSum({ name, begin, crc32: sum }: ZipEntry, found: number, path: string): void {
  if (found === sum) return;
  throw new FormatError(`byte ${begin}: entry "${name}" is damaged (its CRC-32 differs)`, {
    where: path,
    mend: "get the file again",
  });
}

async function part(file: FileHandle, at: number, length: number, path: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await readFully(file, bytes, at, path);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

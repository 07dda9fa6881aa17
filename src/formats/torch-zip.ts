/**
 * The zip archives that torch.save writes: entries stored as they are, with zip64 records where
 * sizes or offsets pass 32 bits (PKWARE, "APPNOTE.TXT", 4.3 to 4.5). Nothing is decompressed, so
 * that nothing that is read is larger than the file.
 */

import type { FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { readFully } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";

/** An entry of an archive; its data are the bytes [begin, end) of the file. */
export interface ZipEntry {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
  readonly crc32: number;
  /** 0: stored as it is. */
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

interface Listed extends Pick<ZipEntry, "name" | "crc32" | "method"> {
  /** Bytes in the file. */
  readonly size: number;
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
    found.set(name, { name, size: stored, header, method, crc32: view.getUint32(at + 16, true) });
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
  { name, size, header, method, crc32: sum }: Listed,
  limit: number,
  path: string,
  refuse: Refuse,
): Promise<ZipEntry> {
  if (!(header + ZIP.localBytes <= limit))
    return refuse(`entry "${name}" starts at byte ${header}, beyond the entries`, limit);
  const local = viewOf(await part(file, header, ZIP.localBytes, path));
  if (local.getUint32(0, true) !== ZIP.local) refuse(`entry "${name}" does not start here`, header);
  const begin = header + ZIP.localBytes + local.getUint16(26, true) + local.getUint16(28, true);
  if (!(begin + size <= limit))
    refuse(`entry "${name}" ends at byte ${begin + size}, beyond the entries, which end at ${limit}`, header);
  const own = await part(file, header + ZIP.localBytes, local.getUint16(26, true), path);
  if (Buffer.from(own).toString("utf8") !== name)
    refuse(`the entry here is not "${name}", as the directory says`, header);
  return { name, begin, end: begin + size, crc32: sum, method };
}

/** Bytes of an entry that are looked at together. */
const PIECE = 16 * 1024 * 1024;

/**
 * Reads the whole entry piece by piece and compares its checksum. Throws FormatError when it
 * differs.
 */
export async function checkEntry(file: FileHandle, entry: ZipEntry, path: string): Promise<void> {
  refuseCompressed(entry, path);
  const { begin, end } = entry;
  let found = 0;
  const room = new Uint8Array(Math.min(PIECE, end - begin));
  for (let at = begin; at < end; at += PIECE) {
    const piece = room.subarray(0, Math.min(PIECE, end - at));
    await readFully(file, piece, at, path);
    found = crc32(piece, found);
  }
  compareSum(entry, found, path);
}

/** The bytes of an entry, after its checksum has been compared. */
export async function readEntry(file: FileHandle, entry: ZipEntry, path: string): Promise<Uint8Array> {
  refuseCompressed(entry, path);
  const bytes = await part(file, entry.begin, entry.end - entry.begin, path);
  compareSum(entry, crc32(bytes), path);
  return bytes;
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

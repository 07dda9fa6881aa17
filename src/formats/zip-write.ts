/**
 * Writes zip archives in order, entries stored and not compressed (PKWARE, "APPNOTE.TXT", 4.3 to
 * 4.5). Data begin on multiples of 64 bytes, as torch.save has them; sizes and offsets beyond 32
 * bits are in zip64 records. The same entries make the same bytes: all have the same date.
 */

import { crc32 } from "node:zlib";
import { ZIP } from "./zip.ts";

export type Write = (bytes: Uint8Array) => Promise<void>;

/** Entries larger than this, or farther from the start, have zip64 records. */
export const LARGEST = ZIP.full32 - 1;

const ALIGNMENT = 64;
/** The id of an extra field that readers skip, as torch.save's. */
const PADDING = 0x4246;
/** 1980-01-01, the first day there is in zip archives: the same weights make the same file. */
const DATE = 0x0021;

interface Added {
  readonly name: Buffer;
  readonly header: number;
  readonly size: number;
  readonly crc32: number;
}

export class ZipWriter {
  readonly #write: Write;
  readonly #largest: number;
  readonly #added: Added[] = [];
  #at = 0;

  /** `largest`: for tests. */
  constructor(write: Write, largest = LARGEST) {
    this.#write = write;
    this.#largest = largest;
  }

  /**
   * Adds an entry of `size` bytes, which `content` writes in pieces. It is called twice: the
   * checksum comes before the data.
   */
  async add(name: string, size: number, content: (write: Write) => Promise<void>): Promise<void> {
    let sum = 0;
    let length = 0;
    await content((bytes) => {
      sum = crc32(bytes, sum);
      length += bytes.byteLength;
      return Promise.resolve();
    });
    if (length !== size) throw new RangeError(`entry "${name}" has ${length} bytes, not ${size}`);
    const entry: Added = { name: Buffer.from(name), header: this.#at, size, crc32: sum };
    const wide = entry.size > this.#largest ? zip64([entry.size, entry.size]) : Buffer.alloc(0);
    const before = this.#at + ZIP.localBytes + entry.name.byteLength + wide.byteLength + 4;
    const padding = Buffer.alloc(4 + ((ALIGNMENT - (before % ALIGNMENT)) % ALIGNMENT));
    padding.writeUInt16LE(PADDING, 0);
    padding.writeUInt16LE(padding.byteLength - 4, 2);
    const extra = Buffer.concat([wide, padding]);
    const head = Buffer.alloc(ZIP.localBytes);
    head.writeUInt32LE(ZIP.local, 0);
    head.writeUInt16LE(wide.byteLength > 0 ? 45 : 20, 4);
    this.#common(head.subarray(6), entry, this.#clipped(entry.size), extra.byteLength);
    await this.#put(Buffer.concat([head, entry.name, extra]));
    await content((bytes) => this.#put(bytes));
    this.#added.push(entry);
  }

  /** Writes the directory; nothing may be added after it. */
  async end(): Promise<void> {
    const begin = this.#at;
    for (const entry of this.#added) {
      const { name, header, size } = entry;
      const large = [...(size > this.#largest ? [size, size] : []), ...(header > this.#largest ? [header] : [])];
      const extra = large.length > 0 ? zip64(large) : Buffer.alloc(0);
      const head = Buffer.alloc(ZIP.centralBytes);
      head.writeUInt32LE(ZIP.central, 0);
      head.writeUInt16LE(45, 4);
      head.writeUInt16LE(large.length > 0 ? 45 : 20, 6);
      this.#common(head.subarray(8), entry, this.#clipped(size), extra.byteLength);
      head.writeUInt32LE(this.#clipped(header), 42);
      await this.#put(Buffer.concat([head, name, extra]));
    }
    const [size, count] = [this.#at - begin, this.#added.length];
    if (begin > this.#largest) await this.#put(end64(begin, size, count, this.#at));
    const end = Buffer.alloc(ZIP.endBytes);
    end.writeUInt32LE(ZIP.end, 0);
    end.writeUInt16LE(count, 8);
    end.writeUInt16LE(count, 10);
    end.writeUInt32LE(size, 12);
    end.writeUInt32LE(this.#clipped(begin), 16);
    await this.#put(end);
  }

  /** The fields that both headers of an entry have, from the flags on. */
  #common(into: Buffer, { name, crc32: sum }: Added, size: number, extra: number): void {
    into.writeUInt16LE(DATE, 6);
    into.writeUInt32LE(sum, 8);
    into.writeUInt32LE(size, 12);
    into.writeUInt32LE(size, 16);
    into.writeUInt16LE(name.byteLength, 20);
    into.writeUInt16LE(extra, 22);
  }

  #clipped(value: number): number {
    return value > this.#largest ? ZIP.full32 : value;
  }

  async #put(bytes: Uint8Array): Promise<void> {
    await this.#write(bytes);
    this.#at += bytes.byteLength;
  }
}

function zip64(values: readonly number[]): Buffer {
  const field = Buffer.alloc(4 + 8 * values.length);
  field.writeUInt16LE(1, 0);
  field.writeUInt16LE(8 * values.length, 2);
  for (const [i, value] of values.entries()) field.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
  return field;
}

/** The zip64 end record, which is at byte `at`, and its locator. */
function end64(begin: number, size: number, count: number, at: number): Buffer {
  const record = Buffer.alloc(ZIP.end64Bytes + ZIP.locator64Bytes);
  record.writeUInt32LE(ZIP.end64, 0);
  record.writeBigUInt64LE(BigInt(ZIP.end64Bytes - 12), 4);
  record.writeUInt16LE(45, 12);
  record.writeUInt16LE(45, 14);
  for (const [offset, value] of [
    [24, count],
    [32, count],
    [40, size],
    [48, begin],
  ] as const)
    record.writeBigUInt64LE(BigInt(value), offset);
  record.writeUInt32LE(ZIP.locator64, ZIP.end64Bytes);
  record.writeBigUInt64LE(BigInt(at), ZIP.end64Bytes + 8);
  record.writeUInt32LE(1, ZIP.end64Bytes + 16);
  return record;
}

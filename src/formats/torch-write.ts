/**
 * Writes what torch.load reads, also with weights_only=True: a dict of tensors, whole numbers and
 * text, as a zip archive of its pickle (protocol 2) and its storages (see torch-read.ts). Storages
 * begin on multiples of 64 bytes, as torch.save has them.
 */

import { crc32 } from "node:zlib";
import { BYTES } from "../util/bytes.ts";
import type { TorchDType } from "./torch-tensor.ts";
import { ZIP } from "./torch-zip.ts";

/**
 * A tensor to be written; `bytes` is called when its turn comes, so that only one is held at a
 * time.
 */
export interface TorchPart {
  readonly dtype: TorchDType;
  readonly shape: readonly number[];
  /** In elements; default: row-major. They must go over all elements of the storage, each once. */
  readonly strides?: readonly number[];
  /** The storage's elements, little-endian. */
  readonly bytes: () => Promise<Uint8Array>;
}

export interface TorchDict {
  readonly [name: string]: TorchPart | TorchDict | number | string;
}

type Write = (bytes: Uint8Array) => Promise<void>;

/** Entries larger than this, or farther from the start, have zip64 records. */
const LARGEST = ZIP.full32 - 1;

/**
 * Writes a whole file, in order, through `write`. `name` is the folder within the archive, which
 * readers do not look at. `largest`: for tests.
 */
export async function writeTorch(write: Write, dict: TorchDict, name = "archive", largest = LARGEST): Promise<void> {
  const pickler = new Pickler();
  pickler.dict(dict);
  const archive = new Archive(write, largest);
  await archive.add(`${name}/data.pkl`, pickler.end());
  for (const [key, { dtype, shape, bytes }] of pickler.storages.entries()) {
    const data = await bytes();
    const length = shape.reduce((product, size) => product * size, BYTES[dtype]);
    if (data.byteLength !== length) throw new RangeError(`storage ${key} has ${data.byteLength} bytes, not ${length}`);
    await archive.add(`${name}/data/${key}`, data);
  }
  await archive.add(`${name}/version`, Buffer.from("3\n"));
  await archive.end();
}

const STORAGES: Readonly<Record<TorchDType, string>> = {
  f64: "DoubleStorage",
  f32: "FloatStorage",
  f16: "HalfStorage",
  bf16: "BFloat16Storage",
  i64: "LongStorage",
  i32: "IntStorage",
  i16: "ShortStorage",
  i8: "CharStorage",
  u8: "ByteStorage",
  bool: "BoolStorage",
};

class Pickler {
  readonly #parts: Uint8Array[] = [Uint8Array.of(0x80, 2)]; // PROTO 2
  readonly storages: TorchPart[] = [];

  end(): Uint8Array {
    this.#code(".");
    return Buffer.concat(this.#parts);
  }

  dict(dict: TorchDict): void {
    this.#code("}(");
    for (const [name, value] of Object.entries(dict)) {
      this.#text(name);
      if (typeof value === "number") this.#number(value);
      else if (typeof value === "string") this.#text(value);
      else if (isPart(value)) this.#tensor(value);
      else this.dict(value);
    }
    this.#code("u");
  }

  #tensor(part: TorchPart): void {
    const { dtype, shape, strides = rowMajor(shape) } = part;
    this.#code("ctorch._utils\n_rebuild_tensor_v2\n((");
    this.#text("storage");
    this.#code(`ctorch\n${STORAGES[dtype]}\n`);
    this.#text(String(this.storages.length));
    this.#text("cpu");
    this.#number(shape.reduce((product, size) => product * size, 1));
    this.#code("tQ"); // TUPLE, BINPERSID
    this.#number(0);
    this.#numbers(shape);
    this.#numbers(strides);
    this.#parts.push(Uint8Array.of(0x89)); // NEWFALSE
    this.#code("ccollections\nOrderedDict\n)RtR");
    this.storages.push(part);
  }

  #numbers(values: readonly number[]): void {
    this.#code("(");
    for (const value of values) this.#number(value);
    this.#code("t");
  }

  /**
   * A whole number: of 4 bytes as BININT, of more as LONG1. torch.load(weights_only=True) of
   * PyTorch 1.13 reads no other.
   */
  #number(value: number): void {
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is no whole number`);
    const bytes = Buffer.alloc(10);
    if (Math.abs(value) < 2 ** 31) {
      bytes.write("J", "latin1");
      bytes.writeInt32LE(value, 1);
      this.#parts.push(bytes.subarray(0, 5));
    } else {
      bytes.set([0x8a, 8]);
      bytes.writeBigInt64LE(BigInt(value), 2);
      this.#parts.push(bytes);
    }
  }

  #text(text: string): void {
    const bytes = Buffer.from(text);
    const head = Buffer.alloc(5);
    head.write("X", "latin1");
    head.writeUInt32LE(bytes.byteLength, 1);
    this.#parts.push(head, bytes);
  }

  #code(text: string): void {
    this.#parts.push(Buffer.from(text, "latin1"));
  }
}

function isPart(value: TorchPart | TorchDict): value is TorchPart {
  return typeof value.bytes === "function";
}

function rowMajor(shape: readonly number[]): number[] {
  let step = 1;
  return shape
    .toReversed()
    .map((size) => {
      step *= size;
      return step / size;
    })
    .toReversed();
}

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

class Archive {
  readonly #write: Write;
  readonly #largest: number;
  readonly #added: Added[] = [];
  #at = 0;

  constructor(write: Write, largest: number) {
    this.#write = write;
    this.#largest = largest;
  }

  async add(name: string, data: Uint8Array): Promise<void> {
    const entry: Added = { name: Buffer.from(name), header: this.#at, size: data.byteLength, crc32: crc32(data) };
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
    await this.#put(data);
    this.#added.push(entry);
  }

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

/** The zip64 end record, which stands `at`, and its locator. */
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

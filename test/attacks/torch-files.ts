/**
 * Torch files that torch.save would not write: zip archives and pickles with any field as it is
 * wanted.
 */

import { crc32 } from "node:zlib";

export interface Entry {
  readonly name: string;
  readonly data: Uint8Array;
  /** Fields of the entry in the directory, where they are not right. */
  readonly method?: number;
  readonly flags?: number;
  readonly crc?: number;
  readonly size?: number;
  readonly stored?: number;
  readonly header?: number;
  readonly extra?: Uint8Array;
  /** The name in front of the data. */
  readonly localName?: string;
  /** Only in the directory. */
  readonly listedOnly?: boolean;
}

export interface Ending {
  readonly entries?: number;
  readonly size?: number;
  readonly begin?: number;
  readonly comment?: Uint8Array;
  /** What stands between the directory and the end record, such as zip64 records; `at` is where. */
  readonly before?: (at: number) => Uint8Array;
}

export function zip(entries: readonly Entry[], ending: Ending = {}): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  const put = (bytes: Uint8Array) => {
    parts.push(Buffer.from(bytes));
    at += bytes.byteLength;
  };
  for (const { name, data, localName = name, ...fields } of entries) {
    const {
      method = 0,
      flags = 0,
      crc = crc32(data),
      size = data.byteLength,
      stored = size,
      header = at,
      extra = new Uint8Array(0),
    } = fields;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(Buffer.byteLength(localName), 26);
    if (fields.listedOnly !== true) for (const bytes of [local, Buffer.from(localName), data]) put(bytes);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    central.writeUInt16LE(flags, 8);
    central.writeUInt16LE(method, 10);
    central.writeUInt32LE(crc, 16);
    central.writeUInt32LE(stored, 20);
    central.writeUInt32LE(size, 24);
    central.writeUInt16LE(Buffer.byteLength(name), 28);
    central.writeUInt16LE(extra.byteLength, 30);
    central.writeUInt32LE(header, 42);
    directory.push(central, Buffer.from(name), Buffer.from(extra));
  }
  const begin = at;
  for (const each of directory) put(each);
  const size = at - begin;
  put(ending.before?.(at) ?? new Uint8Array(0));
  const { comment = new Uint8Array(0) } = ending;
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(ending.entries ?? entries.length, 8);
  end.writeUInt16LE(ending.entries ?? entries.length, 10);
  end.writeUInt32LE(ending.size ?? size, 12);
  end.writeUInt32LE(ending.begin ?? begin, 16);
  end.writeUInt16LE(comment.byteLength, 20);
  put(end);
  put(comment);
  return Buffer.concat(parts);
}

/** A torch file of this pickle; storage 0 has 16 bytes. */
export function torchFile(
  pickle: Uint8Array,
  more: readonly Entry[] = [{ name: "a/data/0", data: new Uint8Array(16) }],
): Buffer {
  return zip([{ name: "a/data.pkl", data: pickle }, ...more]);
}

/** Pieces of a pickle: text as its own bytes, numbers as one byte each. */
export function code(...parts: readonly (string | number | Uint8Array)[]): Buffer {
  return Buffer.concat(
    parts.map((part) =>
      typeof part === "string"
        ? Buffer.from(part, "latin1")
        : typeof part === "number"
          ? Buffer.of(part)
          : Buffer.from(part),
    ),
  );
}

export const text = (value: string): Buffer => {
  const bytes = Buffer.from(value);
  return code("X", u32(bytes.byteLength), bytes);
};

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

export const u64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};

/** A whole number, as LONG1. */
export const int = (value: number | bigint): Buffer => code(0x8a, 8, u64(BigInt.asUintN(64, BigInt(value))));
const tuple = (...values: readonly Buffer[]): Buffer => code("(", ...values, "t");

/** A tensor over storage `key` of `elements` f32. */
export function tensor(
  shape: readonly (number | bigint)[],
  strides: readonly (number | bigint)[],
  { offset = 0 as number | bigint, elements = 4 as number | bigint, key = "0", type = "FloatStorage" } = {},
): Buffer {
  const id = code(tuple(text("storage"), code(`ctorch\n${type}\n`), text(key), text("cpu"), int(elements)), "Q");
  const ordered = code("ccollections\nOrderedDict\n)R");
  return code(
    "ctorch._utils\n_rebuild_tensor_v2\n",
    tuple(id, int(offset), tuple(...shape.map(int)), tuple(...strides.map(int)), code(0x89), ordered),
    "R",
  );
}

export const pickled = (...parts: readonly (string | number | Uint8Array)[]): Buffer => code(0x80, 2, ...parts, ".");

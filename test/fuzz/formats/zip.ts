/** Where the records of a zip archive are, and their checksums. */

import { crc32, inflateRawSync } from "node:zlib";

interface Entry {
  /** Where its record in the central directory and its local header begin. */
  readonly central: number;
  readonly local: number;
  readonly data: number;
  readonly size: number;
}

/** What the central directory lists; of files of no more than 4 GiB. */
function entriesOf(bytes: Buffer): Entry[] {
  const end = bytes.lastIndexOf("PK\x05\x06", undefined, "latin1");
  const entries: Entry[] = [];
  let at = bytes.readUInt32LE(end + 16);
  while (bytes.readUInt32LE(at) === 0x02014b50) {
    const local = bytes.readUInt32LE(at + 42);
    const data = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    entries.push({ central: at, local, data, size: bytes.readUInt32LE(at + 20) });
    at += 46 + bytes.readUInt16LE(at + 28) + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
  }
  return entries;
}

/**
 * Fields of the records, the opcodes of the pickle (the first entry), and where storages begin and
 * end.
 */
export function boundaries(bytes: Buffer): number[] {
  const entries = entriesOf(bytes);
  const records = entries.flatMap(({ central, local }) => [
    ...[0, 14, 18, 22, 26, 28, 30].map((at) => local + at),
    ...[0, 16, 20, 24, 28, 42, 46].map((at) => central + at),
  ]);
  const pickle = entries.find(({ data }) => bytes[data] === 0x80);
  const opcodes = pickle === undefined ? [] : Array.from({ length: pickle.size }, (_, i) => pickle.data + i);
  return [...records, ...opcodes, ...entries.flatMap(({ data, size }) => [data, data + size]), bytes.length];
}

/** Checksums of what the entries hold now, where that can be inflated. */
export function resealed(sample: Buffer, mutated: Buffer): void {
  for (const { central, local, data, size } of entriesOf(sample)) {
    const stored = mutated.subarray(data, data + size);
    const sum = crc32(sample.readUInt16LE(central + 10) === 0 ? stored : inflated(stored));
    mutated.writeUInt32LE(sum, central + 16);
    mutated.writeUInt32LE(sum, local + 14);
  }
}

function inflated(bytes: Uint8Array): Uint8Array {
  try {
    return inflateRawSync(bytes, { maxOutputLength: 1024 * 1024 });
  } catch {
    return new Uint8Array(0);
  }
}

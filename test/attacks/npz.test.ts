/** Files that no np.savez wrote: each is refused with one line, in little time and memory. */

import { deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { openNpz } from "../../src/formats/npz.ts";
import { place, refusal } from "./attack.ts";
import { type Ending, type Entry, u64, zip } from "./torch-files.ts";

function npy(shape: string, bytes: number, descr = "<f4"): Buffer {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const header = `${text.padEnd(117)}\n`;
  const start = Buffer.from("\x93NUMPY\x01\x00", "latin1");
  return Buffer.concat([start, Buffer.of(header.length, 0), Buffer.from(header), Buffer.alloc(bytes)]);
}

async function readAll(path: string): Promise<number> {
  const file = await openNpz(path);
  try {
    let bytes = 0;
    for (const name of file.arrays.keys()) bytes += (await file.read(name)).byteLength;
    return bytes;
  } finally {
    await file.close();
  }
}

/** The entry deflated; the fields state what they are told. */
function deflated(name: string, data: Uint8Array, fields: Partial<Entry> = {}): Entry {
  const packed = deflateRawSync(data);
  return {
    name,
    data: packed,
    method: 8,
    size: data.byteLength,
    stored: packed.byteLength,
    crc: crcOf(data),
    ...fields,
  };
}

function crcOf(data: Uint8Array): number {
  const [entry] = [zip([{ name: "x", data }])];
  return entry.readUInt32LE(entry.lastIndexOf("PK\x01\x02", undefined, "latin1") + 16);
}

const good = npy("(2, 3)", 24);

it("the file that the attacks are made from is read, stored and deflated", async () => {
  expect(await readAll(place("a.npz", zip([{ name: "x.npy", data: good }, deflated("y.npy", good)])))).toBe(48);
});

describe("hostile archives", () => {
  const huge = npy("(268435456,)", 0);
  const bomb = Buffer.concat([npy("(4096,)", 0), Buffer.alloc(64 * 1024 * 1024)]);
  const zip64 = (...values: bigint[]) => Buffer.concat([Buffer.of(1, 0, values.length * 8, 0), ...values.map(u64)]);

  it.each<[string, readonly Entry[], RegExp, Ending?]>([
    ["no array", [], /is a zip archive, but not only of \.npy files/],
    ["something else in it", [{ name: "a/data.pkl", data: good }], /not only of \.npy files/],
    [
      "a shape of 1 GiB in 128 bytes",
      [{ name: "x.npy", data: huge }],
      /x\.npy: f32 \[268435456\] takes 1073741824 bytes, but 0 follow/,
    ],
    ["the same deflated", [deflated("x.npy", huge)], /takes 1073741824 bytes, but 0 follow/],
    [
      "a size that deflate cannot reach",
      [deflated("x.npy", huge, { size: 1073741824 + 128 })],
      /entry "x\.npy" states 1073741952 bytes, more than \d+ can inflate to/,
    ],
    [
      "a zip64 size beyond all",
      [deflated("x.npy", huge, { size: 0xffff_ffff, extra: zip64(2n ** 60n) })],
      /more than \d+ can inflate to/,
    ],
    [
      "a bomb behind a small size",
      [deflated("x.npy", bomb, { size: 128 + 4 * 4096 })],
      /entry "x\.npy" holds more than the 16512 bytes that it states/,
    ],
    [
      "fewer bytes than stated",
      [deflated("x.npy", good, { size: good.byteLength + 4 })],
      /entry "x\.npy" holds 152 bytes, but states 156/,
    ],
    [
      "fewer bytes than header and directory state",
      [deflated("x.npy", npy("(2, 3)", 20), { size: good.byteLength })],
      /entry "x\.npy" holds \d+ bytes, but states \d+/,
    ],
    [
      "no deflate stream",
      [{ ...deflated("x.npy", good), data: Buffer.alloc(60, 0xff), stored: 60 }],
      /cannot be inflated/,
    ],
    [
      "a deflate stream that is cut off",
      [{ ...deflated("x.npy", good), data: deflateRawSync(good).subarray(0, 40), stored: 40 }],
      /cannot be inflated/,
    ],
    ["another checksum", [deflated("x.npy", good, { crc: 1 })], /entry "x\.npy" is damaged \(its CRC-32 differs\)/],
    ["another method", [{ name: "x.npy", data: good, method: 12 }], /is compressed by method 12, which is not read/],
    ["encrypted", [{ name: "x.npy", data: good, flags: 1 }], /entry "x\.npy" is encrypted/],
    [
      "one array twice",
      [
        { name: "x.npy", data: good },
        { name: "x.npy", data: good },
      ],
      /stands twice/,
    ],
    [
      "entries over each other",
      [
        { name: "x.npy", data: good },
        { name: "y.npy", data: good, header: 0 },
      ],
      /is not "y\.npy"/,
    ],
    ["no .npy in it", [{ name: "x.npy", data: Buffer.alloc(200) }], /x\.npy: byte 0: is no \.npy file/],
    ["an empty entry", [{ name: "x.npy", data: Buffer.alloc(0) }], /x\.npy: has 0 bytes, too few/],
    ["a path out of the archive", [{ name: "../../x.txt", data: good }], /not only of \.npy files/],
    [
      "more arrays than anybody has",
      Array.from({ length: 1001 }, (_, i) => ({ name: `${i}.npy`, data: good })),
      /holds 1001 arrays, more than 1000/,
    ],
  ])("%s", async (_, entries, message, ending) => {
    const before = process.memoryUsage().arrayBuffers;
    expect(await refusal(place("a.npz", zip(entries, ending)), readAll)).toMatch(message);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(200 * 1024 * 1024);
  });

  it("a file that is cut off anywhere is refused", async () => {
    const whole = zip([{ name: "x.npy", data: good }, deflated("y.npy", good)]);
    for (let length = 0; length < whole.byteLength; length += 7)
      await refusal(place("a.npz", whole.subarray(0, length)), readAll);
  });
});

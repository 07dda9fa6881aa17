import { copyFile, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BYTES, bytesOf } from "../util/bytes.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { decodeBfloat16, decodeFloat16 } from "../util/float16.ts";
import type { Hdf5DType } from "./hdf5-datatype.ts";
import { type Hdf5File, openHdf5 } from "./hdf5-read.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/hdf5-${name}.h5`, import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-hdf5-read-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function using<T>(path: string, use: (file: Hdf5File) => T | Promise<T>): Promise<T> {
  const file = await openHdf5(path);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** Rows as plain numbers. */
async function numbers(file: Hdf5File, name: string, axes: 1 | 2, first: number, count: number): Promise<number[]> {
  const rows = file.rows(name, axes);
  const elements = count * rows.width;
  const bytes = new Uint8Array(elements * BYTES[rows.dtype]);
  await rows.read(first, count, bytes);
  const views: Partial<Record<Hdf5DType, () => ArrayLike<number | bigint>>> = {
    f16: () => decodeFloat16(new Uint16Array(bytes.buffer)),
    bf16: () => decodeBfloat16(new Uint16Array(bytes.buffer)),
    f32: () => new Float32Array(bytes.buffer),
    f64: () => new Float64Array(bytes.buffer),
    u16: () => new Uint16Array(bytes.buffer),
    i64: () => new BigInt64Array(bytes.buffer),
  };
  return Array.from(views[rows.dtype]?.() ?? [], Number);
}

const readable = [
  ["three/hidden_states", "f16", "contiguous", 2, 1],
  ["three/tokens", "i64", "contiguous", 2, 1],
  ["f32", "f32", "contiguous", 1, 1],
  ["f64", "f64", "contiguous", 1, 1],
  ["bf16", "bf16", "contiguous", 2, 1],
  ["chunked_bf16", "bf16", "chunked", 1, 5],
  ["chunked", "f16", "chunked", 2, 8],
  ["rows", "f32", "chunked", 2, 2],
  ["gzip", "f32", "chunked", 2, 4],
  ["gzip2", "f64", "chunked", 1, 5],
  ["tokens_chunked", "u16", "chunked", 2, 8],
  ["compact", "f16", "compact", 1, 3],
] as const;

describe.each(["oldest", "newest"])("the %s format", (age) => {
  it.each(readable)("reads every range of rows of %s (%s, %s)", async (name, dtype, layout, axes, grain) => {
    await using(fixture(age), async (file) => {
      expect(file.datasets.find((dataset) => dataset.name === name)).toMatchObject({
        dtype,
        type: dtype,
        layout,
        problem: undefined,
      });
      const { rows, width, grain: got } = file.rows(name, axes);
      expect(got).toBe(grain);
      const value = (i: number): number => (/^[iu]/.test(dtype) ? i : i / 4 - 3);
      for (let first = 0; first <= rows; first++) {
        for (let count = 0; first + count <= rows; count++) {
          const want = Array.from({ length: count * width }, (_, i) => value(first * width + i));
          expect(await numbers(file, name, axes, first, count)).toEqual(want);
        }
      }
    });
  });

  it("says why the rest cannot be read, and follows no link out of the file", async () => {
    await using(fixture(age), (file) => {
      const problems = Object.fromEntries(
        file.datasets.filter((d) => d.problem !== undefined).map((d) => [d.name, d.problem]),
      );
      expect(problems).toEqual({
        big: "its elements are of type big-endian f32",
        words: "its elements are of type variable-length",
        pairs: "its elements are of type compound",
        unwritten: "it was never written",
        empty: "it was never written",
        null: "it has no plain shape",
        external: "its data is in another file (external storage)",
        virtual: "its data is in other files (virtual dataset)",
        by_committed: "its elements are of type committed datatype",
        link: expect.stringMatching(/^it is a link into another file, .*, which is not followed$/),
      });
      expect(file.find("soft")).toMatchObject({ link: "f32", dtype: "f32", shape: [12, 5] });
      expect(file.datasets).toHaveLength(readable.length + 11);
      expect(() => file.rows("virtual", 1)).toThrow(
        `${fixture(age)}: virtual cannot be read: its data is in other files`,
      );
      expect(() => file.rows("nothing", 1)).toThrow("no dataset nothing");
    });
  });

  it("reads scalar attributes", async () => {
    const attributes = await using(fixture(age), (file) => Object.fromEntries(file.attributes));
    expect(attributes).toEqual({ model: "modèle", start_token: 7, half: 0.5 });
  });
});

describe("openHdf5", () => {
  it("counts addresses from the end of a user block", async () => {
    await using(fixture("user-block"), async (file) => {
      expect(await numbers(file, "f32", 1, 11, 1)).toEqual([55, 56, 57, 58, 59].map((i) => i / 4 - 3));
    });
  });

  it("refuses rows outside of the dataset, and reads after close", async () => {
    const file = await openHdf5(fixture("oldest"));
    const rows = file.rows("f32", 1);
    await expect(rows.read(10, 3, new Uint8Array(60))).rejects.toThrow(RangeError);
    await expect(rows.read(0, 3, new Uint8Array(59))).rejects.toThrow(RangeError);
    const chunked = file.rows("gzip", 2);
    await chunked.read(0, 1, new Uint8Array(20));
    await file.close();
    await file.close();
    await expect(rows.read(0, 1, new Uint8Array(20))).rejects.toThrow("is closed");
    await expect(chunked.read(0, 1, new Uint8Array(20))).rejects.toThrow("is closed");
  });

  it.each([
    ["an empty file", Buffer.alloc(0), "the file is empty"],
    ["garbage", Buffer.alloc(5000, 7), "not an HDF5 file"],
    ["a bare signature", Buffer.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a), "not an HDF5 file"],
    [
      "a signature and zeros",
      Buffer.concat([Buffer.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a), Buffer.alloc(50)]),
      "only 8 are read",
    ],
  ])("refuses %s", async (name, content, message) => {
    const path = join(folder, name);
    await writeFile(path, content);
    const thrown = await openHdf5(path).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(FormatError);
    expect(String(thrown)).toContain(path);
    expect(String(thrown)).toContain(message);
  });

  it("says that a path is missing, or a folder", async () => {
    await expect(openHdf5(join(folder, "none"))).rejects.toThrow("none: no such file; check the path");
    await expect(openHdf5(folder)).rejects.toThrow("not a file");
  });

  it.each(["oldest", "newest"])("refuses the %s format cut anywhere", async (age) => {
    const { length } = await readFile(fixture(age));
    for (const keep of [20, 47, 95, 600, 4096, length - 1]) {
      const path = join(folder, `cut-${age}-${keep}.h5`);
      await copyFile(fixture(age), path);
      await truncate(path, keep);
      const thrown = await openHdf5(path).catch((error: unknown) => error);
      expect(thrown).toBeInstanceOf(FormatError);
      if (keep > 95) expect(String(thrown)).toContain(`the file is truncated: it has ${keep} of ${length} bytes`);
    }
  });

  it("names the byte of data that runs past the end of the file", async () => {
    const path = join(folder, "past.h5");
    const content = await readFile(fixture("oldest"));
    const position = content.indexOf(bytesOf(Float32Array.from({ length: 60 }, (_, i) => i / 4 - 3)));
    const wrong = Buffer.alloc(8);
    wrong.writeBigUInt64LE(BigInt(position));
    const at = content.indexOf(wrong);
    content.writeBigUInt64LE(BigInt(content.length - 8), at);
    await writeFile(path, content);
    await expect(openHdf5(path)).rejects.toThrow(
      `${path}, byte ${content.length - 8}: the data of 240 B runs past the end of the file`,
    );
  });

  it("remembers nothing of a damaged file that was mended in place", async () => {
    const path = join(folder, "mended.h5");
    const content = await readFile(fixture("oldest"));
    const damaged = Buffer.from(content);
    // Nodes of the index of chunks; the first chunk's address stands at byte 64 where there are
    // three axes.
    for (let at = content.indexOf("TREE\x01"); at >= 0; at = content.indexOf("TREE\x01", at + 1))
      damaged.fill(0xee, at + 64, at + 72);
    await writeFile(path, damaged);
    await using(path, async (file) => {
      await expect(file.rows("rows", 2).read(0, 12, new Uint8Array(240))).rejects.toThrow("is outside of the file");
    });
    await writeFile(path, content);
    await readAll(path);
  });

  it.each([
    "oldest",
    "newest",
  ])("meets damage in the %s format with a clear error or the old shape, never anything else", async (age) => {
    const content = await readFile(fixture(age));
    const path = join(folder, `damaged-${age}.h5`);
    let seed = 12345;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    let refused = 0;
    for (let round = 0; round < 40; round++) {
      const copy = Buffer.from(content);
      for (let i = 0; i < 4; i++) copy[random(copy.length)] = random(2) === 0 ? 0xff : random(256);
      await writeFile(path, copy);
      const thrown = await readAll(path).catch((error: unknown) => error);
      if (thrown === undefined) continue;
      if (!(thrown instanceof SaettaError)) throw thrown;
      expect(thrown.message).toContain(path);
      refused++;
    }
    expect(refused).toBeGreaterThan(0);
  });
});

async function readAll(path: string): Promise<void> {
  await using(path, async (file) => {
    for (const { name, shape, problem } of file.datasets) {
      if (problem !== undefined || shape.length === 0 || shape.length > 3) continue;
      const rows = file.rows(name, shape.length === 3 ? 2 : 1);
      const count = Math.min(rows.rows, 64);
      if (rows.width <= 4096) await rows.read(0, count, new Uint8Array(count * rows.width * BYTES[rows.dtype]));
    }
  });
}

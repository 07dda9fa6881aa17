/** Every kind of file, folder and pattern that a user may name. */

import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type SafetensorsPart, writeSafetensors } from "../formats/safetensors.ts";
import { bytesOf } from "../util/bytes.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { rowsToFloat32 } from "./convert.ts";
import { openSource } from "./open.ts";
import type { Source } from "./source.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`../formats/fixtures/${name}`, import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-inputs-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function using<T>(
  paths: readonly string[],
  use: (source: Source) => T | Promise<T>,
  dataset?: string,
): Promise<T> {
  // Files with the same rows are several files here.
  const source = await openSource(paths, { repeats: "keep", ...(dataset === undefined ? {} : { dataset }) });
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

/** All rows, in two reads that meet in the middle of a sequence. */
async function values(source: Source): Promise<number[]> {
  const { rows, dIn, dtype } = source;
  const width = { f16: 2, bf16: 2, f32: 4, f64: 8 }[dtype] * dIn;
  const bytes = new Uint8Array(rows * width);
  const half = Math.floor(rows / 2) - 1;
  await source.read(0, half, bytes);
  await source.read(half, rows - half, bytes.subarray(half * width));
  return [...rowsToFloat32(bytes, dtype, rows * dIn)];
}

const counted = Array.from({ length: 60 }, (_, i) => i / 4 - 3);

const F32 = (...shape: number[]): SafetensorsPart => {
  const count = shape.reduce((product, size) => product * size, 1);
  return { name: "acts", dtype: "F32", shape, bytes: async () => bytesOf(Float32Array.from(counted).slice(0, count)) };
};

async function safetensors(
  name: string,
  parts: readonly SafetensorsPart[],
  metadata: Record<string, string> = {},
): Promise<string> {
  const pieces: Uint8Array[] = [];
  await writeSafetensors(async (piece) => void pieces.push(Uint8Array.from(piece)), parts, metadata);
  const path = join(folder, name);
  await writeFile(path, Buffer.concat(pieces));
  return path;
}

/** An .npy of f32 [rows, 2] with the number in all places. */
async function shard(path: string, rows: number, value: number): Promise<string> {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, 2), }`;
  const prefix = Buffer.from(`\x93NUMPY\x01\x00${String.fromCharCode(header.length)}\x00${header}`, "latin1");
  await writeFile(path, Buffer.concat([prefix, bytesOf(new Float32Array(rows * 2).fill(value))]));
  return path;
}

describe("npy", () => {
  it.each([
    ["f16", 4],
    ["bf16", 4],
    ["f32", undefined],
    ["f64", undefined],
  ])("%s as NumPy writes it", async (dtype, sequence) => {
    const path = fixture(`npy-${dtype}.npy`);
    await using([path], async (source) => {
      expect(source).toMatchObject({
        paths: [path],
        dIn: 5,
        rows: 12,
        dtype,
        sequence,
        grain: 1,
        origin: {},
        tokens: undefined,
      });
      expect(await values(source)).toEqual(counted);
      await expect(source.read(11, 2, new Uint8Array(80))).rejects.toThrow(RangeError);
      await expect(source.read(0, 2, new Uint8Array(19))).rejects.toThrow(RangeError);
    });
  });

  it("is known by its content, whatever its name", async () => {
    const path = join(folder, "acts.bin");
    await copyFile(fixture("npy-f32.npy"), path);
    await using([path], async (source) => expect(await values(source)).toEqual(counted));
  });

  it("is refused in one line that says how to mend it", async () => {
    await expect(openSource([fixture("npy-fortran.npy")])).rejects.toThrow(
      "npy-fortran.npy: its elements are stored column by column (Fortran order); save np.ascontiguousarray(array)",
    );
    await expect(openSource([fixture("npy-objects.npy")])).rejects.toThrow(FormatError);
    await expect(openSource([fixture("npy-f32.npy")], { dataset: "a" })).rejects.toThrow(
      "an .npy file has no named datasets",
    );
    const path = join(folder, "acts.pt");
    await writeFile(path, "PK\x03\x04 and so on, as a file that was cut short begins");
    await expect(openSource([path])).rejects.toThrow("acts.pt: byte 51: the archive has no end record");
  });
});

describe("safetensors", () => {
  it("F16, BF16, F32 and F64, told apart", async () => {
    const bits = { F16: "npy-f16.npy", BF16: "npy-bf16.npy", F32: "npy-f32.npy", F64: "npy-f64.npy" } as const;
    for (const [dtype, name] of Object.entries(bits) as [keyof typeof bits, string][]) {
      const bytes = (await readFile(fixture(name))).subarray(-60 * { F16: 2, BF16: 2, F32: 4, F64: 8 }[dtype]);
      const path = await safetensors(`${dtype}.safetensors`, [
        { name: "x", dtype, shape: [3, 4, 5], bytes: async () => bytes },
      ]);
      await using([path], async (source) => {
        expect(source).toMatchObject({ dIn: 5, rows: 12, dtype: dtype.toLowerCase(), sequence: 4 });
        expect(await values(source)).toEqual(counted);
      });
    }
  });

  it("brings its tokens and its origin", async () => {
    const ids = BigInt64Array.from({ length: 12 }, (_, i) => BigInt(i % 4));
    const tokens: SafetensorsPart = { name: "tokens", dtype: "I64", shape: [3, 4], bytes: async () => bytesOf(ids) };
    const path = await safetensors("tokens.safetensors", [F32(3, 4, 5), tokens], {
      model: "m",
      start_token: "0",
      other: "x",
    });
    await using([path], async (source) => {
      expect(source.origin).toMatchObject({ model: "m", startToken: 0 });
      expect(await source.tokens?.(3, 4)).toEqual(Int32Array.of(3, 0, 1, 2));
    });
    const short: SafetensorsPart = { ...tokens, shape: [12] };
    await using([await safetensors("short.safetensors", [F32(3, 4, 5), short])], (source) => {
      expect(source.tokens).toBeUndefined();
      expect(source.notes).toEqual([
        expect.stringContaining("tokens (i64 [12]) must have shape [3, 4], as acts has; tokens is left out"),
      ]);
    });
    const real: SafetensorsPart = {
      name: "tokens",
      dtype: "F32",
      shape: [3, 4],
      bytes: async () => new Uint8Array(48),
    };
    await using(
      [await safetensors("real.safetensors", [F32(3, 4, 5), real])],
      (source) => expect(source.notes).toEqual([expect.stringContaining("tokens (f32 [3, 4]) must hold integers")]),
      "acts",
    );
  });

  it("asks for a name where several tensors could be meant, and refuses others", async () => {
    const other: SafetensorsPart = { ...F32(4, 3), name: "other" };
    const path = await safetensors("two.safetensors", [F32(12, 5), other]);
    await expect(openSource([path])).rejects.toThrow(
      "no tensor hidden_states; the file has acts (F32 [12, 5]), other (F32 [4, 3]); name one with --dataset",
    );
    await using([path], (source) => expect(source).toMatchObject({ rows: 4, dIn: 3 }), "other");
    await expect(openSource([path], { dataset: "none" })).rejects.toThrow("no tensor none; the file has acts");
    const flat = await safetensors("flat.safetensors", [{ ...F32(60), name: "hidden_states" }]);
    await expect(openSource([flat])).rejects.toThrow("hidden_states (F32 [60]) has 1 axis; give activations of shape");
    const ids: SafetensorsPart = {
      name: "hidden_states",
      dtype: "I32",
      shape: [2, 2],
      bytes: async () => new Uint8Array(16),
    };
    await expect(openSource([await safetensors("ids.safetensors", [ids])])).rejects.toThrow(
      "does not hold F16, BF16, F32 or F64",
    );
    const none: SafetensorsPart = {
      name: "hidden_states",
      dtype: "F32",
      shape: [0, 2],
      bytes: async () => new Uint8Array(0),
    };
    await expect(openSource([await safetensors("none.safetensors", [none])])).rejects.toThrow("has no rows");
  });
});

describe("HDF5 filters", () => {
  it.each(["old", "new"])("gzip and shuffle are undone, others named (%s format)", async (age) => {
    const path = fixture(`hdf5-filters-${age}.h5`);
    for (const [dataset, dtype] of [
      ["gzip", "f16"],
      ["shuffle", "f16"],
      ["gzip_bf16", "bf16"],
    ] as const) {
      await using(
        [path],
        async (source) => {
          expect(source.dtype).toBe(dtype);
          expect(await values(source)).toEqual(counted);
        },
        dataset,
      );
    }
    await expect(openSource([path], { dataset: "lzf" })).rejects.toThrow(
      /lzf cannot be read: it is compressed with a filter that is not known here \(lzf\); write it .* uncompressed or with gzip$/,
    );
  });
});

describe("several files", () => {
  it("of several kinds make one source", async () => {
    const paths = [
      fixture("npy-f16.npy"),
      await safetensors("half.safetensors", [await half()]),
      fixture("hdf5-filters-old.h5"),
    ];
    // The name is the HDF5 file's; .npy files have none.
    await expect(openSource(paths, { dataset: "gzip" })).rejects.toThrow(
      "npy-f16.npy: an .npy file has no named datasets",
    );
    await using(paths.slice(0, 2), async (source) => {
      expect(source).toMatchObject({ rows: 24, dIn: 5, dtype: "f16", sequence: 4, paths: paths.slice(0, 2) });
      expect(await values(source)).toEqual([...counted, ...counted]);
    });
    await expect(openSource([fixture("npy-f16.npy"), fixture("npy-bf16.npy")])).rejects.toThrow(
      "do not go together: f16 and bf16",
    );
  });

  it("are the files of a folder, in natural order, of one kind", async () => {
    const shards = join(folder, "shards");
    await mkdir(join(shards, "inner.npy"), { recursive: true });
    for (const [name, value] of [
      ["part-10", 10],
      ["part-9", 9],
      ["part-1", 1],
    ] as const)
      await shard(join(shards, `${name}.npy`), 2, value);
    await writeFile(join(shards, "README.md"), "not data");
    await using([shards], async (source) => {
      expect(source.paths).toEqual(["part-1", "part-9", "part-10"].map((name) => join(shards, `${name}.npy`)));
      expect(await values(source)).toEqual([1, 1, 1, 1, 9, 9, 9, 9, 10, 10, 10, 10]);
      expect(source.locate(3)).toBe(`${join(shards, "part-9.npy")}, row 1`);
    });
    await writeFile(join(shards, "more.h5"), "");
    await expect(openSource([shards])).rejects.toThrow(
      /the folder has files of several kinds \(HDF5, npy\); name those that are meant, such as/,
    );
    const empty = join(folder, "nothing");
    await mkdir(empty);
    await expect(openSource([empty])).rejects.toThrow(
      "nothing: the folder has no files of activations (.h5, .hdf5, .npy, .safetensors, .arrow, .pt)",
    );
  });

  it("are those that a quoted pattern matches, unless a file has that name", async () => {
    const at = (name: string) => join(folder, "globs", name);
    await mkdir(at(""));
    for (const [i, name] of ["a-2.npy", "a-10.npy", "a-1.npy", "b.npy", ".a-0.npy", "a-1.npy.bak"].entries())
      await shard(at(name), 2, i);
    const named = async (pattern: string) => using([at(pattern)], ({ paths }) => paths);
    expect(await named("a-*.npy")).toEqual(["a-1.npy", "a-2.npy", "a-10.npy"].map(at));
    expect(await named("?.npy")).toEqual([at("b.npy")]);
    expect(await named("*1*0*.npy")).toEqual([at("a-10.npy")]);
    expect(await named("*npy")).toEqual(["a-1.npy", "a-2.npy", "a-10.npy", "b.npy"].map(at));
    expect(await named(".a*")).toEqual([at(".a-0.npy")]);
    expect(await named("a-1*")).toEqual(["a-1.npy", "a-1.npy.bak", "a-10.npy"].map(at));
    await expect(openSource([at("c*")])).rejects.toThrow(/c\*: no file matches; check the pattern/);
    await expect(openSource([join(folder, "nowhere", "*")])).rejects.toThrow("nowhere: no such file; check the path");
    await expect(openSource([at("c")])).rejects.toThrow("no such file");
    await shard(at("a-*.npy"), 2, 7);
    expect(await named("a-*.npy")).toEqual([at("a-*.npy")]);
    // A pattern that would take a backtracking matcher for ever.
    await expect(openSource([at(`${"*a".repeat(60)}!`)])).rejects.toThrow(SaettaError);
  });
});

async function half(): Promise<SafetensorsPart> {
  const bytes = (await readFile(fixture("npy-f16.npy"))).subarray(-120);
  return { name: "activation", dtype: "F16", shape: [3, 4, 5], bytes: async () => bytes };
}

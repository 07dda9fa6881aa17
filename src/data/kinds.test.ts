/**
 * Files that say less than they should, or say it in another way: masks of every type, bits of
 * bfloat16, links, lists, and folders of many things.
 */

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ipc, tensorBatch } from "../../test/support/arrow.ts";
import { SAFETENSORS_DTYPES, type SafetensorsPart, writeSafetensors } from "../formats/safetensors.ts";
import { chooseRows } from "./choose.ts";
import { rowsToFloat32 } from "./convert.ts";
import { type OpenOptions, openSource } from "./open.ts";
import { holdsActivations } from "./shards.ts";
import type { Source } from "./source.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`../formats/fixtures/${name}`, import.meta.url));
const KINDS = fixture("hdf5-kinds.h5");
const TREE = fixture("torch-tree.pt");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-kinds-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** What a source is, with all its rows, tokens and masks. */
async function read(paths: string | readonly string[], options: OpenOptions = {}) {
  const source = await openSource(typeof paths === "string" ? [paths] : paths, options);
  try {
    const { rows, sequence, dtype, notes, tokensProblem } = source;
    const [tokens, mask] = [await source.tokens?.(0, rows), await source.mask?.(0, rows)];
    const parts = {
      tokens: tokens && [...tokens],
      mask: mask && [...mask],
    };
    return { rows, sequence, dtype, notes, tokensProblem, ...parts, values: await values(source) };
  } finally {
    await source.close();
  }
}

async function values({ rows, dIn, dtype, read: rowsOf }: Source): Promise<number[]> {
  const width = { f16: 2, bf16: 2, f32: 4, f64: 8 }[dtype] * dIn;
  const bytes = new Uint8Array(rows * width);
  const half = Math.floor(rows / 2) - 1;
  await rowsOf(0, half, bytes);
  await rowsOf(half, rows - half, bytes.subarray(half * width));
  return [...rowsToFloat32(bytes, dtype, rows * dIn)];
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const counted = range(60).map((i) => i / 4 - 3);
const third = range(12).map((i) => (i % 3 === 0 ? 0 : 1));

async function safetensors(name: string, parts: readonly Omit<SafetensorsPart, "bytes">[], data?: Uint8Array) {
  const pieces: Uint8Array[] = [];
  const full = parts.map((part) => {
    const size = part.shape.reduce((product, length) => product * length, SAFETENSORS_DTYPES[part.dtype]);
    return { ...part, bytes: async () => data ?? new Uint8Array(size) };
  });
  await writeSafetensors(async (piece) => void pieces.push(Uint8Array.from(piece)), full);
  const path = join(folder, name);
  await writeFile(path, Buffer.concat(pieces));
  return path;
}

describe("masks and tokens", () => {
  it("an enumeration of int8, as h5py stores booleans, is a mask; input_ids are tokens", async () => {
    expect(await read(KINDS, { dataset: "run/acts" })).toEqual({
      rows: 12,
      sequence: 4,
      dtype: "f32",
      notes: [],
      tokensProblem: undefined,
      tokens: range(12),
      mask: third,
      values: counted,
    });
  });

  it("a bit field of a byte, as PyTables stores them, and floats are masks, too", async () => {
    expect(await read(KINDS, { dataset: "flags/acts" })).toMatchObject({ mask: third, notes: [] });
  });

  it("bits of Arrow are a mask, in batches that start anywhere; a fixed-shape tensor is an array", async () => {
    const path = join(folder, "tensors.arrow");
    await writeFile(path, ipc([tensorBatch(2, 0), tensorBatch(3, 24)]));
    const found = await read(path);
    expect(found).toMatchObject({ rows: 15, sequence: 3, dtype: "f32", tokens: range(15), notes: [] });
    expect(found.mask).toEqual(range(15).map((i) => (i % 4 === 1 ? 0 : 1)));
    expect(found.values).toEqual(range(60).map((i) => i / 4));
  });

  it("a fixed-shape tensor that contradicts itself is refused, one in another order too", async () => {
    const path = join(folder, "odd.arrow");
    for (const [description, message] of [
      ['{"shape":[3,5]}', "its tensors have no shape that takes 12 numbers"],
      ['{"shape":[3,4],"permutation":[1,0]}', "in another order of their axes"],
      ["{", "not valid JSON"],
    ] as const) {
      await writeFile(path, ipc([tensorBatch(2, 0, description)]));
      await expect(read(path)).rejects.toThrow(message);
    }
  });

  it("what cannot be read is a note, and an error where it is needed", async () => {
    const found = await read(KINDS, { dataset: "words/acts" });
    expect(found).toMatchObject({ tokens: undefined, mask: undefined, values: counted });
    expect(found.notes).toEqual([
      expect.stringMatching(
        /words\/tokens cannot be read: .* compound; .*; words\/tokens is left out, so rows have no/,
      ),
      expect.stringContaining("words/mask (i32 [3]) must have shape [3, 4], as words/acts has; words/mask is left out"),
    ]);
    const source = await openSource([KINDS], { dataset: "words/acts" });
    const choice = { holdout: 0, seed: 0 };
    expect((await chooseRows(source, { ...choice, excludeTokens: "start" })).excluded).toBe(0);
    await expect(chooseRows(source, { ...choice, excludeTokens: [1] })).rejects.toThrow(
      /tokens are to be excluded, but cannot be read \(.*compound/,
    );
    const named = { ...source, origin: { startToken: 1 } };
    await expect(chooseRows(named, { ...choice, excludeTokens: "start" })).rejects.toThrow("cannot be read");
    await source.close();
  });

  it("input_ids and token_ids count in safetensors and torch files", async () => {
    for (const name of ["input_ids", "token_ids"]) {
      const path = await safetensors("ids.safetensors", [
        { name: "acts", dtype: "F32", shape: [3, 2] },
        { name, dtype: "I32", shape: [3] },
      ]);
      expect((await read(path)).tokens).toEqual([0, 0, 0]);
    }
    expect((await read(TREE, { dataset: "layers.3.resid" })).tokens).toEqual(range(12));
  });
});

describe("bits of bfloat16", () => {
  it.each(["u16", "i16", "opaque"])("%s of HDF5 are read as bf16 with a note, or as --as says", async (name) => {
    const found = await read(KINDS, { dataset: `${name}/acts` });
    expect(found).toMatchObject({ dtype: "bf16", values: counted });
    expect(found.notes).toEqual([expect.stringContaining("is read as the bits of bf16, which it looks like")]);
    expect(await read(KINDS, { dataset: `${name}/acts`, as: "bf16" })).toMatchObject({ values: counted, notes: [] });
    expect((await read(KINDS, { dataset: `${name}/acts`, as: "f16" })).dtype).toBe("f16");
  });

  it("in npy, safetensors and torch files, too; the only such array is the one that is meant", async () => {
    const bits = (await readFile(fixture("npy-bf16.npy"))).subarray(-120);
    for (const descr of ["<u2", "<i2", "|V2"]) {
      const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (12, 5), }`;
      const prefix = Buffer.from(`\x93NUMPY\x01\x00${String.fromCharCode(header.length)}\x00${header}`, "latin1");
      await writeFile(join(folder, "bits.npy"), Buffer.concat([prefix, bits]));
      expect(await read(join(folder, "bits.npy"))).toMatchObject({ dtype: "bf16", values: counted });
    }
    for (const dtype of ["U16", "I16"] as const) {
      const path = await safetensors("bits.safetensors", [{ name: "x", dtype, shape: [12, 5] }], bits);
      expect(await read(path)).toMatchObject({ dtype: "bf16", values: counted });
    }
    expect(await read(TREE, { dataset: "bits" })).toMatchObject({ dtype: "bf16", values: counted });
  });

  it("what does not look like them needs --as, and floats of other widths have no use for it", async () => {
    await expect(read(KINDS, { dataset: "counts/acts" })).rejects.toThrow(
      "counts/acts holds u16, not f16, bf16, f32 or f64; where its elements are the bits of floats, say so: --as bf16",
    );
    expect((await read(KINDS, { dataset: "counts/acts", as: "bf16" })).rows).toBe(12);
    await expect(read(KINDS, { dataset: "run/acts", as: "bf16" })).rejects.toThrow(
      "acts (f32 [3, 4, 5]) has no elements of 2 bytes to read as bf16; leave out --as",
    );
  });
});

describe("links of HDF5", () => {
  it.each([
    "hidden_states",
    "latest/acts",
    "again/acts",
    "copy",
    "/latest/./acts",
  ])("%s is followed", async (dataset) => {
    expect((await read(KINDS, { dataset })).values).toEqual(counted);
  });

  it("bring the tokens and masks of the group that they lead to", async () => {
    expect(await read(KINDS)).toMatchObject({ tokens: range(12), mask: third });
  });

  it("that lead nowhere, round in circles, or out of the file are refused", async () => {
    await expect(read(KINDS, { dataset: "nowhere" })).rejects.toThrow("it is a link to /run/none, which is not in the");
    await expect(read(KINDS, { dataset: "circle" })).rejects.toThrow("it is a link to /circle/circle, which is not in");
    await expect(read(KINDS, { dataset: "outside" })).rejects.toThrow(
      "outside cannot be read: it is a link into another file, other.h5, which is not followed; name the file",
    );
  });
});

describe("an HDF5 file that was left open", () => {
  it("in SWMR mode is read as far as it was written, with a note", async () => {
    const found = await read(fixture("hdf5-swmr.h5"));
    expect(found).toMatchObject({ rows: 8, values: counted.slice(0, 40) });
    expect(found.notes).toEqual([expect.stringContaining("was not closed by the program that wrote it (SWMR mode)")]);
  });

  it("in SWMR mode, damaged, is refused for what is damaged", async () => {
    for (const [at, message] of [
      [40, "the superblock is damaged: its checksum is wrong"],
      [60, "opening failed: incorrect metadata checksum"],
    ] as const) {
      const bytes = await readFile(fixture("hdf5-swmr.h5"));
      bytes[at]! ^= 0xff;
      await writeFile(join(folder, "damaged.h5"), bytes);
      await expect(read(join(folder, "damaged.h5"))).rejects.toThrow(message);
    }
  });

  it("in another mode is refused with what to do", async () => {
    const bytes = await readFile(fixture("hdf5-swmr.h5"));
    bytes[11] = 1;
    await writeFile(join(folder, "open.h5"), bytes);
    await expect(read(join(folder, "open.h5"))).rejects.toThrow(
      "was not closed by the program that wrote it, and may lack what was written last; close it there, or clear the",
    );
  });
});

describe("trees of torch tensors", () => {
  it("a list of tensors of one width is read one after another", async () => {
    const found = await read(fixture("torch-list.pt"));
    expect(found).toMatchObject({ rows: 12, sequence: undefined, values: counted });
    expect(found.notes).toEqual([
      expect.stringContaining("the tensor (f32 [12, 5]) is a list of 3 tensors, read one after another"),
    ]);
    expect((await read(fixture("torch-list.pt"), { dataset: "1" })).values).toEqual(counted.slice(15, 35));
  });

  it.each([
    "3",
    "layers.3.resid",
    "sequences.acts",
    "prompts.acts",
    "rows",
    "tuple.1",
  ])("%s has a name", async (dataset) => expect((await read(TREE, { dataset })).values).toEqual(counted));

  it("lists keep sequences of one length, and lists of tokens and masks go with them", async () => {
    expect(await read(TREE, { dataset: "sequences.acts" })).toMatchObject({ sequence: 4, mask: third });
    expect(await read(TREE, { dataset: "prompts.acts" })).toMatchObject({ sequence: undefined, tokens: range(12) });
  });

  it("lists of several widths, tuples and empty lists are no array", async () => {
    for (const dataset of ["uneven", "tuple", "empty"])
      await expect(read(TREE, { dataset })).rejects.toThrow(`no tensor ${dataset}; the file has 3 (f32 [12, 5])`);
  });
});

describe("folders", () => {
  const dataset = async (path: string, values: number): Promise<void> => {
    await mkdir(path, { recursive: true });
    await writeFile(join(path, "data.arrow"), ipc([tensorBatch(2, values)]));
    await writeFile(join(path, "state.json"), '\ufeff{"_data_files": [{"filename": "data.arrow"}]}');
    await writeFile(join(path, "dataset_info.json"), "{}");
  };

  it("of several splits are refused with their names, with one split they are read; a mark of the order of bytes is left out", async () => {
    const path = join(folder, "splits");
    await dataset(join(path, "train"), 0);
    await writeFile(join(path, "dataset_dict.json"), '{"splits": ["train", "test"]}');
    expect((await read(path)).rows).toBe(6);
    await dataset(join(path, "test"), 0);
    await expect(read(path)).rejects.toThrow(`${path}: holds splits test, train: name one; such as ${path}/train`);
    await rm(join(path, "dataset_dict.json"));
    await expect(read(path)).rejects.toThrow("holds datasets test, train: name one");
    expect((await read(join(path, "train"))).rows).toBe(6);
    expect(await holdsActivations(path)).toBe(true);
  });

  it("of an interrupted cache are read, without parts that are not complete", async () => {
    const path = join(folder, "interrupted");
    for (const i of [0, 1]) await dataset(join(path, ".tmp_shards", `shard_0000${i}`), 24 * i);
    await mkdir(join(path, ".tmp_shards", "shard_00002"));
    expect(await holdsActivations(path)).toBe(true);
    for (const each of [path, join(path, ".tmp_shards")]) {
      const { rows, notes } = await read(each);
      expect(rows).toBe(12);
      expect(notes).toEqual([
        `${each} is a cache whose making was interrupted: 2 parts are read; shard_00002 is not complete and left out`,
      ]);
    }
  });

  it("an empty shard among others is a note, and all of them an error", async () => {
    const full = await safetensors("full.safetensors", [{ name: "acts", dtype: "F32", shape: [3, 2] }]);
    const none = await safetensors("none.safetensors", [{ name: "acts", dtype: "F32", shape: [0, 2] }]);
    const blank = join(folder, "blank.h5");
    await writeFile(blank, "");
    await writeFile(join(folder, "no-batch.arrow"), ipc([tensorBatch(0, 0)]));
    const empty = [none, blank, join(folder, "no-batch.arrow")];
    const { rows, notes } = await read([...empty, full]);
    expect(rows).toBe(3);
    expect(notes).toEqual(empty.map((path) => `${path} has no rows and is left out`));
    await expect(read(empty)).rejects.toThrow("acts (F32 [0, 2]) has no rows; give a file with data");
  });

  it("whose index names a shard that is not there are refused; a name with -of- only makes a note", async () => {
    const path = join(folder, "indexed");
    await mkdir(path);
    for (const i of [1, 2])
      await safetensors(`indexed/acts-0000${i}-of-00003.safetensors`, [{ name: `x${i}`, dtype: "F32", shape: [i, 2] }]);
    expect((await read(path)).notes).toEqual([`${path}: 1 of the 3 files acts-*-of-00003 is not there`]);
    const index = (files: Record<string, string>) =>
      writeFile(join(path, "acts.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: files }));
    await index({ x1: "acts-00001-of-00003.safetensors", x3: "acts-00003-of-00003.safetensors" });
    for (const each of [path, join(path, "acts.safetensors.index.json")])
      await expect(read(each)).rejects.toThrow(
        "acts.safetensors.index.json: names acts-00003-of-00003.safetensors, which is not there; copy or download",
      );
    await index({ x1: "acts-00001-of-00003.safetensors", x2: "acts-00002-of-00003.safetensors" });
    expect((await read(path)).rows).toBe(3);
    expect((await read(path, { dataset: "x2" })).rows).toBe(2);
    await index({ x1: "../full.safetensors" });
    await expect(read(path)).rejects.toThrow('names "../full.safetensors", which is no file of the folder');
  });

  it("Parquet is answered with how to convert it", async () => {
    const path = join(folder, "parquet");
    await mkdir(path);
    await writeFile(join(path, "train.parquet"), "PAR1 and so on PAR1");
    for (const each of [path, join(path, "train.parquet")])
      await expect(read(each)).rejects.toThrow(
        'is Parquet, which is not read; convert it: datasets.load_dataset("parquet"',
      );
  });
});

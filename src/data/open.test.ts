import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHdf5, type Hdf5Layout } from "../formats/hdf5-write.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { type OpenOptions, openData, openSource } from "./open.ts";
import type { Source } from "./source.ts";

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../formats/fixtures/hdf5-${name}.h5`, import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-open-"));
});
afterAll(() => rm(folder, { recursive: true }));

type DatasetSpec = [name: string, dtype: "f16" | "f32" | "i32", shape: readonly number[]];

let files = 0;
/** A file whose numbers count up from `from`: f32 and i32 as values, f16 as bits. */
async function make(
  parts: readonly DatasetSpec[],
  attributes: Hdf5Layout["attributes"] = {},
  from = 0,
): Promise<string> {
  const path = join(folder, `${files++}.h5`);
  const writer = await createHdf5(path, {
    datasets: parts.map(([name, dtype, shape]) => ({ name, dtype, shape })),
    attributes,
  });
  for (const [name, dtype, shape] of parts) {
    const count = shape.reduce((product, size) => product * size, 1);
    const numbers = range(from, count);
    const data =
      dtype === "f16"
        ? Uint16Array.from(numbers)
        : dtype === "f32"
          ? Float32Array.from(numbers)
          : Int32Array.from(numbers);
    await writer.write(name, 0, bytesOf(data));
  }
  await writer.close();
  return path;
}

async function using<T>(
  paths: readonly string[],
  use: (source: Source) => T | Promise<T>,
  options?: OpenOptions,
): Promise<T> {
  const source = await openSource(paths, options);
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

async function floats(source: Source, first: number, count: number): Promise<number[]> {
  const bytes = new Uint8Array(count * source.dIn * 4);
  await source.read(first, count, bytes);
  return [...new Float32Array(bytes.buffer)];
}

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

async function refusal(paths: readonly string[], options?: Parameters<typeof openSource>[1]): Promise<string> {
  const thrown: unknown = await openSource(paths, options).then(
    async (source) => source.close(),
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(SaettaError);
  return (thrown as SaettaError).message;
}

const notes = (path: string) => using([path], (source) => source.notes);

describe("openSource", () => {
  it("opens [n_seq, T, d] with tokens and origin", async () => {
    const attributes = {
      model: "m.onnx",
      model_sha256: "ab",
      tensor: "t",
      tokenizer: "tokenizer.json",
      start_token: 3,
    };
    const path = await make(
      [
        ["hidden_states", "f32", [3, 4, 2]],
        ["tokens", "i32", [3, 4]],
      ],
      attributes,
    );
    await using([path], async (source) => {
      expect(source).toMatchObject({ paths: [path], dIn: 2, rows: 12, dtype: "f32", sequence: 4, grain: 1 });
      expect(source.description).toBe(`${path}: 12 x 2 f32`);
      expect(source.origin).toEqual({
        model: "m.onnx",
        modelSha256: "ab",
        tensor: "t",
        tokenizer: "tokenizer.json",
        modelPlaces: [join(dirname(path), "m.onnx")],
        tokenizerPlaces: [join(dirname(path), "tokenizer.json")],
        startToken: 3,
      });
      expect(await floats(source, 5, 3)).toEqual(range(10, 6));
      expect(await source.tokens?.(5, 3)).toEqual(Int32Array.of(5, 6, 7));
      expect(source.locate(6)).toBe(`${path}, row 6 (sequence 1, position 2)`);
    });
  });

  it("opens [n, d], and takes the only float dataset for hidden_states", async () => {
    const path = await make([
      ["acts", "f16", [7, 3]],
      ["tokens", "i32", [7]],
      ["scale", "f32", [3]],
    ]);
    await using([path], async (source) => {
      expect(source).toMatchObject({ dIn: 3, rows: 7, dtype: "f16", sequence: undefined, origin: {} });
      expect(await source.tokens?.(6, 1)).toEqual(Int32Array.of(6));
      expect(source.locate(6)).toBe(`${path}, row 6`);
    });
  });

  it.each([
    "oldest",
    "newest",
  ])("opens chunked data and tokens of 64 bits written by h5py in the %s format", async (age) => {
    await using(
      [fixture(age)],
      async (source) => {
        expect(source).toMatchObject({
          dIn: 5,
          rows: 12,
          dtype: "f16",
          sequence: 4,
          origin: { model: "modèle", startToken: 7 },
        });
        expect(await source.tokens?.(0, 12)).toEqual(Int32Array.from(range(0, 12)));
      },
      { dataset: "/three/hidden_states" },
    );
    await using(
      [fixture(age)],
      async (source) => {
        expect(source).toMatchObject({ dtype: "f32", sequence: 4, grain: 4, tokens: undefined });
        expect(await floats(source, 3, 7)).toEqual(range(15, 35).map((i) => i / 4 - 3));
      },
      { dataset: "gzip" },
    );
  });

  it("joins files in the order given", async () => {
    const shape = (n: number): DatasetSpec[] => [
      ["hidden_states", "f32", [n, 2, 3]],
      ["tokens", "i32", [n, 2]],
    ];
    const paths = [
      await make(shape(2), { model: "m", tensor: "a" }, 0),
      await make(shape(1), { model: "m", tensor: "b" }, 100),
      await make(shape(3), { model: "m", tensor: "a" }, 200),
    ];
    await using(paths, async (source) => {
      expect(source).toMatchObject({
        paths,
        dIn: 3,
        rows: 12,
        dtype: "f32",
        sequence: 2,
        grain: 1,
        origin: { model: "m" },
      });
      expect(source.origin.tensor).toBeUndefined();
      const all = [...range(0, 12), ...range(100, 6), ...range(200, 18)];
      for (let first = 0; first <= 12; first++) {
        for (let count = 0; first + count <= 12; count++) {
          expect(await floats(source, first, count)).toEqual(all.slice(first * 3, (first + count) * 3));
        }
      }
      expect(await source.tokens?.(3, 4)).toEqual(Int32Array.of(3, 100, 101, 200));
      expect(source.locate(5)).toBe(`${paths[1]}, row 1 (sequence 0, position 1)`);
      expect(source.locate(11)).toBe(`${paths[2]}, row 5 (sequence 2, position 1)`);
      await expect(source.read(11, 2, new Uint8Array(24))).rejects.toThrow(RangeError);
    });
  });

  it("drops the sequence where files do not share it", async () => {
    const paths = [await make([["hidden_states", "f32", [2, 2, 3]]]), await make([["hidden_states", "f32", [5, 3]]])];
    await using(paths, (source) => expect(source).toMatchObject({ rows: 9, sequence: undefined, tokens: undefined }));
  });

  it("says which files do not go together, with the numbers", async () => {
    const a = await make([["hidden_states", "f32", [2, 3]]]);
    const b = await make([["hidden_states", "f32", [2, 4]]]);
    const c = await make([["hidden_states", "f16", [2, 3]]]);
    const d = await make([
      ["hidden_states", "f32", [2, 3]],
      ["tokens", "i32", [2]],
    ]);
    expect(await refusal([a, b])).toContain(`${a} and ${b} do not go together: rows of 3 and of 4 numbers`);
    expect(await refusal([a, c])).toContain(`${a} and ${c} do not go together: f32 and f16`);
    expect(await refusal([a, d], { repeats: "keep" })).toContain(`${d} has tokens and ${a} has none`);
  });

  it("says what the file has when the dataset is missing or could be either", async () => {
    const path = await make([
      ["a", "f32", [2, 3]],
      ["b", "f16", [2, 3]],
    ]);
    expect(await refusal([path])).toBe(
      `${path}: no dataset hidden_states; the file has a (f32 [2, 3]), b (f16 [2, 3]); name one with --dataset`,
    );
    expect(await refusal([path], { dataset: "c" })).toContain("no dataset c; the file has a");
  });

  it("refuses wrong ranks, types, empty data and tokens that do not fit", async () => {
    const rank = await make([["hidden_states", "f32", [6]]]);
    expect(await refusal([rank])).toContain("hidden_states (f32 [6]) has 1 axis");
    expect(await refusal([await make([["hidden_states", "f32", [1, 2, 3, 4]]])])).toContain("has 4 axes");
    expect(await refusal([await make([["hidden_states", "i32", [2, 3]]])])).toContain(
      "hidden_states holds i32, not f16, bf16, f32 or f64",
    );
    const tokens = await make([
      ["hidden_states", "f32", [2, 3, 4]],
      ["tokens", "i32", [6]],
    ]);
    expect(await notes(tokens)).toEqual([
      expect.stringContaining("tokens (i32 [6]) must have shape [2, 3], as hidden_states has"),
    ]);
    const real = await make([
      ["hidden_states", "f32", [2, 3]],
      ["tokens", "f32", [2]],
    ]);
    expect(await notes(real)).toEqual([expect.stringContaining("tokens (f32 [2]) must hold integers")]);
    expect(await refusal([fixture("oldest")], { dataset: "big" })).toContain(
      "big cannot be read: its elements are of type big-endian f32",
    );
    expect(await refusal([fixture("oldest")], { dataset: "empty" })).toContain("empty (f32 [0, 5]) has no rows");
    await expect(openSource([])).rejects.toThrow(UsageError);
  });
});

describe("inputs with targets", () => {
  it("are paired over files, and of two datasets of one file", async () => {
    const wide = await make([["hidden_states", "f32", [6, 2]]], {}, 100);
    const [first, second] = [
      await make([["hidden_states", "f32", [2, 1]]]),
      await make([["hidden_states", "f32", [4, 1]]], {}, 2),
    ];
    const pair = await openData([first, second], { target: [wide] });
    expect(pair).toMatchObject({ paths: [first, second], targetPaths: [wide], dIn: 1, dOut: 2, rows: 6 });
    const bytes = new Uint8Array(2 * 12);
    await pair.read(1, 2, bytes);
    expect([...new Float32Array(bytes.buffer)]).toEqual([1, 102, 103, 2, 104, 105]);
    await pair.close();

    const both = await make([
      ["in", "f32", [3, 2]],
      ["out", "f32", [3, 4]],
    ]);
    const one = await openData([both], { dataset: "in", target: [both], targetDataset: "out" });
    expect(one).toMatchObject({ dIn: 2, dOut: 4, rows: 3 });
    await one.close();
    await expect(openData([both], { dataset: "in", target: [both] })).rejects.toThrow(/the targets are the inputs/);
    await expect(openData([both], { dataset: "in", target: ["none.h5"] })).rejects.toThrow(/^none\.h5: /);
  });

  it("are plain rows without a target", async () => {
    const source = await openData([await make([["hidden_states", "f32", [2, 1]]])]);
    expect(source.dOut).toBeUndefined();
    await source.close();
  });
});

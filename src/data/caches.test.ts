/**
 * Caches of activations as other programs leave them. Arrow files are written by Apache's own
 * library, torch files by PyTorch.
 */

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { batch, count, d, ipc, T } from "../../test/support/arrow.ts";
import { createHdf5 } from "../formats/hdf5-write.ts";
import { type SafetensorsPart, writeSafetensors } from "../formats/safetensors.ts";
import { type TorchDict, writeTorch } from "../formats/torch-write.ts";
import { train } from "../train/train.ts";
import { bytesOf } from "../util/bytes.ts";
import { chooseRows } from "./choose.ts";
import { rowsToFloat32 } from "./convert.ts";
import { openSource } from "./open.ts";
import { preflightOf } from "./preflight.ts";
import { fromRows } from "./rows-source.ts";
import type { Source } from "./source.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-caches-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function values(source: Source, first = 0, count = source.rows): Promise<number[]> {
  const bytes = new Uint8Array(count * source.dIn * { f64: 8, f32: 4, f16: 2, bf16: 2 }[source.dtype]);
  await source.read(first, count, bytes);
  return [...rowsToFloat32(bytes, source.dtype, count * source.dIn)];
}

async function using<T>(paths: readonly string[], use: (source: Source) => Promise<T>, dataset?: string): Promise<T> {
  const source = await openSource(paths, dataset === undefined ? {} : { dataset });
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

/** A folder as save_to_disk leaves it. */
async function dataset(name: string, files: readonly Uint8Array[], state: object = {}): Promise<string> {
  const path = join(folder, name);
  await mkdir(path, { recursive: true });
  const names = files.map(
    (_, i) => `data-${String(i).padStart(5, "0")}-of-${String(files.length).padStart(5, "0")}.arrow`,
  );
  for (const [i, bytes] of files.entries()) await writeFile(join(path, names[i]!), bytes);
  await writeFile(
    join(path, "state.json"),
    JSON.stringify({ _data_files: names.map((filename) => ({ filename })), _fingerprint: "x", _split: null, ...state }),
  );
  await writeFile(join(path, "dataset_info.json"), JSON.stringify({ features: {} }));
  return path;
}

describe("SAELens' cache", () => {
  it.each(["f16", "f32", "f64"] as const)("of %s, in several batches and files, with tokens", async (kind) => {
    const n = T * d;
    const path = await dataset(`saelens-${kind}`, [
      ipc([batch(kind, 2, 0), batch(kind, 3, 2 * n)]),
      ipc([batch(kind, 1, 5 * n)]),
    ]);
    await using([path], async (source) => {
      expect(source).toMatchObject({
        rows: 6 * T,
        dIn: d,
        dtype: kind,
        sequence: T,
        origin: { tensor: "blocks.8.hook_resid_post" },
      });
      expect(await values(source)).toEqual(count(6 * T));
      for (const [first, some] of [
        [4, 9],
        [6, 1],
        [0, 1],
        [17, 1],
        [5, 2],
      ] as const) {
        expect(await values(source, first, some)).toEqual(count(some, first * d));
      }
      expect([...(await source.tokens!(5, 3))]).toEqual([5, 24, 25]);
      expect(source.locate(7)).toContain("data-00000-of-00002.arrow, row 7 (sequence 2, position 1)");
    });
  });

  it("with lists of fixed size, and before its shards are joined", async () => {
    const n = T * d;
    const fixed = join(folder, "fixed.arrow");
    await writeFile(fixed, ipc([batch("f32", 2, 0, { fixed: true }), batch("f32", 1, 2 * n, { fixed: true })]));
    await using([fixed], async (source) => expect(await values(source)).toEqual(count(3 * T)));
    await dataset("parts/shard_00000", [ipc([batch("f32", 1, 0)])]);
    await dataset("parts/shard_00001", [ipc([batch("f32", 1, n)])]);
    await using([join(folder, "parts")], async (source) => expect(await values(source)).toEqual(count(2 * T)));
  });

  it.each([
    false,
    true,
  ])("whose lists begin in the middle of their numbers, as those of a slice do (fixed inner lists: %s)", async (fixed) => {
    // Apache's writer moves numbers to the beginning, others do not: of 4 sequences the first is
    // taken away by offsets and lengths alone.
    const bytes = Buffer.from(ipc([batch("f32", 4, 0, { fixedInner: fixed })]));
    const offsets = Buffer.from(Int32Array.of(0, T, 2 * T, 3 * T, 4 * T).buffer);
    const lists = bytes.indexOf(offsets);
    bytes.set(Buffer.from(Int32Array.of(T, 2 * T, 3 * T, 4 * T, 4 * T).buffer), lists);
    const node = Buffer.from(BigInt64Array.of(4n, 0n).buffer);
    for (let at = bytes.indexOf(node); at >= 0 && at < lists; at = bytes.indexOf(node, at + 1))
      bytes.writeBigInt64LE(3n, at);
    const path = join(folder, `slice-${fixed}.arrow`);
    await writeFile(path, bytes);
    await using([path], async (source) => {
      expect(source).toMatchObject({ rows: 3 * T, sequence: T });
      expect(await values(source)).toEqual(count(3 * T, T * d));
    });
  });

  it("is trained on", async () => {
    const path = await dataset("trained", [ipc([batch("f32", 20, 0)])]);
    const source = await openSource([path]);
    await using run = await train(source, { engine: "reference", latents: 8, k: 2, batch: 4, out: false });
    expect((await run.finished).reason).toBe("done");
    await source.close();
  });

  it.each([
    [
      "lists of different lengths",
      () => [ipc([batch("f32", 2, 0, { lengths: [3, 2] })])],
      /data-0.*arrow: column "blocks\.8.*" \(list of list of f32\) has lists of different lengths/,
    ],
    [
      "batches of different lengths",
      () => [ipc([batch("f32", 2, 0), batch("f32", 2, 0, { lengths: [2, 2] })])],
      /has lists of 2 beside those of 3/,
    ],
    ["nulls", () => [ipc([batch("f32", 2, 0, { nulls: true })])], /holds nulls/],
    [
      "a file that is cut short",
      () => [ipc([batch("f32", 2, 0)]).slice(0, -60)],
      /byte \d+: a batch ends at byte \d+, but the file at \d+/,
    ],
    [
      "the format with an index",
      () => [ipc([batch("f32", 1, 0)], "file")],
      /is an Arrow file with an index \(Feather\), not a stream; save the dataset/,
    ],
    ["no file", () => [], /state\.json: "_data_files" names no file/],
  ] as const)("%s is refused", async (name, files, message) => {
    const path = await dataset(`bad-${name}`, files());
    await expect(openSource([path])).rejects.toThrow(message);
  });

  it("a choice of its rows, a name that leaves the folder, and a column that is not there are refused", async () => {
    const file = ipc([batch("f32", 1, 0)]);
    await expect(
      openSource([await dataset("chosen", [file], { _indices_data_files: [{ filename: "indices.arrow" }] })]),
    ).rejects.toThrow(
      "is a choice of the rows of its files, in an order of its own, which is not read; save it after flatten_indices()",
    );
    await expect(
      openSource([await dataset("out", [file], { _data_files: [{ filename: "../x.arrow" }] })]),
    ).rejects.toThrow('names "../x.arrow"');
    const path = await dataset("columns", [file]);
    await expect(openSource([path], { dataset: "blocks.9" })).rejects.toThrow(
      "no column blocks.9; the file has text (text), blocks.8.hook_resid_post (list of list of f32), token_ids (list of i32); name one",
    );
    await expect(openSource([path], { dataset: "text" })).rejects.toThrow("text holds text, not f16, f32 or f64");
    await expect(openSource([path], { dataset: "token_ids" })).rejects.toThrow("token_ids holds list of i32, not f16");
  });

  it("any cut or changed byte is refused in one line, or leaves numbers, and never hangs", async () => {
    const bytes = ipc([batch("f32", 2, 0), batch("f32", 2, 24)]);
    const path = join(folder, "cut.arrow");
    for (let at = 0; at < bytes.length; at += 3) {
      const changed = bytes.slice(0, at % 2 === 0 ? at : bytes.length);
      if (at % 2 === 1) changed[at] = changed[at]! ^ 0xff;
      await writeFile(path, changed);
      await using([path], (source) => values(source)).catch((thrown: Error) => {
        if (!/^(Format|Saetta)Error$/.test(thrown.name)) throw thrown;
        expect(thrown.message).not.toContain("\n");
      });
    }
  });
});

const i64 = (numbers: readonly number[]) => bytesOf(BigInt64Array.from(numbers, BigInt));

/**
 * A chunk of 2 sequences; the last position of each is padding, and the first is not trained on:
 * both hold NaN.
 */
function chunk(from: number): {
  activation: Float32Array;
  tokens: Uint8Array;
  mask: Uint8Array;
  attention: Uint8Array;
} {
  const activation = Float32Array.from(count(2 * T, from), (value, i) =>
    [0, T - 1].includes(Math.floor(i / d) % T) ? Number.NaN : Math.sin(value * value + 1),
  );
  const ids = Array.from({ length: 2 * T }, (_, i) => from + i);
  return { activation, tokens: i64(ids), mask: Uint8Array.of(0, 1, 1, 0, 1, 1), attention: i64([1, 1, 0, 1, 1, 0]) };
}

async function safetensorsChunk(path: string, from: number): Promise<void> {
  const { activation, tokens, mask, attention } = chunk(from);
  const parts: SafetensorsPart[] = [
    { name: "activation", dtype: "F32", shape: [2, T, d], bytes: async () => bytesOf(activation) },
    { name: "tokens", dtype: "I64", shape: [2, T], bytes: async () => tokens },
    { name: "attention_mask", dtype: "I64", shape: [2, T], bytes: async () => attention },
    { name: "mask", dtype: "BOOL", shape: [2, T], bytes: async () => mask },
  ];
  const pieces: Uint8Array[] = [];
  await writeSafetensors(async (bytes) => void pieces.push(bytes), parts);
  await writeFile(path, Buffer.concat(pieces));
}

describe("Llamascopium's cache", () => {
  let hook: string;
  const chunks = 12;
  beforeAll(async () => {
    hook = join(folder, "cache", "blocks.3.hook_resid_post");
    await mkdir(hook, { recursive: true });
    for (let i = 0; i < chunks; i++) {
      const name = join(hook, `shard-${i % 2}-chunk-${String(Math.floor(i / 2)).padStart(8, "0")}`);
      await safetensorsChunk(`${name}.safetensors`, 100 * i);
      await writeFile(
        `${name}.meta.json`,
        JSON.stringify([
          { model_name: "gpt2", context_idx: 0 },
          { model_name: "gpt2", context_idx: 1 },
        ]),
      );
    }
  });

  it("is read in the order of its names, with tokens, masks and where it is from", async () => {
    await using([hook], async (source) => {
      expect(source).toMatchObject({
        rows: chunks * 2 * T,
        dIn: d,
        sequence: T,
        origin: { model: "gpt2", tensor: "blocks.3.hook_resid_post" },
      });
      // All chunks of shard 0 come first.
      expect([...(await source.tokens!(0, 7))]).toEqual([0, 1, 2, 3, 4, 5, 200]);
      expect([...(await source.mask!(0, 8))]).toEqual([0, 1, 0, 0, 1, 0, 0, 1]);
      const { masked, untrained, excluded, holdout } = await chooseRows(source, {
        excludeTokens: [1],
        holdout: 0.2,
        seed: 1,
      });
      expect(masked.size).toBe(chunks * 4);
      expect(excluded).toBe(1); // token 1 is there once; 4 of 6 rows are masked
      for (let row = 0; row < source.rows; row++) if (row % 3 !== 1) expect(untrained.has(row)).toBe(true);
      expect(holdout.length).toBeGreaterThan(0);
      for (const { first, count: rows } of holdout) expect([first % 3, rows]).toEqual([1, 1]);
      const found = await preflightOf(source);
      expect(found).toMatchObject({ nonFinite: 0, sampled: chunks * 2 });
    });
  });

  it("is trained on without the rows that are masked, which hold NaN here", async () => {
    const source = await openSource([hook]);
    const options = {
      engine: "reference",
      latents: 8,
      k: 2,
      batch: 4,
      epochs: 2,
      holdout: 0.2,
      excludeTokens: "none",
      out: false,
    } as const;
    await using run = await train(source, options);
    expect(run.data).toMatchObject({
      masked: chunks * 4,
      excluded: 0,
      preflight: { nonFinite: 0, excluded: undefined },
    });
    const { reason, report } = await run.finished;
    expect(reason).toBe("done");
    expect(report).toMatchObject({ skipped_rows: 0, holdout_fvu: expect.any(Number) });
    await source.close();
    // The same rows without their mask stop the run.
    const bare = await openSource([hook]);
    await expect(train({ ...bare, mask: undefined }, options).then((run) => run.finished)).rejects.toThrow(
      "holds NaN or Inf",
    );
    await bare.close();
  });

  it("is read from torch files, too", async () => {
    const path = join(folder, "torch", "chunk-00000000.pt");
    await mkdir(join(folder, "torch"));
    const { activation, tokens, mask, attention } = chunk(7);
    const of = (dtype: "f32" | "i64" | "bool", shape: readonly number[], bytes: Uint8Array) => ({
      dtype,
      shape,
      bytes: async () => bytes,
    });
    const dict: TorchDict = {
      activation: of("f32", [2, T, d], bytesOf(activation)),
      tokens: of("i64", [2, T], tokens),
      mask: of("bool", [2, T], mask),
      attention_mask: of("i64", [2, T], attention),
    };
    const pieces: Uint8Array[] = [];
    await writeTorch(async (bytes) => void pieces.push(bytes), dict);
    await writeFile(path, Buffer.concat(pieces));
    await using([join(folder, "torch")], async (source) => {
      expect(source).toMatchObject({ rows: 6, dIn: d, dtype: "f32", sequence: T, origin: { tensor: "torch" } });
      expect(await values(source, 1, 1)).toEqual([...activation.subarray(d, 2 * d)]);
      expect([...(await source.tokens!(0, 6))]).toEqual([7, 8, 9, 10, 11, 12]);
      expect([...(await source.mask!(0, 6))]).toEqual([0, 1, 0, 0, 1, 0]);
    });
    const fixture = (name: string) => new URL(`../formats/fixtures/torch-${name}.pt`, import.meta.url).pathname;
    await using([fixture("tensor")], async (source) =>
      expect(await values(source, 1, 2)).toEqual(Array.from({ length: 12 }, (_, i) => (6 + i) / 8)),
    );
    await using(
      [fixture("types")],
      async (source) => expect(await values(source, 3, 1)).toEqual([18, 19, 20, 21, 22, 23].map((x) => x / 8)),
      "matrix",
    );
    await expect(openSource([fixture("types")], { dataset: "transposed" })).rejects.toThrow(
      "transposed (f32 [6, 4]) does not lie row by row in the file",
    );
    await expect(openSource([fixture("types")])).rejects.toThrow(
      /no tensor hidden_states; the file has matrix \(f32 \[4, 6\]\), .*; name one with --dataset/,
    );
    await expect(openSource([fixture("legacy")])).rejects.toThrow("before 1.6");
  });

  it("a mask of another shape is left out with a note; one next to files without any leaves theirs alone", async () => {
    const path = join(folder, "shape.safetensors");
    const pieces: Uint8Array[] = [];
    const parts: SafetensorsPart[] = [
      { name: "activation", dtype: "F32", shape: [2, T, d], bytes: async () => bytesOf(new Float32Array(2 * T * d)) },
      { name: "mask", dtype: "BOOL", shape: [2], bytes: async () => Uint8Array.of(1, 1) },
    ];
    await writeSafetensors(async (bytes) => void pieces.push(bytes), parts);
    await writeFile(path, Buffer.concat(pieces));
    await using([path], async (source) => {
      expect(source.mask).toBeUndefined();
      expect(source.notes).toEqual([
        `${path}: mask (bool [2]) must have shape [2, 3], as activation has; mask is left out, so rows of padding count`,
      ]);
    });
    const h5 = join(folder, "masked.h5");
    const file = await createHdf5(h5, {
      datasets: [
        { name: "hidden_states", dtype: "f32", shape: [2, T, d] },
        { name: "attention_mask", dtype: "i32", shape: [2, T] },
      ],
      attributes: {},
    });
    await file.write("hidden_states", 0, bytesOf(Float32Array.from(count(2 * T))));
    await file.write("attention_mask", 0, bytesOf(Int32Array.of(1, 1, 0, 1, 0, 0)));
    await file.close();
    const plain = join(folder, "plain.h5");
    const other = await createHdf5(plain, {
      datasets: [{ name: "hidden_states", dtype: "f32", shape: [1, T, d] }],
      attributes: {},
    });
    await other.write("hidden_states", 0, bytesOf(Float32Array.from(count(T))));
    await other.close();
    await using([plain, h5], async (source) =>
      expect([...(await source.mask!(0, 9))]).toEqual([1, 1, 1, 1, 1, 0, 1, 0, 0]),
    );
    await using([plain], async (source) => expect(source.mask).toBeUndefined());
    expect(fromRows(() => [], { dIn: 1, rows: 1 }).mask).toBeUndefined();
  });
});

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { float32Of, float64Of } from "../util/bytes.ts";
import { decodeBfloat16, decodeFloat16 } from "../util/float16.ts";
import type { TorchName, TorchValue } from "./torch-pickle.ts";
import { openTorch, type TorchFile } from "./torch-read.ts";
import { TorchTensor } from "./torch-tensor.ts";

/** Written by fixtures/torch_files.py, with PyTorch. */
const fixture = (name: string) => new URL(`fixtures/torch-${name}.pt`, import.meta.url).pathname;

function item(file: TorchFile, name: string): TorchValue {
  const value = file.root instanceof Map ? file.root.get(name) : undefined;
  if (value === undefined) throw new Error(`no ${name}`);
  return value;
}

function tensor(file: TorchFile, name: string): TorchTensor {
  const value = item(file, name);
  if (!(value instanceof TorchTensor)) throw new Error(`${name} is no tensor`);
  return value;
}

const NUMBERS: Readonly<Record<string, (bytes: Uint8Array) => ArrayLike<number | bigint>>> = {
  f64: (bytes) => float64Of(bytes),
  f32: (bytes) => float32Of(bytes),
  f16: (bytes) => decodeFloat16(new Uint16Array(bytes.buffer)),
  bf16: (bytes) => decodeBfloat16(new Uint16Array(bytes.buffer)),
  i64: (bytes) => new BigInt64Array(bytes.buffer),
  i32: (bytes) => new Int32Array(bytes.buffer),
  i16: (bytes) => new Int16Array(bytes.buffer),
  i8: (bytes) => new Int8Array(bytes.buffer),
  u8: (bytes) => bytes,
  bool: (bytes) => bytes,
};

async function numbers(file: TorchFile, name: string): Promise<{ shape: readonly number[]; values: number[] }> {
  const found = tensor(file, name);
  const values = NUMBERS[found.dtype]!(await file.read(found));
  return { shape: found.shape, values: Array.from(values, Number) };
}

const eighths = (...values: number[]) => values.map((value) => value / 8);

describe("what PyTorch has saved", () => {
  let file: TorchFile;
  beforeEach(async () => {
    file = await openTorch(fixture("types"));
  });
  afterEach(() => file.close());

  it.each([
    ["matrix", [4, 6], eighths(...Array.from({ length: 24 }, (_, i) => i))],
    ["transposed", [6, 4], eighths(...Array.from({ length: 24 }, (_, i) => (i % 4) * 6 + Math.floor(i / 4)))],
    ["inner", [2, 3], eighths(8, 9, 10, 14, 15, 16)],
    ["steps", [5], eighths(1, 6, 11, 16, 21)],
    ["cube", [4, 2, 3], eighths(0, 4, 8, 12, 16, 20, 1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22, 3, 7, 11, 15, 19, 23)],
    ["repeated", [2, 3], eighths(3, 3, 3, 4, 4, 4)],
    ["scalar", [], [2.5]],
    ["empty", [0, 3], []],
    ["parameter", [6], eighths(0, 1, 2, 3, 4, 5)],
    ["f64", [3], [0, 0.125 / 3, 0.25 / 3]],
    ["f16", [3], [1.5, -65504, 2 ** -24]],
    ["bf16", [3], [1.5, -(2 ** 127), 2 ** -130]],
    ["i64", [8, 2], [-4, -4, -3, -3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3]],
    ["i32", [8], [-4, -3, -2, -1, 0, 1, 2, 3]],
    ["i16", [8], [-4, -3, -2, -1, 0, 1, 2, 3]],
    ["i8", [8], [-4, -3, -2, -1, 0, 1, 2, 3]],
    ["u8", [4], [0, 1, 2, 3]],
    ["bool", [2], [1, 0]],
  ])("%s is %j", async (name, shape, values) => {
    expect(await numbers(file, name)).toEqual({ shape, values });
  });

  it("shares storages, and holds numbers, text and dicts", () => {
    expect(tensor(file, "transposed").storage.key).toBe(tensor(file, "inner").storage.key);
    expect(item(file, "numbers")).toEqual([1, -2, 300, 70000, -(2 ** 40), 2n ** 62n, 0.1, true, null]);
    const nested = item(file, "nested") as Map<unknown, TorchValue>;
    expect(nested.get("text")).toBe("é");
    expect(nested.get("tuple")).toEqual([1, [2, 3]]);
    expect(nested.get(5)).toBe("five");
    expect((nested.get("dtype") as TorchName).name).toBe("torch.float32");
  });
});

it("reads a file of one tensor", async () => {
  const file = await openTorch(fixture("tensor"));
  expect((file.root as TorchTensor).shape).toEqual([4, 6]);
  await file.close();
});

describe("what is no file of data is refused in one line", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "saetta-torch-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it.each([
    [
      "legacy",
      /legacy\.pt: byte 0: is a torch file as PyTorch wrote them before 1\.6, which are not read; load it with torch\.load/,
    ],
    [
      "module",
      /module\.pt: byte \d+: needs torch\.nn\.modules\.linear\.Linear, which is not run: .*; save the state dict alone/,
    ],
    ["script", /script\.pt: is a TorchScript archive, which holds a program; save the state dict alone/],
  ])("%s", async (name, message) => {
    await expect(openTorch(fixture(name))).rejects.toThrow(message);
  });

  it("other files", async () => {
    const path = join(folder, "a.pt");
    await writeFile(path, "");
    await expect(openTorch(path)).rejects.toThrow(
      "a.pt: byte 0: is no file of torch.save, which begin as zip archives do",
    );
    await expect(openTorch(join(folder, "none.pt"))).rejects.toThrow("none.pt: no such file; check the path");
    await expect(openTorch(folder)).rejects.toThrow("not a file");
  });

  it("damage anywhere in the elements of a tensor, when it is read", async () => {
    const bytes = await readFile(fixture("tensor"));
    const path = join(folder, "a.pt");
    const at = bytes.indexOf(Buffer.from(Float32Array.of(1.125, 1.25).buffer));
    bytes[at]! ^= 1;
    await writeFile(path, bytes);
    const file = await openTorch(path);
    await expect(file.read(file.root as TorchTensor)).rejects.toThrow(
      /a\.pt: byte \d+: entry ".*data\/0" is damaged \(its CRC-32 differs\); get/,
    );
    await file.close();
  });
});

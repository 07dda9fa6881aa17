import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { float32Of } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { openSource } from "./open.ts";
import { fromRows, keepingHead, type RowChunk } from "./rows-source.ts";
import type { Source } from "./source.ts";

/** Rows 0, 1, 2, ... of two numbers, in chunks of these sizes, again and again. */
function* chunks(sizes: readonly number[], rows: number): Generator<Float32Array> {
  for (let first = 0, i = 0; first < rows; i++) {
    const count = Math.min(sizes[i % sizes.length]!, rows - first);
    yield Float32Array.from({ length: 2 * count }, (_, at) => first + Math.floor(at / 2));
    first += count;
  }
}

async function rowsOf(source: Source, first: number, count: number, signal?: AbortSignal): Promise<number[]> {
  const bytes = new Uint8Array(count * 8);
  await source.read(first, count, bytes, signal);
  const values = float32Of(bytes);
  expect(values.filter((_, at) => at % 2 === 0)).toEqual(values.filter((_, at) => at % 2 === 1));
  return Array.from(values.filter((_, at) => at % 2 === 0));
}

const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

it.each([
  ["function", () => () => chunks([3, 4], 30)],
  ["iterable", () => chunks([3, 4], 40)],
] as const)("rows of a(n) %s are kept once, and only those that are read", async (_, begin) => {
  const folder = await mkdtemp(join(tmpdir(), "saetta-kept-"));
  try {
    const source = fromRows(begin(), { dIn: 2, rows: 30, keep: { folder } });
    await rowsOf(source, 0, 20);
    if (source.stream === "again") await rowsOf(source, 0, 30);
    else await rowsOf(source, 20, 10);
    await source.close();
    const files = await openSource([folder]);
    expect(await rowsOf(files, 0, files.rows)).toEqual(range(0, 30));
    await files.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});

describe("rows of a function", () => {
  it.each([
    [[1]],
    [[7]],
    [[100]],
    [[3, 0, 5]],
  ])("in chunks of %j are the same rows wherever they are read", async (sizes) => {
    let begun = 0;
    const begin = () => {
      begun++;
      return chunks(sizes, 30);
    };
    const source = fromRows(begin, { dIn: 2, rows: 30 });
    expect(source).toMatchObject({ dIn: 2, rows: 30, dtype: "f32", stream: "again", paths: [] });
    for (const [first, count] of [
      [0, 4],
      [4, 9],
      [20, 10],
    ] as const)
      expect(await rowsOf(source, first, count)).toEqual(range(first, count));
    expect(begun).toBe(1);
    expect(await rowsOf(source, 5, 20)).toEqual(range(5, 20));
    expect(await rowsOf(source, 0, 30)).toEqual(range(0, 30));
    expect(begun).toBe(3);
  });

  it("may come from an async generator that never ends, as numbers or in float64", async () => {
    const forms: ((chunk: Float32Array) => RowChunk)[] = [
      (it) => it,
      (it) => Float64Array.from(it),
      (it) => Array.from(it),
    ];
    let returned = 0;
    async function* endless(): AsyncGenerator<RowChunk> {
      try {
        for (let i = 0; ; i++) yield forms[i % 3]!(Float32Array.of(i, i));
      } finally {
        returned++;
      }
    }
    const source = fromRows(endless, { dIn: 2, rows: 9 });
    expect(await rowsOf(source, 2, 7)).toEqual(range(2, 7));
    expect(await rowsOf(source, 0, 9)).toEqual(range(0, 9));
    expect(returned).toBe(1);
    await source.close();
    await source.close();
    expect(returned).toBe(2);
    await expect(rowsOf(source, 0, 1)).rejects.toThrow("fromRows: read after it was closed");
  });

  it("are read one after the other by calls that overlap", async () => {
    const source = fromRows(() => chunks([4], 20), { dIn: 2, rows: 20 });
    expect(await Promise.all([rowsOf(source, 0, 7), rowsOf(source, 7, 6), rowsOf(source, 2, 3)])).toEqual([
      range(0, 7),
      range(7, 6),
      range(2, 3),
    ]);
  });
});

describe("rows of an iterable", () => {
  it("are read once, forwards", async () => {
    const source = fromRows(chunks([4], 20), { dIn: 2, rows: 20 });
    expect(source.stream).toBe("once");
    expect(await rowsOf(source, 3, 5)).toEqual(range(3, 5));
    expect(await rowsOf(source, 10, 5)).toEqual(range(10, 5));
    const back = rowsOf(source, 0, 5);
    await expect(back).rejects.toThrow(
      "fromRows: an iterable is read once, and it has been read to row 15; give a function that returns the rows anew",
    );
    await expect(back).rejects.toBeInstanceOf(UsageError);
  });

  it("begin twice when the head is kept, until they are read beyond it", async () => {
    const source = keepingHead(fromRows(chunks([4], 40), { dIn: 2, rows: 40 }), 10);
    expect(await rowsOf(source, 0, 10)).toEqual(range(0, 10));
    expect(await rowsOf(source, 0, 3)).toEqual(range(0, 3));
    expect(await rowsOf(source, 3, 15)).toEqual(range(3, 15));
    expect(await rowsOf(source, 18, 22)).toEqual(range(18, 22));
    await expect(rowsOf(source, 0, 1)).rejects.toThrow("read once");
  });
});

describe("what is no rows", () => {
  it.each<[string, RowChunk | string, string]>([
    [
      "a part of a row",
      new Float32Array(5),
      "fromRows: the chunk from row 0 on has 5 numbers, which are no whole rows of 2",
    ],
    [
      "other numbers",
      new Uint16Array(4) as unknown as RowChunk,
      "is neither a Float32Array nor a Float64Array nor an array of numbers",
    ],
    ["text", "1, 2", "is neither a Float32Array nor"],
    ["text in an array", ["1", "2"] as unknown as RowChunk, "is neither a Float32Array nor"],
  ])("is refused: %s", async (_, chunk, message) => {
    const reading = rowsOf(fromRows([chunk as RowChunk], { dIn: 2, rows: 1 }), 0, 1);
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toBeInstanceOf(UsageError);
  });

  it("is refused: nothing that can be iterated, sizes that are none", async () => {
    await expect(
      rowsOf(
        fromRows(() => 7 as unknown as RowChunk[], { dIn: 2, rows: 1 }),
        0,
        1,
      ),
    ).rejects.toThrow("the rows are not iterable");
    expect(() => fromRows([], { dIn: 0, rows: 1 })).toThrow(
      "fromRows: dIn must be a whole number of at least 1, but is 0",
    );
    expect(() => fromRows([], { dIn: 2, rows: 1.5 })).toThrow("rows must be a whole number");
  });

  it("rows that end early, and rows that fail, say so", async () => {
    const short = rowsOf(
      fromRows(() => chunks([4], 7), { dIn: 2, rows: 9 }),
      0,
      9,
    );
    await expect(short).rejects.toThrow(
      "fromRows: the rows end after 7, but 9 were announced; give it the number of rows that there are",
    );
    await expect(short).rejects.toBeInstanceOf(SaettaError);
    const failing = fromRows(
      function* () {
        yield new Float32Array(2);
        throw new Error("the model is gone");
      },
      { dIn: 2, rows: 9 },
    );
    await expect(rowsOf(failing, 0, 9)).rejects.toThrow("the model is gone");
  });
});

describe("a signal", () => {
  it("ends the wait for a chunk that does not come, and the chunk is not lost", async () => {
    let give: (() => void) | undefined;
    async function* slow(): AsyncGenerator<Float32Array> {
      yield Float32Array.of(0, 0);
      await new Promise<void>((resolve) => {
        give = resolve;
      });
      yield Float32Array.of(1, 1);
    }
    const source = fromRows(slow(), { dIn: 2, rows: 2 });
    const stopping = new AbortController();
    const reading = rowsOf(source, 0, 2, stopping.signal);
    setTimeout(() => stopping.abort(), 5);
    await expect(reading).rejects.toMatchObject({ name: "AbortError" });
    give?.();
    expect(await rowsOf(source, 1, 1)).toEqual([1]);
  });

  it("and timers are let in while rows come without a pause", async () => {
    function* busy(): Generator<Float32Array> {
      for (let i = 0; ; i++) yield Float32Array.of(i, i);
    }
    const stopping = AbortSignal.timeout(20);
    await expect(rowsOf(fromRows(busy, { dIn: 2, rows: 50_000_000 }), 49_999_999, 1, stopping)).rejects.toMatchObject({
      name: "TimeoutError",
    });
  });
});

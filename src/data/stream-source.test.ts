import { describe, expect, it } from "vitest";
import { END, type FrameParts, frameBytes, headerBytes } from "../../test/support/frames.ts";
import { float32Of } from "../util/bytes.ts";
import { MixingBuffer } from "./mixing.ts";
import { openRowStream, type StreamOptions } from "./stream-source.ts";

const CONTEXT = 8;
const OPTIONS: StreamOptions = { holdout: 0, excludeTokens: "start", seed: 1 };

/** Row i is [i]; its token is its position in the context. */
async function* rows(count: number, frame: number, header: object = {}): AsyncGenerator<Uint8Array> {
  yield headerBytes({ width: 1, dtype: "f32", tokens: true, context: CONTEXT, start_token: 0, ...header });
  for (let first = 0; first < count; first += frame) {
    const m = Math.min(frame, count - first);
    const parts: FrameParts = {
      values: Float32Array.from({ length: m }, (_, i) => first + i),
      tokens: Int32Array.from({ length: m }, (_, i) => (first + i) % CONTEXT),
    };
    yield frameBytes(m, parts);
  }
  yield END;
}

type Opened = Awaited<ReturnType<typeof openRowStream>>;

async function read(source: Opened, first: number, count: number): Promise<number[]> {
  const bytes = new Uint8Array(4 * count);
  await source.read(first, count, bytes);
  return Array.from(float32Of(bytes));
}

async function all(source: Opened, at = 1): Promise<number[]> {
  const found: number[] = [];
  const end = source.heldOut!.first;
  for (let first = 0; first < end; first += at) found.push(...(await read(source, first, Math.min(at, end - first))));
  return found;
}

const sorted = (values: readonly number[]) => values.toSorted((a, b) => a - b);

describe("rows of a stream", () => {
  it.each([1, 13, 64])("are each read once, in reads of %i, without start tokens", async (at) => {
    const source = await openRowStream(rows(1600, 16), "rows", { ...OPTIONS, tokens: 1400, buffer: 100 });
    const found = await all(source, at);
    const there = Array.from({ length: 1600 }, (_, i) => i).filter((row) => row % CONTEXT !== 0);
    expect(sorted(found)).toEqual(there);
    expect(found).not.toEqual(there);
    // The same rows in the same order, however they are read.
    const again = await openRowStream(rows(1600, 32), "rows", { ...OPTIONS, tokens: 1400, buffer: 100 });
    expect(await all(again, 7)).toEqual(found);
  });

  it("keep their order without shuffling", async () => {
    const source = await openRowStream(rows(400, 16), "rows", { ...OPTIONS, tokens: 350, buffer: 30, shuffle: false });
    expect(await all(source, 10)).toEqual(
      Array.from({ length: 400 }, (_, i) => i).filter((row) => row % CONTEXT !== 0),
    );
  });

  it("have whole contexts of the first ones set aside, and the header says how many there are", async () => {
    const source = await openRowStream(rows(4000, 80, { rows: 4000 }), "rows", {
      ...OPTIONS,
      excludeTokens: "none",
      holdout: 0.1,
      buffer: 1000,
    });
    const { first, count } = source.heldOut!;
    expect(first + count).toBe(4000);
    expect(count).toBeGreaterThan(200);
    expect(count).toBeLessThanOrEqual(400);
    const held = await read(source, first, count);
    const trained = await all(source, 100);
    expect(sorted([...held, ...trained])).toEqual(Array.from({ length: 4000 }, (_, i) => i));
    expect(new Set(held.map((row) => Math.floor(row / CONTEXT))).size).toBe(count / CONTEXT);
    // Still there at the end.
    expect(await read(source, first, count)).toEqual(held);
  });

  it("are no more than those that are trained on", async () => {
    let sent = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for await (const bytes of rows(16 * 1000, 16)) {
        yield bytes;
        sent++;
      }
    }
    const source = await openRowStream(endless(), "rows", {
      ...OPTIONS,
      excludeTokens: "none",
      tokens: 160,
      buffer: 50,
    });
    expect(await all(source, 7)).toHaveLength(160);
    expect(sent).toBe(10); // the header and 10 frames, the last of which is not done with
    await source.close();
  });

  it("may end early, and say after how many", async () => {
    const source = await openRowStream(rows(160, 16), "rows", { ...OPTIONS, tokens: 1000, buffer: 50 });
    expect(await read(source, 0, 100)).toHaveLength(100);
    await expect(read(source, 100, 100)).rejects.toMatchObject({ name: "StreamEnded", rows: 40 });
  });

  it("tell what broke them, after the rows before", async () => {
    const failures: string[] = [];
    async function* broken(): AsyncGenerator<Uint8Array> {
      let frames = 0;
      for await (const bytes of rows(160, 16)) {
        if (frames++ === 6) return;
        yield bytes;
      }
    }
    const source = await openRowStream(broken(), "rows", {
      ...OPTIONS,
      tokens: 1000,
      buffer: 10,
      onFailure: ({ message }) => failures.push(message),
    });
    await expect(read(source, 0, 100)).rejects.toMatchObject({ name: "StreamEnded", rows: 70 });
    expect(failures).toEqual([expect.stringContaining("cut off after byte")]);
  });

  it("leave out padding, and positions from the first row that is none", async () => {
    async function* padded(): AsyncGenerator<Uint8Array> {
      yield headerBytes({ width: 1, dtype: "f32", mask: true, context: 4 });
      const mask = Uint8Array.of(0, 1, 1, 1, 1, 1, 1, 0);
      yield frameBytes(8, { values: Float32Array.from({ length: 8 }, (_, i) => i), mask });
      yield END;
    }
    const options = { ...OPTIONS, tokens: 4, buffer: 2, shuffle: false, excludePositions: [0] };
    expect(await all(await openRowStream(padded(), "rows", options))).toEqual([2, 3, 5, 6]);
  });

  it.each([
    [{}, {}, "nothing says how many rows to train on; give --tokens"],
    [{ context: null }, { tokens: 9, excludePositions: [0] }, "the rows are in no contexts"],
    [{ tokens: false }, { tokens: 9, excludeTokens: [3] }, "the rows have no tokens"],
  ])("with the header %j and the options %j are refused", async (header, options, message) => {
    await expect(openRowStream(rows(16, 16, header), "rows", { ...OPTIONS, ...options })).rejects.toThrow(message);
  });
});

describe("a mixing buffer", () => {
  it("moves every row away from its neighbours, evenly", () => {
    const [capacity, count] = [1000, 50_000];
    const buffer = new MixingBuffer(capacity, 4, 3);
    const out = new Float32Array(count);
    const bytes = new Uint8Array(out.buffer);
    const row = (value: number) => new Uint8Array(Float32Array.of(value).buffer);
    let left = 0;
    for (let i = 0; i < count; i++) {
      if (buffer.size === capacity) buffer.take(bytes, 4 * left++);
      buffer.add(row(i), 0);
    }
    while (buffer.size > 0) buffer.take(bytes, 4 * left++);
    expect(sorted([...out])).toEqual(Array.from({ length: count }, (_, i) => i));
    // A row waits as many rows as the buffer holds, on average.
    const waits = Array.from(out.subarray(0, 40_000), (value, place) => place + capacity - value);
    const mean = waits.reduce((sum, wait) => sum + wait, 0) / waits.length;
    expect(Math.abs(mean / capacity - 1)).toBeLessThan(0.1);
    // Of ten rows in a row, two of the same hundred are as rare as chance has it.
    let near = 0;
    for (let i = 0; i + 1 < 40_000; i++) if (Math.abs(out[i]! - out[i + 1]!) < 10) near++;
    expect(near / 40_000).toBeLessThan(0.02);
  });
});

import { describe, expect, it } from "vitest";
import { type MemoryOptions, memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { batches, ringRows, START } from "./batches.ts";
import { chooseRows, leavingOut } from "./choose.ts";
import { rowsOf } from "./chunks.ts";
import { rowsToFloat32 } from "./convert.ts";
import { orderOf } from "./epochs.ts";
import { pairSources, splitPairs } from "./pair.ts";
import { bytesPerRow, rowWidth, type Source } from "./source.ts";
import { strideSample } from "./statistics.ts";

/** Rows whose elements are first, first + 1, ... */
const counted = (rows: number, width: number, first: number) =>
  Float32Array.from({ length: rows * width }, (_, i) => first + i);

async function readRows(source: Source, first: number, count: number): Promise<number[]> {
  const raw = new Uint8Array(count * bytesPerRow(source));
  await source.read(first, count, raw);
  return [...(source.dtype === "f64" ? float64Of(raw) : rowsToFloat32(raw, source.dtype, count * rowWidth(source)))];
}

describe("pairs of inputs and targets", () => {
  it("are rows of x followed by rows of y, whatever is read", async () => {
    const pair = await pairSources(memorySource(counted(4, 2, 0), 2), memorySource(counted(4, 3, 100), 3));
    expect(pair).toMatchObject({ dIn: 2, dOut: 3, rows: 4, dtype: "f32", sequence: undefined });
    expect(rowWidth(pair)).toBe(5);
    expect(bytesPerRow(pair)).toBe(20);
    expect(await readRows(pair, 0, 4)).toEqual([
      ...[0, 1, 100, 101, 102],
      ...[2, 3, 103, 104, 105],
      ...[4, 5, 106, 107, 108],
      ...[6, 7, 109, 110, 111],
    ]);
    expect(await readRows(pair, 2, 1)).toEqual([4, 5, 106, 107, 108]);
    expect(await readRows(pair, 4, 0)).toEqual([]);
    await expect(pair.read(3, 2, new Uint8Array(40))).rejects.toThrow(RangeError);
    await expect(pair.read(0, 2, new Uint8Array(39))).rejects.toThrow(RangeError);
  });

  it.each([
    ["f16", "f16", "f16"],
    ["f16", "f32", "f32"],
    ["f32", "f16", "f32"],
    ["f64", "f16", "f64"],
    ["f32", "f64", "f64"],
  ] as const)("of %s and %s are %s, with every value as it was", async (a, b, wider) => {
    const x = Float32Array.of(1, -2.5, 0.099975586, 2 ** -24);
    const y = b === "f16" ? Float32Array.of(3, -65504) : Float32Array.of(0.1, 1e30);
    const pair = await pairSources(memorySource(x, 2, { dtype: a }), memorySource(y, 1, { dtype: b }));
    expect(pair.dtype).toBe(wider);
    expect(await readRows(pair, 0, 2)).toEqual([x[0], x[1], y[0], x[2], x[3], y[1]]);
  });

  it("of f16 and bf16 are f32, since neither has the values of the other", async () => {
    const y: Source = { ...memorySource(Float32Array.of(1.5), 1, { dtype: "f16" }), dtype: "bf16" };
    const pair = await pairSources(memorySource(Float32Array.of(0.099975586), 1, { dtype: "f16" }), y);
    expect(pair.dtype).toBe("f32");
    const bits = 0x3e00; // 1.5 as f16; as bf16:
    const asBf16 = new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
    expect(await readRows(pair, 0, 1)).toEqual([Math.fround(0.099975586), asBf16]);
  });

  it("have the sequences, tokens and origin of x, or of y where only that has them", async () => {
    const bare = () => memorySource(counted(4, 2, 0), 2);
    const full = memorySource(counted(4, 2, 9), 2, {
      sequence: 2,
      tokens: [7, 8, 7, 9],
      origin: { model: "m", tensor: "mlp_out", startToken: 7 },
      grain: 2,
    });
    const one = await pairSources(bare(), full);
    expect(one).toMatchObject({
      sequence: 2,
      grain: 2,
      origin: { model: "m", targetTensor: "mlp_out", startToken: 7 },
    });
    expect(one.origin.tensor).toBeUndefined();
    expect([...(await one.tokens!(1, 2))]).toEqual([8, 7]);
    const two = await pairSources({ ...full, origin: { ...full.origin, tensor: "mlp_in" } }, bare());
    expect(two).toMatchObject({ sequence: 2, origin: { tensor: "mlp_in", startToken: 7 } });
    expect(two.origin.targetTensor).toBeUndefined();
    expect(two.locate(3)).toBe("memory.h5, row 3 with its target, memory.h5, row 3");
  });

  it("mask what either masks", async () => {
    const masked = (mask: readonly number[]): Source => ({
      ...memorySource(counted(4, 1, mask[0]! * 9), 1),
      mask: async (first, count) => Uint8Array.from(mask.slice(first, first + count)),
    });
    const plain = memorySource(counted(4, 1, 50), 1);
    const rows = async (source: Source) => source.mask && [...(await source.mask(0, 4))];
    expect(await rows(await pairSources(masked([1, 1, 0, 1]), masked([0, 1, 1, 1])))).toEqual([0, 1, 0, 1]);
    expect(await rows(await pairSources(plain, masked([0, 1, 1, 1])))).toEqual([0, 1, 1, 1]);
    expect(await rows(await pairSources(masked([1, 1, 0, 1]), plain))).toEqual([1, 1, 0, 1]);
    expect(await rows(await pairSources(plain, memorySource(counted(4, 1, 0), 1)))).toBeUndefined();
  });

  it("close both sources", async () => {
    const [x, y] = [memorySource(counted(2, 1, 0), 1), memorySource(counted(2, 1, 5), 1)];
    await (await pairSources(x, y)).close();
    expect([x.closed, y.closed]).toEqual([true, true]);
  });

  it("come apart again", async () => {
    const pair = await pairSources(memorySource(counted(3, 2, 0), 2), memorySource(counted(3, 1, 10), 1));
    const raw = new Uint8Array(3 * bytesPerRow(pair));
    await pair.read(0, 3, raw);
    const { x, y } = splitPairs(raw, pair, 3);
    expect([...float32Of(x)]).toEqual([0, 1, 2, 3, 4, 5]);
    expect([...float32Of(y)]).toEqual([10, 11, 12]);
  });
});

describe("pairs are refused", () => {
  const named = (name: string, values: Float32Array, width: number, options: MemoryOptions = {}): Source => ({
    ...memorySource(values, width, options),
    paths: [name],
    locate: (row) => `${name}, row ${row}`,
  });

  it("of different numbers of rows", async () => {
    const pair = pairSources(named("x.h5", counted(1200, 1, 0), 1), named("y.h5", counted(1100, 1, 0), 1));
    await expect(pair).rejects.toThrow(
      /^y\.h5: does not go with x\.h5: 1,100 rows for 1,200 inputs; harvest both from the same text/,
    );
  });

  it("in sequences of different lengths", async () => {
    const y = named("y.h5", counted(8, 1, 5), 1, { sequence: 2 });
    await expect(pairSources(named("x.h5", counted(8, 1, 0), 1, { sequence: 4 }), y)).rejects.toThrow(
      /^y\.h5: does not go with x\.h5: sequences of 2 rows for inputs in sequences of 4/,
    );
  });

  it("of different tokens, naming the first", async () => {
    const x = named("x.h5", counted(4, 1, 0), 1, { tokens: [1, 2, 3, 4] });
    const y = named("y.h5", counted(4, 1, 7), 1, { tokens: [1, 2, 5, 6] });
    await expect(pairSources(x, y)).rejects.toThrow(
      /^y\.h5, row 2: has token 5, but x\.h5, row 2 has token 3; harvest/,
    );
  });

  it("where the targets are the inputs, also as a copy", async () => {
    const rows = () => named("x.h5", counted(4, 2, 0), 2);
    await expect(pairSources(rows(), { ...rows(), paths: ["copy.h5"] })).rejects.toThrow(
      /^copy\.h5: does not go with x\.h5: the targets are the inputs; leave out --target/,
    );
  });

  it("but not for another width, and a note says where models differ", async () => {
    const origin = (modelSha256: string) => ({ origin: { modelSha256 } });
    const pair = await pairSources(
      named("x.h5", counted(4, 2, 0), 2, origin("a")),
      named("y.h5", counted(4, 1, 0), 1, origin("b")),
    );
    expect(pair.notes).toEqual(["x.h5 and y.h5 were harvested from different models"]);
  });
});

describe("the pipeline on pairs", () => {
  /** Row r has r + 1 in x and -(r + 1) in y; `zero`: rows whose input is all zero. */
  async function numbered(rows: number, zero: readonly number[] = []): Promise<Source> {
    const x = numberedRows(rows, 2).map((value, at) => (zero.includes(Math.floor(at / 2)) ? 0 : value + 1));
    const y = numberedRows(rows, 3).map((value) => -(value + 1));
    return pairSources(memorySource(x, 2, { sequence: 4 }), memorySource(y, 3, { dtype: "f16" }));
  }

  async function trained(source: Source, epochs: number, shuffle = true): Promise<number[][]> {
    const choice = await chooseRows(source, {
      excludeTokens: "none",
      excludePositions: [0],
      holdout: 0.1,
      seed: 0,
      zeroRows: "skip",
    });
    const chosen = leavingOut(source, choice);
    const rowBytes = bytesPerRow(source);
    const options = { seed: 0, shuffle, batch: 8, blockBytes: rowBytes * 5, windowBytes: rowBytes * 40 };
    const order = orderOf({ rows: source.rows, rowBytes, grain: 1 }, choice.untrained, options);
    const ring = new Uint8Array(ringRows(order) * rowBytes);
    const seen: number[][] = [];
    const wanted = epochs * order.rowsPerEpoch;
    const places = {
      memory: (bytes: number) => new Uint8Array(bytes),
      bring: async (at: number, bytes: Uint8Array) => {
        ring.set(bytes, at * rowBytes);
        return [];
      },
    };
    const left = () => Math.min(8, wanted - seen.length);
    for await (const { rows } of batches({ source: chosen, order, ring: places, nonFinite: "stop" }, START, left)) {
      for (const row of rows) {
        const values = float32Of(ring.slice(row * rowBytes, (row + 1) * rowBytes));
        seen.push([...values]);
      }
    }
    return seen;
  }

  it("keeps each input with its target in every batch of every epoch", async () => {
    const seen = await trained(await numbered(200, [5, 6, 77]), 2);
    expect(seen.length).toBeGreaterThan(200);
    for (const [a, b, ...target] of seen) {
      expect(b).toBe(a);
      expect(target).toEqual([-a!, -a!, -a!]);
      expect([6, 7, 78]).not.toContain(a);
      expect((a! - 1) % 4).not.toBe(0);
    }
    expect(new Set(seen.map(([a]) => a)).size).toBe(seen.length / 2);
  });

  it("samples pairs for the statistics, and evaluates inputs and targets apart", async () => {
    const source = await numbered(40);
    const choice = await chooseRows(source, { excludeTokens: "none", holdout: 0.2, seed: 0 });
    const sample = await strideSample(source, { excluded: choice.untrained, wanted: 1000, seed: 0 });
    expect(sample.values.length).toBe(5 * sample.numbers.length);
    for (const [i, number] of sample.numbers.entries())
      expect([...sample.values.subarray(5 * i, 5 * i + 5)]).toEqual(
        [1, 1, -1, -1, -1].map((sign) => sign * (number + 1)),
      );
    for await (const { raw, target, rows, numbers } of rowsOf(source, [{ first: 3, count: 7 }], {
      nonFinite: "stop",
      chunkRows: 4,
    })) {
      expect([...float32Of(raw)]).toEqual([...numbers].flatMap((number) => [number + 1, number + 1]));
      expect([...float32Of(target!)]).toEqual([...numbers].flatMap((number) => Array(3).fill(-(number + 1))));
      expect(numbers.length).toBe(rows);
    }
  });

  it("leaves out or stops at a target that is not finite, and rows beyond --max-norm by their input alone", async () => {
    const x = numberedRows(64, 1).map((value) => 1 + value / 64);
    x[9] = 100;
    const y = numberedRows(64, 1).map((value) => 1000 * value);
    y[20] = Number.NaN;
    const source = await pairSources(memorySource(x, 1), memorySource(y, 1));
    const choice = await chooseRows(source, { excludeTokens: "none", holdout: 0, seed: 0, maxNorm: 10 });
    expect([choice.above, choice.untrained.has(9)]).toEqual([1, true]);
    const chunks = rowsOf(source, [{ first: 0, count: 64 }]);
    await expect(chunks.next()).rejects.toThrow(/row 20 with its target, memory\.h5, row 20: holds NaN or Inf/);
    const stopping = strideSample(source, { excluded: choice.untrained, wanted: 64, seed: 0 });
    await expect(stopping).rejects.toThrow(/row 20 with its target/);
    const passed: number[] = [];
    const sample = await strideSample(source, {
      excluded: choice.untrained,
      wanted: 64,
      seed: 0,
      nonFinite: "skip",
      passedOver: (row, { length }) => passed.push(row, length),
    });
    expect(sample.numbers.length).toBe(62);
    expect(passed).toEqual([9, 1, 20, 1]);
  });
});

describe("raw bytes of pairs", () => {
  it("are read where the buffer is not aligned", async () => {
    const pair = await pairSources(
      memorySource(counted(2, 1, 1), 1, { dtype: "f16" }),
      memorySource(counted(2, 1, 5), 1),
    );
    const room = new Uint8Array(17).subarray(1);
    await pair.read(0, 2, room);
    expect([...float32Of(room)]).toEqual([1, 5, 2, 6]);
    expect(bytesOf(Float32Array.of(1, 5, 2, 6))).toEqual(room);
  });
});

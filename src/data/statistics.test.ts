import { describe, expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { Rng } from "../util/rng.ts";
import { RowSet } from "./mask.ts";
import type { Source } from "./source.ts";
import {
  geometricMedian,
  meanVariance,
  normalizationFor,
  normalizeRows,
  type SampleOptions,
  strideSample,
} from "./statistics.ts";

const none = (rows: number) => new RowSet(rows);
const sampleOf = async (source: Source, options: SampleOptions) => (await strideSample(source, options)).values;

describe("the stride sample", () => {
  it("covers the whole file, each row at most once, by seed", async () => {
    const source = memorySource(numberedRows(10_000, 2), 2);
    for (const wanted of [20, 320, 1000, 4096, 9990]) {
      const sample = await sampleOf(source, { excluded: none(10_000), wanted, seed: 1 });
      const rows = Array.from(sample).filter((_, at) => at % 2 === 0);
      expect(new Set(rows).size).toBe(rows.length);
      expect(rows.length).toBeGreaterThan(wanted * 0.9);
      expect(rows.length).toBeLessThanOrEqual(wanted);
      const tenths = new Set(rows.map((row) => Math.floor(row / 1000)));
      expect(tenths.size).toBe(wanted === 20 ? 2 : 10);
    }
    const most = await sampleOf(memorySource(numberedRows(21), 1), { excluded: none(21), wanted: 20, seed: 1 });
    expect(new Set(most).size).toBe(20);
    const one = await sampleOf(source, { excluded: none(10_000), wanted: 320, seed: 1 });
    expect(await sampleOf(source, { excluded: none(10_000), wanted: 320, seed: 1 })).toEqual(one);
    expect(await sampleOf(source, { excluded: none(10_000), wanted: 320, seed: 2 })).not.toEqual(one);
  });

  it("is everything where there is no more", async () => {
    const excluded = new RowSet(5000);
    for (let row = 0; row < 5000; row += 3) excluded.add(row);
    const sample = await sampleOf(memorySource(numberedRows(5000), 1), { excluded, wanted: 4000, seed: 1 });
    expect(Array.from(sample)).toEqual(Array.from({ length: 5000 }, (_, row) => row).filter((row) => row % 3 !== 0));
  });

  it("leaves out what is excluded; what is not finite stops it, or is left out", async () => {
    const values = numberedRows(100);
    values[42] = Number.NaN;
    const source = memorySource(values, 1);
    await expect(sampleOf(source, { excluded: none(100), wanted: 100, seed: 1 })).rejects.toThrow(
      "memory.h5, row 42: holds NaN or Inf",
    );
    expect((await sampleOf(source, { excluded: none(100), wanted: 100, seed: 1, nonFinite: "skip" })).length).toBe(99);
    const excluded = new RowSet(100);
    excluded.add(42);
    expect(await sampleOf(source, { excluded, wanted: 100, seed: 1 })).not.toContain(42);
    const nothing = memorySource(new Float32Array(100).fill(Number.POSITIVE_INFINITY), 1);
    await expect(sampleOf(nothing, { excluded: none(100), wanted: 100, seed: 1, nonFinite: "skip" })).rejects.toThrow(
      "memory.h5: no row of the sample for the statistics is finite",
    );
  });
});

describe("the variance", () => {
  it("is the biased one, also far from 0, where a sum of squares has no digits left", () => {
    const rng = new Rng(1);
    const d = 3;
    const sample = Float32Array.from({ length: 3000 * d }, (_, at) => 1e4 * (1 + (at % d)) + rng.normal());
    let total = 0;
    for (let i = 0; i < d; i++) {
      const column = Array.from(sample).filter((_, at) => at % d === i);
      const mean = column.reduce((sum, value) => sum + value, 0) / column.length;
      total += column.reduce((sum, value) => sum + (value - mean) ** 2, 0) / column.length;
    }
    expect(meanVariance(sample, d)).toBeCloseTo(total / d, 9);
    expect(meanVariance(Float32Array.of(0, 10, 2, 10), 2)).toBe(0.5);
  });

  it("of rows that are all the same is an error", () => {
    expect(() => meanVariance(new Float32Array(30).fill(2.5), 3)).toThrow(
      "the variance of 10 sampled rows is 0: all rows are the same",
    );
  });
});

describe("the geometric median", () => {
  const medianOf = (rows: readonly (readonly number[])[]) =>
    geometricMedian(Float32Array.from(rows.flat()), rows[0]!.length);
  const expectPoint = (rows: readonly (readonly number[])[], point: readonly number[], digits = 3) => {
    const { median, converged } = medianOf(rows);
    expect(converged).toBe(true);
    for (const [i, value] of point.entries()) expect(median[i]).toBeCloseTo(value, digits);
  };

  it("of a line is the middle row, and not the mean", () => {
    expectPoint(
      [
        [0, 0],
        [1, 2],
        [100, 200],
      ],
      [1, 2],
    );
    expectPoint([[-1], [2], [3], [4], [1000]], [3]);
  });

  it("of a triangle is its Fermat point, from which the corners stand 120 degrees apart", () => {
    const rows = [
      [0, 0],
      [4, 0],
      [1, 3],
    ] as const;
    const { median } = medianOf(rows);
    const pull = [0, 0];
    for (const row of rows) {
      const length = Math.hypot(row[0] - median[0]!, row[1] - median[1]!);
      for (const i of [0, 1]) pull[i]! += (row[i]! - median[i]!) / length;
    }
    expect(Math.hypot(...pull)).toBeLessThan(1e-4);
    expectPoint(
      [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ],
      [0, 0],
    );
  });

  it("is not held by a row that lies on the mean, exactly or nearly", () => {
    // The middle of the line is 1; the mean, where the iteration starts, is the row 3.
    const line = [[0], [0.5], [1], [3], [10.5]];
    expectPoint(line, [1]);
    for (const scale of [1e-6, 1, 1e6]) {
      const nudged = line.map(([x]) => [x! * scale, (x === 3 ? 1e-9 : 0) * scale]);
      const { median, converged } = medianOf(nudged);
      expect(converged).toBe(true);
      expect(median[0]! / scale).toBeCloseTo(1, 4);
    }
  });

  it("of rows of which most are one is that row; of one row the row", () => {
    expectPoint(
      [
        [5, 5],
        [5, 5],
        [5, 5],
        [0, 1],
        [9, 9],
      ],
      [5, 5],
    );
    expectPoint([[5, -2]], [5, -2]);
    expectPoint(
      [
        [5, -2],
        [5, -2],
      ],
      [5, -2],
    );
  });

  it("shrugs off outliers that carry the mean away", () => {
    const rng = new Rng(4);
    const rows = Array.from({ length: 500 }, (_, i) =>
      i % 10 === 0 ? [1e4, 1e4, 1e4] : [1 + rng.normal(), 2 + rng.normal(), rng.normal()],
    );
    const { median, converged } = medianOf(rows);
    expect(converged).toBe(true);
    expect(Math.hypot(median[0]! - 1, median[1]! - 2, median[2]!)).toBeLessThan(0.4);
  });
});

describe("the normalisation of a run", () => {
  it("scales rows to a mean norm of sqrt(d)", () => {
    const sample = Float32Array.of(3, 4, 0, 0, 0, 0, 10, 0);
    const scale = normalizationFor("scale", sample, 2);
    expect(scale).toEqual({ kind: "scale", factor: Math.sqrt(2) / (15 / 4) });
    normalizeRows(sample, 2, scale);
    const norms = [0, 2, 4, 6].map((at) => Math.hypot(sample[at]!, sample[at + 1]!));
    expect(norms.reduce((a, b) => a + b) / 4).toBeCloseTo(Math.sqrt(2), 6);
    expect(() => normalizationFor("scale", new Float32Array(4), 2)).toThrow(
      "all 2 sampled rows are 0, so they have no scale",
    );
  });

  it("has no number where each row is normalised by itself", () => {
    const sample = Float32Array.of(3, 4, 5, 0);
    expect(normalizationFor("unit", sample, 2)).toEqual({ kind: "unit", factor: 1 });
    normalizeRows(sample, 2, { kind: "unit", factor: 1 });
    expect([...sample]).toEqual([-1, 1, 1, -1].map((value) => Math.fround(value * Math.SQRT1_2)));
  });
});

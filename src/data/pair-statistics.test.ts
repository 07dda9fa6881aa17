import { describe, expect, it } from "vitest";
import { Rng } from "../util/rng.ts";
import { normalizePairs, pairNormalizationFor, splitSample } from "./pair-statistics.ts";

const WIDTHS = { dIn: 3, dOut: 2 };
const ROWS = 400;

/** Pairs whose x has scale 5 around 2, and whose y has scale 0.01 around -1. */
function drawn(): Float32Array {
  const rng = new Rng(5);
  return Float32Array.from({ length: ROWS * 5 }, (_, i) =>
    i % 5 < 3 ? 2 + 5 * rng.normal() : -1 + 0.01 * rng.normal(),
  );
}

const columns = (values: Float32Array, d: number): number[][] =>
  Array.from({ length: d }, (_, column) => [...values].filter((_, i) => i % d === column));
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const meanNorm = (values: Float32Array, d: number) =>
  mean(Array.from({ length: values.length / d }, (_, row) => Math.hypot(...values.subarray(row * d, (row + 1) * d))));

describe("the start of a transcoder", () => {
  it("brings inputs and targets each to their own scale", () => {
    const sample = drawn();
    const { x, y } = splitSample(sample, WIDTHS);
    const by = pairNormalizationFor("scale", sample, WIDTHS);
    expect(by.x).toEqual({ kind: "scale", factor: expect.closeTo(Math.sqrt(3) / meanNorm(x, 3), 6) });
    expect(by.y).toEqual({ kind: "scale", factor: expect.closeTo(Math.sqrt(2) / meanNorm(y, 2), 6) });
    const { meanX, meanY, varianceY } = normalizePairs(sample, WIDTHS, by);
    const after = splitSample(sample, WIDTHS);
    expect(meanNorm(after.x, 3)).toBeCloseTo(Math.sqrt(3), 5);
    expect(meanNorm(after.y, 2)).toBeCloseTo(Math.sqrt(2), 5);
    for (const [i, column] of columns(after.x, 3).entries()) expect(meanX[i]).toBeCloseTo(mean(column), 10);
    for (const [i, column] of columns(after.y, 2).entries()) expect(meanY[i]).toBeCloseTo(mean(column), 10);
    const variances = columns(after.y, 2).map((column) => mean(column.map((value) => (value - mean(column)) ** 2)));
    expect(varianceY).toBeCloseTo(mean(variances), 10);
    expect([meanX.length, meanY.length]).toEqual([3, 2]);
  });

  it("leaves rows as they are without a normalisation", () => {
    const sample = drawn();
    const by = pairNormalizationFor("none", sample, WIDTHS);
    expect(by).toEqual({ x: { kind: "none", factor: 1 }, y: { kind: "none", factor: 1 } });
    const { meanY } = normalizePairs(sample, WIDTHS, by);
    expect(sample).toEqual(drawn());
    expect(meanY[0]).toBeCloseTo(-1, 2);
  });

  it("is refused for normalisations by row, and for targets that say nothing", () => {
    for (const kind of ["unit", "layer_norm"] as const)
      expect(() => pairNormalizationFor(kind, drawn(), WIDTHS)).toThrow(
        `--normalize ${kind} and --target exclude each other; give --normalize scale or none`,
      );
    const still = drawn().map((value, i) => (i % 5 < 3 ? value : 0));
    expect(() => pairNormalizationFor("scale", still, WIDTHS)).toThrow("all 400 sampled targets are 0");
    const by = pairNormalizationFor("none", still, WIDTHS);
    expect(() => normalizePairs(still, WIDTHS, by)).toThrow(
      "the variance of 400 sampled targets is 0: all targets are",
    );
  });
});

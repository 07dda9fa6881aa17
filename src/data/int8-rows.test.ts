import { describe, expect, it } from "vitest";
import { decodeInt8, encodeInt8 } from "./int8-rows.ts";

function stored(values: readonly number[], width: number): number[] {
  const rows = values.length / width;
  const [into, scales, out] = [new Int8Array(values.length), new Float32Array(rows), new Float32Array(values.length)];
  encodeInt8(Float32Array.from(values), width, into, scales);
  decodeInt8(into, width, scales, out);
  return [...out];
}

describe("rows as int8", () => {
  it("are within half a step of their largest number, each row by its own", () => {
    const values = [127, -3, 0.4, 0.6, 1270, -1270, 4, 6];
    expect(stored(values, 4)).toEqual([127, -3, 0, 1, 1270, -1270, 0, 10]);
    const small = stored([1e-3, -5e-4, 2e-6, 0], 4);
    for (const [i, value] of [1e-3, -5e-4, 2e-6, 0].entries()) expect(Math.abs(small[i]! - value)).toBeLessThan(4e-6);
  });

  it("of zeros are zeros, and the smallest numbers stay in range", () => {
    expect(stored([0, 0, 1, -1], 2)).toEqual([0, 0, 1, -1].map((value) => Math.fround(value)));
    expect(stored([2e-43, -2e-43], 2).every((value) => Number.isFinite(value))).toBe(true);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])("with %d are NaN as a whole", (bad) => {
    expect(stored([1, bad, 2, 1, 2, 3], 3)).toEqual([NaN, NaN, NaN, expect.any(Number), expect.any(Number), 3]);
  });
});

import { expect, it } from "vitest";
import { smooth } from "./smooth.ts";

const at = Array.from({ length: 200 }, (_, i) => i + (i > 100 ? 50 : 0)); // with a hole in the middle
const values = at.map((x, i) => (i % 17 === 0 ? null : Math.sin(x) + x / 100));

it("is the mean of all values, weighted by how near they are", () => {
  const smoothed = smooth(at, values, 7);
  for (const i of [1, 50, 99, 101, 150, 199]) {
    let sum = 0;
    let weight = 0;
    values.forEach((value, j) => {
      if (value === null) return;
      const near = Math.exp(-Math.abs(at[i]! - at[j]!) / 7);
      sum += near * value;
      weight += near;
    });
    if (values[i] === null) expect(smoothed[i]).toBeNull();
    else expect(smoothed[i]).toBeCloseTo(sum / weight, 9);
  }
});

it("keeps 0 where nothing near is anything else", () => {
  const steps = Array.from({ length: 1000 }, (_, i) => i);
  const dead = steps.map((step) => (step < 300 ? 40 : step === 700 ? null : 0));
  const smoothed = smooth(steps, dead, 10);
  expect(smoothed.slice(370, 700).every((value) => value === 0)).toBe(true);
  expect(smoothed[700]).toBeNull();
  expect(smoothed.at(-1)).toBe(0);
  // Near a value that is not 0, the mean is none.
  expect(smoothed[310]).toBeGreaterThan(1);
  expect(smoothed[290]).toBeLessThan(40);
  // A spike of any size leaves the rest of the curve as it is.
  const spike = steps.map((step) => (step === 0 ? 1e30 : 1e-3));
  expect(smooth(steps, spike, 10).at(-1)).toBeCloseTo(1e-3, 6);
});

it("leaves gaps, constants and straight middles as they are, and everything when it is off", () => {
  expect(smooth(at, values, 0)).toBe(values);
  expect(smooth(at, values, 7).map((value) => value === null)).toEqual(values.map((value) => value === null));
  for (const value of smooth([1, 2, 5, 9], [4, 4, null, 4], 2)) if (value !== null) expect(value).toBeCloseTo(4, 12);
  const line = Array.from({ length: 101 }, (_, i) => i);
  expect(smooth(line, line, 5)[50]).toBeCloseTo(50, 9); // not late
});

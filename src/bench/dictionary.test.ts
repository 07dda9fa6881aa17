import { describe, expect, it } from "vitest";
import { bytesOf } from "../util/bytes.ts";
import { type DictionaryOptions, syntheticDictionary } from "./dictionary.ts";

const OPTIONS: DictionaryOptions = {
  directions: 12,
  width: 40,
  active: 3,
  amplitude: [0.5, 1.5],
  noise: 0,
  together: 0,
  rows: 20_000,
  seed: 4,
};

async function read(options: DictionaryOptions, first: number, count: number): Promise<Float32Array> {
  const values = new Float32Array(count * options.width);
  await syntheticDictionary(options).read(first, count, bytesOf(values));
  return values;
}

/**
 * The vectors [directions, width] whose products with a row without noise are its amplitudes: rows
 * of the pseudo-inverse, by Gauss and Jordan.
 */
function dual(options: DictionaryOptions): Float64Array[] {
  const { truth } = syntheticDictionary(options);
  const { directions: n, width: d } = options;
  const unit = Array.from({ length: n }, (_, i) => truth.subarray(i * d, (i + 1) * d));
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const lines = unit.map((a) => Float64Array.from([...unit.map((b) => dot(a, b)), ...a]));
  for (let i = 0; i < n; i++) {
    lines[i] = lines[i].map((value) => value / lines[i][i]);
    for (let j = 0; j < n; j++) if (j !== i) lines[j] = lines[j].map((value, c) => value - lines[j][i] * lines[i][c]);
  }
  return lines.map((line) => line.subarray(n));
}

/** How often each direction is on, and how often partners are on together, in the first rows. */
async function firings(options: DictionaryOptions, rows: number) {
  const values = await read(options, 0, rows);
  const often = new Float64Array(options.directions);
  let pairs = 0;
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  const vectors = dual(options);
  for (let row = 0; row < rows; row++) {
    const x = values.subarray(row * options.width, (row + 1) * options.width);
    const on = vectors.map((vector) => vector.reduce((sum, value, c) => sum + value * x[c], 0));
    for (const [i, strength] of on.entries()) {
      if (Math.abs(strength) < 1e-4) continue;
      least = Math.min(least, strength);
      most = Math.max(most, strength);
      often[i]++;
      if (i % 2 === 1 && Math.abs(on[i - 1]) > 1e-4) pairs++;
    }
  }
  // Amplitudes fill their range.
  expect(Math.abs(least - options.amplitude[0])).toBeLessThan(0.01);
  expect(Math.abs(most - options.amplitude[1])).toBeLessThan(0.01);
  return { often, pairs };
}

describe("a synthetic dictionary", () => {
  it("has directions of norm 1 that differ", () => {
    const { truth } = syntheticDictionary(OPTIONS);
    for (let at = 0; at < truth.length; at += OPTIONS.width) {
      expect(Math.hypot(...truth.subarray(at, at + OPTIONS.width))).toBeCloseTo(1, 6);
    }
    expect(syntheticDictionary({ ...OPTIONS, seed: 5 }).truth).not.toEqual(truth);
  });

  it("makes each row from its number alone, in any order and at any place of memory", async () => {
    const options = { ...OPTIONS, width: 7, noise: 0.1 };
    const whole = await read(options, 0, 100);
    expect(await read(options, 37, 5)).toEqual(whole.slice(37 * 7, 42 * 7));
    const odd = new Uint8Array(5 * 28 + 3).subarray(3);
    await syntheticDictionary(options).read(37, 5, odd);
    expect([...odd]).toEqual([...bytesOf(whole.slice(37 * 7, 42 * 7))]);
    expect(await read({ ...options, seed: 5 }, 37, 5)).not.toEqual(whole.slice(37 * 7, 42 * 7));
    await expect(read(options, OPTIONS.rows - 1, 2)).rejects.toThrow(RangeError);
  });

  it("turns on exactly as many directions as asked for, all equally often", async () => {
    const rows = 4000;
    const { often, pairs } = await firings(OPTIONS, rows);
    expect(often.reduce((a, b) => a + b, 0)).toBe(3 * rows);
    // 5 standard deviations of a binomial
    for (const count of often) expect(Math.abs(count - rows / 4)).toBeLessThan(5 * Math.sqrt(rows * 0.25 * 0.75));
    const expected = rows * 6 * ((3 * 2) / (12 * 11));
    expect(Math.abs(pairs - expected)).toBeLessThan(5 * Math.sqrt(expected));
  });

  it("turns on partners together as often as asked for", async () => {
    const rows = 1000;
    const always = await firings({ ...OPTIONS, active: 4, together: 1 }, rows);
    expect(always.pairs).toBe(2 * rows);
    for (const count of always.often) expect(Math.abs(count - rows / 3)).toBeLessThan(5 * Math.sqrt(rows / 4));
    const half = await firings({ ...OPTIONS, active: 2, together: 0.5 }, rows);
    // The partner follows with 1/2; else it is the second draw with 1/11.
    const share = 0.5 + 0.5 / 11;
    expect(Math.abs(half.pairs - rows * share)).toBeLessThan(5 * Math.sqrt(rows * share * (1 - share)));
  });

  it("adds noise of the given deviation", async () => {
    const noisy = await read({ ...OPTIONS, noise: 0.2 }, 0, 2000);
    const clean = await read(OPTIONS, 0, 2000);
    let sum = 0;
    let squares = 0;
    for (const [i, value] of noisy.entries()) {
      sum += value - clean[i];
      squares += (value - clean[i]) ** 2;
    }
    expect(Math.abs(sum / noisy.length)).toBeLessThan(0.005);
    expect(Math.sqrt(squares / noisy.length)).toBeCloseTo(0.2, 2);
  });

  it.each([
    [{ active: 7 }, "more than half"],
    [{ amplitude: [2, 1] as const }, "no range"],
    [{ amplitude: [-1, 1] as const }, "no range"],
    [{ noise: Number.NaN }, "standard deviation"],
    [{ together: 1.5 }, "no probability"],
    [{ directions: 2 ** 24, width: 2 ** 10 }, "larger than"],
  ])("refuses %j", (changes, message) => {
    expect(() => syntheticDictionary({ ...OPTIONS, ...changes })).toThrow(message);
  });
});

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PLAIN_SUMS } from "../../metrics/loss-math.ts";
import type { LogSums } from "../log-sums.ts";
import { cpuPaths, openLogSums } from "./index.ts";

const PATHS = (await cpuPaths()).filter((path) => ["portable", "avx2", "avx512"].includes(path));
const RULED_OUT = Number.NEGATIVE_INFINITY;

/** Logits [rows, vocabulary] between -spread and spread. */
const drawn = (rows: number, vocabulary: number, spread: number, seed: number): Float32Array =>
  Float32Array.from({ length: rows * vocabulary }, (_, i) => spread * Math.sin((i + 1) * (seed + 1) * 12.9898));

describe.each(PATHS)("sums over logits, %s", (path) => {
  let sums: LogSums;
  beforeAll(async () => {
    sums = await openLogSums(2, { path });
  });
  afterAll(() => sums.close());

  /** What the kernel and JavaScript make of the divergence of q from p. */
  async function both(p: Float32Array, q: Float32Array, vocabulary: number, rows: Uint32Array) {
    return Promise.all(
      [sums, PLAIN_SUMS].map(async (each) => {
        const { logSums } = await each.of(p, vocabulary, rows);
        return { from: logSums, ...(await each.of(q, vocabulary, rows, { logits: p, logSums })) };
      }),
    );
  }

  it.each([
    1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 129, 1000,
  ])("of %i words are those of the formulas", async (v) => {
    const rows = Uint32Array.of(4, 0, 2);
    for (const spread of [0.1, 10, 400]) {
      const [kernel, plain] = await both(drawn(5, v, spread, 1), drawn(5, v, spread, 2), v, rows);
      for (let i = 0; i < rows.length; i++) {
        const close = (a: number, b: number) => expect(Math.abs(a - b)).toBeLessThanOrEqual(1e-12 * (1 + Math.abs(b)));
        close(kernel!.from[i]!, plain!.from[i]!);
        close(kernel!.logSums[i]!, plain!.logSums[i]!);
        close(kernel!.divergence[i]!, plain!.divergence[i]!);
      }
    }
  });

  it("are known numbers, and 0 to the bit where nothing differs", async () => {
    const p = Float32Array.of(Math.log(1), Math.log(2), Math.log(5), 1000, 1000, 1000);
    const q = Float32Array.of(Math.log(2), Math.log(2), Math.log(4), 1000, 1000, 1001);
    const [kernel] = await both(p, q, 3, Uint32Array.of(0, 1));
    expect(kernel!.from[0]).toBeCloseTo(Math.log(8), 6);
    expect(kernel!.from[1]).toBeCloseTo(1000 + Math.log(3), 12);
    expect(kernel!.divergence[0]).toBeCloseTo((1 / 8) * Math.log(1 / 2) + (5 / 8) * Math.log(5 / 4), 6);
    expect(kernel!.divergence[1]).toBeCloseTo(Math.log(2 + Math.E) - Math.log(3) - 1 / 3, 12);
    const many = drawn(2, 4099, 20, 3);
    const [same] = await both(many, many.slice(), 4099, Uint32Array.of(0, 1));
    expect([...same!.divergence]).toEqual([0, 0]);
  });

  it.each([
    3, 40,
  ])("of %i words know a word that is ruled out, an infinite divergence, and what is no number", async (v) => {
    const p = drawn(1, v, 3, 4);
    const at = [0, v - 1];
    const put = (value: number) => {
      const changed = p.slice();
      for (const i of at) changed[i] = value;
      return changed;
    };
    const [own, other] = [put(RULED_OUT), put(2)];
    const row = Uint32Array.of(0);
    const alike = (a: number, b: number) => (Number.isFinite(b) ? expect(a).toBeCloseTo(b, 12) : expect(a).toBe(b));
    for (const [a, b] of [
      [own, own],
      [own, other],
      [other, own],
      [own, put(Number.NaN)],
      [put(Number.NaN), own],
    ] as const) {
      const [kernel, plain] = await both(a, b, v, row);
      alike(kernel!.from[0]!, plain!.from[0]!);
      alike(kernel!.logSums[0]!, plain!.logSums[0]!);
      if (!Number.isNaN(plain!.from[0])) alike(kernel!.divergence[0]!, plain!.divergence[0]!);
    }
    const [infinite] = await both(other, own, v, row);
    expect(infinite!.divergence[0]).toBe(Number.POSITIVE_INFINITY);
    const [none] = await both(own, own, v, row);
    expect(none!.divergence[0]).toBe(0);
  });

  it("read no further than the logits", async () => {
    await expect(sums.of(new Float32Array(10), 5, Uint32Array.of(2))).rejects.toThrow("10 logits where 15 are needed");
    await expect(
      sums.of(new Float32Array(10), 5, Uint32Array.of(1), {
        logits: new Float32Array(5),
        logSums: new Float64Array(1),
      }),
    ).rejects.toThrow("logits where 10 are needed");
  });
});

import { describe, expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { Rng } from "../util/rng.ts";
import { preflight, preflightOf } from "./preflight.ts";
import { advice, preflightLine } from "./preflight-words.ts";

describe("preflight", () => {
  it("computes norms, mean over spread and duplicates", () => {
    // Rows (3, 4), (6, 8), (3, 4), (0, 0): norms 5, 10, 5, 0; mean (3, 4); distances 0, 5, 0, 5.
    const found = preflight(Float32Array.of(3, 4, 6, 8, 3, 4, 0, 0), 2);
    expect(found).toMatchObject({
      rows: 4,
      norms: { mean: 5, median: 5, p99: 10, max: 10 },
      duplicates: 0.25,
      outliers: [],
    });
    expect(found.meanToSpread).toBeCloseTo(5 / Math.sqrt(50 / 4), 12);
    const line =
      "norm 5.00 (median 5.00, 99 %: 10.0, largest 10.0), mean/spread 1.41, no outlier dimensions, duplicates 25 %";
    expect(preflightLine({ ...found, everything: true, nonFinite: 0, excluded: undefined })).toBe(
      `${line}, all finite`,
    );
    const excluded = { mean: 10, median: 13, p99: 13, max: 13 };
    expect(preflightLine({ ...found, everything: true, nonFinite: 2, excluded })).toBe(
      `${line}, 2 not finite, excluded tokens 2.60 x the norm`,
    );
  });

  it("lists dimensions beyond the stated bounds and no others", () => {
    const [rows, d] = [4000, 100];
    const rng = new Rng(3, 3);
    // Dimension 3: a variance of 36 beside 99 of 1 (share 0.27, an even one is 0.01); 4: 16 (0.11,
    // not 20 x); 8: a mean of 12 std; 9: of 8.
    const scale = (i: number) => (i === 3 ? 6 : i === 4 ? 4 : 1);
    const mean = (i: number) => (i === 8 ? 12 : i === 9 ? 8 : 0);
    const sample = Float32Array.from({ length: rows * d }, (_, at) => rng.normal() * scale(at % d) + mean(at % d));
    const { outliers } = preflight(sample, d);
    expect(outliers.map(({ dimension }) => dimension)).toEqual([3, 8]);
    expect(outliers[0]?.varianceShare).toBeCloseTo(36 / (36 + 16 + 98), 1);
    expect(outliers[1]?.meanOverStd).toBeCloseTo(12, 0);
  });

  it("does not take rows with one hash for the same", () => {
    const bits = new Int32Array(Float32Array.of(1, 2, 3, 0).buffer);
    // The second row's last element is what the hash, ((bits0 p) ^ bits1) p, needs to be the same.
    const times = (value: number) => Math.imul(value, 0x0100_0193);
    bits[3] = times(bits[0]!) ^ bits[1]! ^ times(bits[2]!);
    expect(preflight(new Float32Array(bits.buffer), 2).duplicates).toBe(0);
    expect(preflight(numberedRows(5000, 3), 3).duplicates).toBe(0);
    expect(preflight(new Float32Array(300), 3)).toMatchObject({ duplicates: 0.99, meanToSpread: 0, norms: { max: 0 } });
  });
});

describe("preflightOf", () => {
  it("looks at all rows of a small source, apart from start tokens and what is not finite", async () => {
    const values = numberedRows(100, 2).map((value) => value + 1);
    values[50] = Number.POSITIVE_INFINITY; // row 25
    const tokens = Array.from({ length: 100 }, (_, row) => row % 10);
    const source = memorySource(values, 2, { tokens, origin: { startToken: 0 } });
    const found = await preflightOf(source);
    expect(found).toMatchObject({
      sampled: 100,
      rows: 89,
      nonFinite: 1,
      firstNonFinite: "memory.h5, row 25",
      startTokens: { rows: 10 },
    });
    expect(found.norms.max).toBeCloseTo(Math.SQRT2 * 100, 4);
    expect(found.startTokens?.norms.max).toBeCloseTo(Math.SQRT2 * 91, 4);
    expect((await preflightOf(memorySource(values, 2, { tokens }))).startTokens).toBeUndefined();
  });

  it("samples runs over the whole of a large one, by seed", async () => {
    const values = numberedRows(10_000);
    const source = memorySource(values, 1);
    const found = await preflightOf(source, 5, 320);
    expect(found.sampled).toBe(320);
    expect(source.reads).toHaveLength(20);
    expect(source.reads.every(([, count]) => count === 16)).toBe(true);
    expect(source.reads[0]![0]).toBeLessThan(500);
    expect(source.reads.at(-1)![0]).toBeGreaterThanOrEqual(9500);
    const again = memorySource(values, 1);
    await preflightOf(again, 5, 320);
    expect(again.reads).toEqual(source.reads);
    await preflightOf(again, 6, 320);
    expect(again.reads.slice(20)).not.toEqual(source.reads);
  });

  it("advises only where something is off", async () => {
    const rng = new Rng(4, 4);
    const plain = memorySource(
      Float32Array.from({ length: 3200 }, () => rng.normal()),
      8,
    );
    expect(advice(await preflightOf(plain))).toEqual([]);
    const far = memorySource(
      Float32Array.from({ length: 3200 }, () => rng.normal() + 5),
      8,
    );
    expect(advice(await preflightOf(far))).toEqual([
      expect.stringMatching(/^the mean row is \d\.\d+ x as long as the spread/),
    ]);
    const zero = memorySource(new Float32Array(80), 8);
    expect(advice(await preflightOf(zero))[0]).toBe("all rows are 0: nothing can be learned from them");
  });
});

describe("what train and inspect say of rows", () => {
  const rng = new Rng(11);
  const normal = (rows: number, d: number) => Float32Array.from({ length: rows * d }, () => rng.normal());

  it("names positions that are sinks, wherever the sample is taken", async () => {
    const [T, d, contexts] = [128, 8, 400];
    const values = normal(contexts * T, d);
    for (let at = 0; at < values.length; at++) if (Math.floor(at / d) % T === 0) values[at]! *= 100;
    // A sample at equal distances of a multiple of T would see all of position 0 or none of it.
    const found = await preflightOf(memorySource(values, d, { sequence: T }), 0, 3200);
    expect(found.everything).toBe(false);
    expect(found.sinks.map(({ position }) => position)).toEqual([0]);
    expect(found.sinks[0]!.times).toBeGreaterThan(80);
    expect(advice(found)[0]).toMatch(/^position 0 has \d+ times the norm of other positions: --exclude-positions 0 /);
  });

  it("counts rows that carry the variance", async () => {
    const d = 8;
    const values = normal(6000, d);
    for (let at = 0; at < values.length; at++) if (Math.floor(at / d) % 100 === 50) values[at]! *= 150;
    const said = advice(await preflightOf(memorySource(values, d)));
    expect(said).toContain(
      "60 rows above 10 times the median carry 99 % of the variance; --max-norm 10 leaves them out",
    );
  });

  it("says that two groups of elements differ in scale", async () => {
    const d = 16;
    const values = normal(1000, d).map((value, at) => (at % d < 8 ? value : 100 * value));
    const found = await preflightOf(memorySource(values, d));
    expect(found.scales?.times).toBeCloseTo(100, -1);
    expect(advice(found)[0]).toMatch(
      /^elements differ in scale by (9|10)\d: elements 8 to 15 have that many times the spread of elements 0 to 7,/,
    );
    expect(advice(await preflightOf(memorySource(normal(1000, d), d)))).toEqual([]);
  });

  it("counts zero rows apart", async () => {
    const values = normal(400, 4);
    values.fill(0, 100 * 4);
    const found = await preflightOf(memorySource(values, 4));
    expect(found).toMatchObject({ sampled: 400, zeroRows: 300, rows: 100, duplicates: 0 });
    expect(advice(found)).toEqual([
      "300 of 400 rows are all zero, as rows that were never written are: they are left out of training and hold-out (--zero-rows keep would keep them)",
    ]);
  });
});

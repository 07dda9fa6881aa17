import { describe, expect, it } from "vitest";
import { memorySource } from "../../test/support/memory-source.ts";
import { Rng } from "../util/rng.ts";
import { type Choice, chooseRows, leavingOut, type RowOptions } from "./choose.ts";
import { rowsLeftOut, zeroRows } from "./left-out.ts";
import { strideSample } from "./statistics.ts";

const WIDTH = 4;
const options: RowOptions = { excludeTokens: "none", holdout: 0.1, seed: 0 };

/** Rows [rows, WIDTH] around norm 2; `change` sees each. */
function rowsOf(rows: number, change: (row: Float32Array, i: number) => void = () => undefined): Float32Array {
  const rng = new Rng(3);
  const values = Float32Array.from({ length: rows * WIDTH }, () => 1 + 0.2 * (rng.uniform() - 0.5));
  for (let i = 0; i < rows; i++) change(values.subarray(i * WIDTH, (i + 1) * WIDTH), i);
  return values;
}

const untrainedOf = ({ untrained }: Choice) =>
  Array.from({ length: untrained.rows }, (_, row) => row).filter((row) => untrained.has(row));

describe("zero rows", () => {
  it("are found in every dtype, -0 among them", () => {
    expect(zeroRows(new Uint8Array(Float32Array.of(0, -0, 0, 1e-45).buffer), { dtype: "f32", dIn: 2 }, 2)).toEqual([0]);
    expect(zeroRows(new Uint8Array(Float64Array.of(0, -0, 1e-320, 0).buffer), { dtype: "f64", dIn: 2 }, 2)).toEqual([
      0,
    ]);
    // The smallest subnormal is a value.
    expect(zeroRows(new Uint8Array(Uint16Array.of(0, 0x8000, 1, 0).buffer), { dtype: "f16", dIn: 2 }, 2)).toEqual([0]);
    expect(zeroRows(new Uint8Array(Uint16Array.of(0, 0x8000, 1, 0).buffer), { dtype: "bf16", dIn: 2 }, 2)).toEqual([0]);
    const shifted = new Uint8Array(9);
    expect(zeroRows(shifted.subarray(1), { dtype: "f32", dIn: 1 }, 2)).toEqual([0, 1]);
  });

  it("are left out of training and hold-out, and the hold-out has rows that are there", async () => {
    // Only the first tenth was written: of 20 blocks of 64 rows that are held out together, two.
    const source = memorySource(
      rowsOf(1280, (row, i) => i >= 128 && row.fill(0)),
      WIDTH,
    );
    for (const seed of [0, 1, 2, 3, 4]) {
      const choice = await chooseRows(source, { ...options, seed, zeroRows: "skip" });
      expect(choice.zeros).toBe(1152);
      expect(choice.holdout).toEqual([{ first: choice.holdout[0]!.first, count: 64 }]);
      expect(choice.untrained.size).toBe(1280 - 64);
      expect(choice.onRead).toBeUndefined();
    }
    expect((await chooseRows(source, { ...options, zeroRows: "keep" })).zeros).toBe(0);
  });

  it("are left out as holes too, one row or a context", async () => {
    const gone = [5, 64, 65, 66, 67, 300];
    const source = memorySource(
      rowsOf(640, (row, i) => gone.includes(i) && row.fill(0)),
      WIDTH,
      { sequence: 4 },
    );
    const choice = await chooseRows(source, { ...options, holdout: 0, zeroRows: "skip" });
    expect(untrainedOf(choice)).toEqual(gone);
  });
});

describe("the largest norm", () => {
  const source = memorySource(
    rowsOf(4000, (row, i) => {
      if (i % 1000 === 500) for (let at = 0; at < WIDTH; at++) row[at]! *= 150;
    }),
    WIDTH,
  );

  it("leaves out rows beyond it, and is what --max-norm makes of the median", async () => {
    const choice = await chooseRows(source, { ...options, maxNorm: 10 });
    expect(choice.above).toBe(4);
    expect(choice.normLimit).toBeCloseTo(20, 0);
    expect([500, 1500, 2500, 3500].every((row) => choice.untrained.has(row))).toBe(true);
    const again = await chooseRows(source, { ...options, maxNorm: 10, normLimit: choice.normLimit });
    expect(untrainedOf(again)).toEqual(untrainedOf(choice));
    expect(again.normLimit).toBe(choice.normLimit);
    // The norm that was found before decides, whatever the median is now.
    expect((await chooseRows(source, { ...options, maxNorm: 10, normLimit: 1000 })).above).toBe(0);
    const only = await chooseRows(source, { ...options, maxNorm: 10, only: "holdout" });
    expect(only.holdout).toEqual(choice.holdout);
  });

  it("does not decide on rows that are not finite", () => {
    const raw = new Uint8Array(Float32Array.of(1, Number.POSITIVE_INFINITY, Number.NaN, 3).buffer);
    expect(rowsLeftOut({ zeros: true, most: 2 }, raw, { dtype: "f32", dIn: 1 }, 4)).toEqual([3]);
  });

  it("is looked for when rows are read, where they are read once", async () => {
    const once = { ...source, stream: "once" as const };
    const choice = await chooseRows(once, { ...options, holdout: 0, maxNorm: 10 });
    expect(choice.above).toBe(0);
    const { numbers } = await strideSample(leavingOut(once, choice), {
      excluded: choice.untrained,
      wanted: 4000,
      seed: 0,
    });
    expect(numbers.length).toBe(3996);
    expect([...numbers]).not.toContain(500);
  });
});

describe("positions", () => {
  it("are left out of every context, counted from its first row that is there", async () => {
    const mask = async (first: number, count: number) =>
      Uint8Array.from({ length: count }, (_, i) => (first + i < 2 || first + i === 19 ? 0 : 1));
    const source = memorySource(rowsOf(20), WIDTH, { sequence: 5 });
    const plain = await chooseRows(source, { ...options, holdout: 0, excludePositions: [0, 4] });
    expect(untrainedOf(plain)).toEqual([0, 4, 5, 9, 10, 14, 15, 19]);
    const masked = await chooseRows({ ...source, mask }, { ...options, holdout: 0, excludePositions: [0, 1] });
    expect(untrainedOf(masked)).toEqual([0, 1, 2, 3, 5, 6, 10, 11, 15, 16, 19]);
    expect(masked.excluded).toBe(8);
  });

  it("are refused where they are not known, or are not there", async () => {
    const flat = memorySource(rowsOf(20), WIDTH);
    await expect(chooseRows(flat, { ...options, excludePositions: [0] })).rejects.toThrow(
      /--exclude-positions.*not in contexts of one length.*\[sequences, positions, width\]/,
    );
    const contexts = memorySource(rowsOf(20), WIDTH, { sequence: 5 });
    await expect(chooseRows(contexts, { ...options, excludePositions: [0, 5] })).rejects.toThrow(
      "--exclude-positions: 5 is beyond the contexts of 5 rows; give positions from 0 to 4",
    );
  });
});

describe("tokens", () => {
  it("may be the start token and others", async () => {
    const tokens = [0, 2, 7, 0, 5, 2];
    const source = memorySource(rowsOf(6), WIDTH, { tokens, origin: { startToken: 0 } });
    const choice = await chooseRows(source, { ...options, holdout: 0, excludeTokens: ["start", 2] });
    expect(untrainedOf(choice)).toEqual([0, 1, 3, 5]);
  });
});

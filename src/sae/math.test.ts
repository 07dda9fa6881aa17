import { describe, expect, it } from "vitest";
import * as maths from "./math.ts";

const all = () => true;

function select(
  pre: readonly number[],
  k: number,
  isCandidate: (j: number) => boolean = all,
): [latent: number, value: number][] {
  const [latent, value] = [new Uint32Array(k), new Float64Array(k)];
  const on = maths.topK(Float64Array.from(pre), k, latent, value, isCandidate);
  return Array.from({ length: on }, (_, slot) => [latent[slot], value[slot]]);
}

describe("topK", () => {
  it("takes the highest, highest first", () => {
    expect(select([1, 5, 3, 4], 3)).toEqual([
      [1, 5],
      [3, 4],
      [2, 3],
    ]);
  });

  it("lets the lower latent win a tie, at the edge and inside", () => {
    expect(select([2, 7, 2, 2, 7], 3)).toEqual([
      [1, 7],
      [4, 7],
      [0, 2],
    ]);
    expect(select([1, 3, 1, 1], 2)).toEqual([
      [1, 3],
      [0, 1],
    ]);
  });

  it("leaves out what is not above 0, also NaN", () => {
    expect(select([0, -1, Number.NaN, 1e-300, -0], 4)).toEqual([[3, 1e-300]]);
  });

  it("masks what is no candidate, however large", () => {
    expect(select([Number.POSITIVE_INFINITY, 1, 2], 2, (j) => j > 0)).toEqual([
      [2, 2],
      [1, 1],
    ]);
    expect(select([1, 2], 2, () => false)).toEqual([]);
  });
});

describe("normalisation", () => {
  const normalized = (kind: maths.Normalization["kind"], row: readonly number[], factor = 1) => {
    const x = Float64Array.from(row);
    maths.normalizeRow(x, { kind, factor });
    return [...x];
  };

  it("scales, centres to norm 1, or to an unbiased spread of almost 1", () => {
    expect(normalized("none", [1, 2, 6])).toEqual([1, 2, 6]);
    expect(normalized("scale", [1, 2, 6], 0.5)).toEqual([0.5, 1, 3]);
    expect(normalized("unit", [1, 2, 6])).toEqual([-2, -1, 3].map((value) => value / Math.sqrt(14)));
    expect(normalized("layer_norm", [1, 2, 6])).toEqual([-2, -1, 3].map((value) => value / (Math.sqrt(7) + 1e-5)));
  });

  it("makes zeros of constant rows, whatever their mean does to the last digit", () => {
    for (const kind of ["unit", "layer_norm"] as const) {
      for (const row of [[0, 0, 0], [0.1, 0.1, 0.1], [1e150, 1e150, 1e150], [7]])
        expect(normalized(kind, row)).toEqual(row.map(() => 0));
      // The smallest difference of an element that f32 can hold is no rounding.
      expect(normalized(kind, [1, 1, 1 + 2 ** -23])[2]).toBeGreaterThan(0);
    }
  });

  it("keeps what is not finite visible", () => {
    for (const kind of ["unit", "layer_norm"] as const) {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 1e200])
        expect(normalized(kind, [1, bad, 2]).every(Number.isNaN)).toBe(true);
    }
  });

  it("can be undone", () => {
    for (const kind of ["scale", "unit", "layer_norm"] as const) {
      const by = { kind, factor: kind === "scale" ? 3 : 1 };
      for (const row of [
        [1, 2, 6],
        [5, 5, 5],
      ]) {
        const { mean, size } = maths.rowStatistics(Float64Array.from(row), by);
        normalized(kind, row, by.factor).forEach((value, i) => {
          expect(value * size + mean).toBeCloseTo(row[i], 14);
        });
      }
    }
  });
});

const sums: maths.Sums = {
  err2: 20,
  auxErr2: 6,
  x2: 100,
  centred2: 60,
  active: 12,
  dead: 1,
  errColumns: Float64Array.of(4, -4),
  centredColumns: Float64Array.of(2, 6),
  planeColumns: Float64Array.of(4, -4),
  prefixErr2: new Float64Array(0),
};

describe("losses", () => {
  it("are as defined", () => {
    const rows = 4;
    const found = maths.losses(sums, rows, 3, 1 / 32);
    expect(found.mse).toBe(20 / 8);
    expect(found.auxkLoss).toBe(6 / (20 - 32 / 4));
    expect(found.loss).toBe(3 * found.mse + found.auxkLoss / 32);
    expect(found.fvu).toBe(20 / (60 - 40 / 4));
    expect(found.normalizedMse).toBe(0.2);
    expect(found.l0).toBe(3);
    expect(maths.lossScales(sums, rows, 3, 1 / 32)).toEqual({ live: 6 / 8, dead: 2 / 32 / 12 });
  });

  it("the auxiliary part is 0 when nothing is dead, or when its target does not vary", () => {
    for (const off of [
      { ...sums, dead: 0 },
      { ...sums, errColumns: Float64Array.of(8, -4) },
      { ...sums, x2: 1.2e13 },
    ]) {
      expect(maths.losses(off, 4, 1, 1).auxkLoss).toBe(0);
      expect(maths.lossScales(off, 4, 1, 1).dead).toBe(0);
    }
    expect(maths.losses({ ...sums, x2: 1.1e13 }, 4, 1, 1).auxkLoss).toBe(0.5);
  });

  it("a NaN stays one: it is not turned into 0", () => {
    expect(maths.losses({ ...sums, auxErr2: Number.NaN }, 4, 1, 1).loss).toBeNaN();
    expect(maths.losses({ ...sums, err2: Number.NaN }, 4, 1, 1).auxkLoss).toBeNaN();
  });
});

describe("update", () => {
  it("projects out what is parallel to a decoder row", () => {
    const gradient = Float64Array.of(3, 5, 7, 9);
    maths.project(Float64Array.of(0.6, 0.8, 0, 1), gradient, 2);
    const dot = 0.6 * 3 + 0.8 * 5;
    expect([...gradient]).toEqual([3 - dot * 0.6, 5 - dot * 0.8, 7, 0]);
  });

  it("clips by c / max(norm, c)", () => {
    expect([maths.clipFactor(4, 1), maths.clipFactor(0.5, 1), maths.clipFactor(0, 1), maths.clipFactor(9, 0)]).toEqual([
      0.25, 1, 1, 1,
    ]);
  });

  it("Adam's first step has the size of the learning rate, and the next corrects its bias", () => {
    const [w, m, v] = [Float64Array.of(1), Float64Array.of(0), Float64Array.of(0)];
    const step = { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 0.5 };
    maths.adam({ ...step, t: 1 }, w, m, v, Float64Array.of(4), 0.5);
    expect(w[0]).toBeCloseTo(1 - (0.1 * 2) / (2 + 0.5), 14);
    maths.adam({ ...step, t: 2 }, w, m, v, Float64Array.of(0), 1);
    const root = Math.sqrt((0.999 * 0.004) / (1 - 0.999 ** 2));
    expect(w[0]).toBeCloseTo(1 - 0.08 - (0.1 * (0.18 / 0.19)) / (root + 0.5), 14);
  });

  it("gives a row of zeros a direction that depends on latent and step only, and no moments", () => {
    const draw = (t: number) => {
      const [rows, m, v] = [
        Float64Array.of(3, 4, 0, 0, 1e-13, 0),
        new Float64Array(6).fill(1),
        new Float64Array(6).fill(1),
      ];
      maths.unitRows(rows, m, v, 2, t);
      return { rows: [...rows], m: [...m], v: [...v] };
    };
    const { rows, m, v } = draw(5);
    expect(rows.slice(0, 2)).toEqual([0.6, 0.8]);
    expect(Math.hypot(...rows.slice(2, 4))).toBeCloseTo(1, 15);
    expect(Math.hypot(...rows.slice(4))).toBeCloseTo(1, 15);
    expect(rows.slice(2, 4)).not.toEqual(rows.slice(4));
    expect([m, v]).toEqual([
      [1, 1, 0, 0, 0, 0],
      [1, 1, 0, 0, 0, 0],
    ]);
    expect(draw(5).rows).toEqual(rows);
    expect(draw(6).rows.slice(2)).not.toEqual(rows.slice(2));
  });

  it("draws the numbers that other engines must draw", () => {
    // fmix32(fmix32(fmix32(latent ^ 0x9e3779b9) + t) + i) / 2^31 - 1, computed with Python's
    // integers.
    expect(maths.randomElement(0, 1, 0)).toBe(0.938419281039387);
    expect(maths.randomElement(32767, 4_294_967_295, 767)).toBe(0.8565387935377657);
  });

  it("averages, and ages", () => {
    const ema = Float64Array.of(1);
    maths.average(ema, Float64Array.of(3), 0.75);
    expect(ema[0]).toBe(1.5);
    expect([maths.nextAge(7, false, 5), maths.nextAge(7, true, 5), maths.nextAge(0xffff_fffe, false, 5)]).toEqual([
      12, 0, 0xffff_ffff,
    ]);
    expect([maths.isDead(10, 10), maths.isDead(11, 10)]).toEqual([false, true]);
  });
});

/**
 * Known faults of the reference in how a step changes the weights: rows 6, 10, 11, 18, 25, 26 and
 * 27 of the list.
 */

import { describe, expect } from "vitest";
import type { Engine, Hyper } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import {
  dot,
  drawRows,
  drawWeights,
  expectClose,
  expectWeights,
  fill,
  flat,
  HYPER_HERE,
  held,
  length,
  normOf,
  onEveryEngine,
  type Plain,
  plainUpdate,
  projected,
  SLOPE,
  slopes,
  Trainer,
  zeros,
} from "./support.ts";

const shape = { d: 5, n: 9, k: 3, auxk: 2 };
const w = drawWeights(shape, 1);
const x = drawRows(12, shape.d, 1);
const none = Array<boolean>(shape.n).fill(false);
const gradientAt = (weights: Plain, rows: number[][], hyper: Partial<Hyper> = {}) =>
  slopes(weights, rows, { shape, dead: none, ...HYPER_HERE, ...hyper });

/** The same number everywhere, other than 0, so that a moment that should have changed is seen. */
const m = fill(shape, Math.fround(0.01));
const v = fill(shape, Math.fround(0.002));

describe("row 6", () => {
  for (const dense of [true, false]) {
    onEveryEngine(
      `row 6: gradients start from zero every step, ${dense ? "kept" : "formed row by row"}`,
      async (engine) => {
        // Adam without memory: its first moment is the gradient of this step. Nothing moves, so
        // that every step has the same gradient.
        const trainer = Trainer.of(engine, { shape, w, dense, hyper: { lr: 0, beta1: 0 } });
        const first = gradientAt(w, x);
        const other = drawRows(12, shape.d, 2);
        await trainer.step(other);
        for (let again = 0; again < 2; again++) {
          const { gradient } = await trainer.step(x);
          if (dense) expectWeights(engine, gradient, first, "gradient", SLOPE);
          expectWeights(
            engine,
            await trainer.plain("m"),
            { ...first, decoder: projected(w.decoder, first.decoder) },
            "first moment",
            SLOPE,
          );
        }
      },
    );
  }

  onEveryEngine(
    "row 6: a latent that fired in the last batch and not in this one has a gradient of exactly 0",
    async (engine) => {
      const apart = { d: 2, n: 2, k: 1, auxk: 0 };
      const axes = [
        [1, 0],
        [0, 1],
      ];
      const trainer = Trainer.of(engine, {
        shape: apart,
        w: { encoder: axes, latentBias: [0, 0], decoder: axes, preBias: [0, 0] },
        hyper: { lr: 0 },
      });
      const before = await trainer.step([[2, 1.5]]);
      expect(before.live.latents).toEqual([[0]]);
      expect(flat(before.gradient.decoder.slice(0, 1))).not.toEqual([0, 0]);
      const { live, gradient } = await trainer.step([[1.5, 2]]);
      expect(live.latents).toEqual([[1]]);
      expect([gradient.encoder[0], gradient.decoder[0], gradient.latentBias[0]].flat().map(Math.abs)).toEqual([
        0, 0, 0, 0, 0,
      ]);
    },
  );
});

describe("row 10", () => {
  onEveryEngine("row 10: project, clip, step, normalise, in this order, over several steps", async (engine) => {
    const clip = 0.25;
    const trainer = Trainer.of(engine, { shape, w, m, v, adam: 6, hyper: { clip, lr: 0.05 } });
    let plain = { w, m, v };
    for (let t = 7; t < 10; t++) {
      const rows = drawRows(12, shape.d, t);
      const gradient = gradientAt(plain.w, rows);
      const afterProjection = normOf({ ...gradient, decoder: projected(plain.w.decoder, gradient.decoder) });
      expect(normOf(gradient), "the draw tells both norms apart").toBeGreaterThan(1.01 * afterProjection);
      expect(afterProjection).toBeGreaterThan(clip);
      const found = await trainer.step(rows);
      expectClose(engine, [found.norm], [afterProjection], "norm", SLOPE);
      plain = plainUpdate(plain.w, plain.m, plain.v, gradient, { ...trainer.hyper, rows: 12 }, t);
      expectWeights(engine, await trainer.plain("m"), plain.m, "first moment", SLOPE);
      expectWeights(engine, await trainer.plain("v"), plain.v, "second moment", SLOPE);
      expectWeights(engine, await trainer.plain(), plain.w, "weights", SLOPE);
    }
  });

  onEveryEngine("row 10: the forward pass of every step sees decoder rows of norm 1", async (engine) => {
    const trainer = Trainer.of(engine, { shape, w, hyper: { lr: 0.3 } });
    for (let t = 0; t < 4; t++) {
      await trainer.step(drawRows(12, shape.d, t));
      const { decoder } = await trainer.plain();
      expectClose(engine, decoder.map(length), Array<number>(shape.n).fill(1), "norms", [1e-14, 3e-7]);
    }
  });
});

describe("row 11", () => {
  const decay = 0.75;

  onEveryEngine(
    "row 11: the average takes the weights as they are after the step and its normalisation",
    async (engine) => {
      const ema = fill(shape, Math.fround(0.3));
      const trainer = Trainer.of(engine, { shape, w, ema, hyper: { emaDecay: decay, lr: 0.2 } });
      let average = ema;
      for (let t = 0; t < 3; t++) {
        await trainer.step(drawRows(12, shape.d, t));
        const after = await trainer.plain();
        const next = (list: readonly number[], weights: readonly number[]) =>
          list.map((value, i) => decay * value + (1 - decay) * weights[i]);
        average = {
          encoder: average.encoder.map((row, j) => next(row, after.encoder[j])),
          latentBias: next(average.latentBias, after.latentBias),
          decoder: average.decoder.map((row, j) => next(row, after.decoder[j])),
          preBias: next(average.preBias, after.preBias),
        };
        expectWeights(engine, await trainer.plain("ema"), average, "average", [1e-13, 1e-6]);
        expect((await trainer.counters()).ema).toBe(t + 1);
      }
    },
  );

  onEveryEngine(
    "row 11: a skipped step leaves the average, its count and everything else as they were",
    async (engine) => {
      const trainer = Trainer.of(engine, {
        shape,
        w,
        m,
        v,
        ema: fill(shape, Math.fround(0.3)),
        adam: 2,
        hyper: { emaDecay: decay },
      });
      const everything = async () => [
        await trainer.plain(),
        await trainer.plain("m"),
        await trainer.plain("v"),
        await trainer.plain("ema"),
        await trainer.ages(),
      ];
      await trainer.step(x);
      const before = await everything();
      const found = await trainer.step(x.map((row, b) => (b === 5 ? row.map(() => Number.NaN) : row)));
      expect(found.bad).not.toBe(0);
      expect(await everything()).toEqual(before);
      expect(await trainer.counters()).toEqual({ adam: 3, ema: 1, skipped: 1 });
    },
  );
});

describe("row 18", () => {
  const zeroed = (rows: readonly number[]): Plain => ({
    ...w,
    latentBias: held(w.latentBias.map((b, j) => (rows.includes(j) ? -100 : b))),
    decoder: w.decoder.map((row, j) => (rows.includes(j) ? row.map(() => 0) : row)),
  });
  const rowAfter = async (engine: Engine, rows: readonly number[], adam: number) => {
    const trainer = Trainer.of(engine, { shape, w: zeroed(rows), adam });
    const { bad } = await trainer.step(x);
    expect(bad).toBe(0);
    return {
      decoder: (await trainer.plain()).decoder,
      m: (await trainer.plain("m")).decoder,
      v: (await trainer.plain("v")).decoder,
    };
  };

  onEveryEngine(
    "row 18: a decoder row of zeros becomes a unit row with moments 0, drawn by latent and step",
    async (engine) => {
      const { decoder, m, v } = await rowAfter(engine, [2, 7], 4);
      for (const j of [2, 7]) {
        expect(Math.abs(length(decoder[j]) - 1)).toBeLessThan(1e-6);
        expect([...m[j], ...v[j]]).toEqual(Array(2 * shape.d).fill(0));
      }
      // Another latent, or another step, draws another direction; the same draws the same, on every
      // engine.
      expect(Math.abs(dot(decoder[2], decoder[7]))).toBeLessThan(0.999);
      const later = await rowAfter(engine, [2], 5);
      expect(Math.abs(dot(decoder[2], later.decoder[2]))).toBeLessThan(0.999);
      expect((await rowAfter(engine, [2, 7], 4)).decoder).toEqual(decoder);
      const reference = await rowAfter(createReferenceEngine(), [2, 7], 4);
      for (const j of [2, 7]) expectClose(engine, decoder[j], reference.decoder[j], "direction", [0, 1e-6]);
    },
  );

  onEveryEngine(
    "row 18: a row that shrank below any direction is drawn anew, and its old moments are forgotten",
    async (engine) => {
      const start = zeroed([2]);
      start.decoder[2] = start.decoder[2].map(() => Math.fround(1e-20));
      const trainer = Trainer.of(engine, { shape, w: start, v: { ...zeros(shape), decoder: v.decoder } });
      await trainer.step(x);
      const { decoder } = await trainer.plain();
      expect(Math.abs(length(decoder[2]) - 1)).toBeLessThan(1e-6);
      expect(new Set(decoder[2]).size, "not the old direction").toBe(shape.d);
      expect((await trainer.plain("v")).decoder[2]).toEqual(Array(shape.d).fill(0));
      expect((await trainer.plain("v")).decoder[3].every((value) => value > 0)).toBe(true);
    },
  );
});

describe("row 25", () => {
  onEveryEngine(
    "row 25: each decoder row loses its own component along itself, also when n = d hides a wrong order",
    async (engine) => {
      const square = { d: 4, n: 4, k: 2, auxk: 0 };
      const weights = drawWeights(square, 3);
      const rows = drawRows(10, 4, 3);
      const gradient = slopes(weights, rows, { shape: square, dead: none, ...HYPER_HERE });
      const trainer = Trainer.of(engine, { shape: square, w: weights, hyper: { beta1: 0 } });
      const found = await trainer.step(rows);
      expectWeights(engine, found.gradient, gradient, "unprojected gradient", SLOPE);
      const moments = await trainer.plain("m"); // beta1 = 0: what Adam was given
      const expected = gradient.decoder.map((g, j) => {
        const along = weights.decoder[j].reduce((sum, value, i) => sum + value * g[i], 0);
        return g.map((value, i) => value - along * weights.decoder[j][i]);
      });
      expectClose(engine, moments.decoder, expected, "projected gradient", SLOPE);
      const largest = Math.max(...flat(expected).map(Math.abs));
      for (const [j, row] of moments.decoder.entries()) {
        expect(Math.abs(dot(row, weights.decoder[j])) / largest).toBeLessThan(engine.real === "f64" ? 1e-6 : 1e-4);
      }
    },
  );
});

describe("row 26", () => {
  const given = async (engine: Engine, hyper: Partial<Hyper>) => {
    const trainer = Trainer.of(engine, { shape, w, hyper: { beta1: 0, ...hyper } });
    const { norm } = await trainer.step(x);
    return { norm, m: await trainer.plain("m") };
  };

  onEveryEngine(
    "row 26: the gradient is clipped to the norm c itself, not to c norm / (norm + 1e-6)",
    async (engine) => {
      // A norm near 1e-5: adding 1e-6 to it would leave a tenth less.
      const mseScale = 4e-6;
      const gradient = gradientAt(w, x);
      const norm = mseScale * normOf({ ...gradient, decoder: projected(w.decoder, gradient.decoder) });
      expect(norm).toBeGreaterThan(1e-6);
      expect(norm).toBeLessThan(5e-5);
      for (const part of [0.5, 0.999]) {
        const clipped = await given(engine, { mseScale, clip: part * norm });
        expectClose(
          engine,
          [normOf(clipped.m) / norm],
          [part],
          "norm after clipping, as a part of the norm before",
          SLOPE,
        );
      }
    },
  );

  onEveryEngine("row 26: a norm below c, and clip 0, leave every bit of the gradient", async (engine) => {
    const off = await given(engine, { clip: 0 });
    expect(off.norm).toBeGreaterThan(0);
    expect((await given(engine, { clip: off.norm * 1.001 })).m).toEqual(off.m);
    expect((await given(engine, { clip: 1e6 })).m).toEqual(off.m);
    expect((await given(engine, { clip: off.norm * 0.9 })).m).not.toEqual(off.m);
  });
});

describe("row 27", () => {
  for (const dense of [true, false]) {
    onEveryEngine(
      `row 27: an unused latent takes its Adam step, gradients ${dense ? "kept" : "formed row by row"}`,
      async (engine) => {
        const unused = [0, 4, 8];
        const start = { ...w, latentBias: w.latentBias.map((b, j) => (unused.includes(j) ? -100 : b)) };
        const trainer = Trainer.of(engine, { shape, w: start, m, v, adam: 2, dense });
        const { live } = await trainer.step(x);
        expect(live.latents.flat().filter((j) => unused.includes(j))).toEqual([]);
        const [after, afterM, afterV] = [await trainer.plain(), await trainer.plain("m"), await trainer.plain("v")];
        const { lr, beta1, beta2, eps } = trainer.hyper;
        const [nextM, nextV] = [beta1 * Math.fround(0.01), beta2 * Math.fround(0.002)];
        const move = (lr * nextM) / (1 - beta1 ** 3) / (Math.sqrt(nextV / (1 - beta2 ** 3)) + eps);
        const all = (value: number) => Array<number>(shape.d).fill(value);
        for (const j of unused) {
          for (const name of ["encoder", "decoder"] as const) {
            expectClose(engine, afterM[name][j], all(nextM), "first moment decays", [1e-12, 1e-6]);
            expectClose(engine, afterV[name][j], all(nextV), "second moment decays", [1e-12, 1e-6]);
          }
          expectClose(
            engine,
            [afterM.latentBias[j], afterV.latentBias[j]],
            [nextM, nextV],
            "moments of the bias",
            [1e-12, 1e-6],
          );
          expectClose(
            engine,
            after.encoder[j],
            start.encoder[j].map((value) => value - move),
            "weight moves",
            [1e-12, 1e-6],
          );
          expectClose(engine, [after.latentBias[j] + 100], [-move], "bias moves", [1e-10, 1e-2]);
          const moved = start.decoder[j].map((value) => value - move);
          expectClose(
            engine,
            after.decoder[j],
            moved.map((value) => value / length(moved)),
            "row moves and is renormalised",
            [1e-12, 1e-6],
          );
        }
      },
    );
  }
});

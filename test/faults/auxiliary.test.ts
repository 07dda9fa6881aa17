/**
 * Known faults of the reference in the loss and its gradient: rows 12, 13, 14 and 24 of the list.
 */

import { describe, expect } from "vitest";
import { type Engine, NONE } from "../../src/engine/engine.ts";
import {
  drawRows,
  drawWeights,
  expectClose,
  expectWeights,
  flat,
  HYPER_HERE,
  holdAt,
  mean,
  onEveryEngine,
  type Plain,
  plainForward,
  plainLosses,
  SLOPE,
  slopes,
  sumOf,
  Trainer,
  variationOf,
} from "./support.ts";

const shape = { d: 4, n: 10, k: 2, auxk: 3 };
const dead = Array.from({ length: shape.n }, (_, j) => j % 2 === 1);
const age = dead.map((is) => (is ? 101 : 100));
/**
 * A pre-bias, and rows off their pre-bias, that no formula without the bias or without the mean
 * would survive.
 */
const w: Plain = { ...drawWeights(shape, 21), preBias: [3, -2, 1.5, 4] };
const x = drawRows(14, shape.d, 21).map((row) => row.map((value, i) => Math.fround(value + [1.5, -0.5, 0.5, 3][i])));
const options = { shape, dead, ...HYPER_HERE };

describe("row 12", () => {
  onEveryEngine("row 12: the auxiliary reconstruction is W_dec z, without a bias", async (engine) => {
    const { tHat, target } = plainForward(w, x, shape, dead);
    const without = sumOf(tHat.map((row, b) => sumOf(row.map((value, i) => (value - target[b][i]) ** 2))));
    const { sums } = await Trainer.of(engine, { shape, w, age }).step(x);
    expectClose(engine, [sums.auxErr2], [without], "sum of the squares of t_hat - t");
  });

  onEveryEngine(
    "row 12: nothing of the auxiliary loss leaks into the pre-bias: with no dead latent on, it has no gradient",
    async (engine) => {
      // All dead latents are below 0, so t_hat = 0 whatever the weights are.
      const silent = { ...w, latentBias: w.latentBias.map((b, j) => (dead[j] ? -100 : b)) };
      const trainer = Trainer.of(engine, { shape, w: silent, age, hyper: { mseScale: 0 } });
      const { gradient, metrics, sums } = await trainer.step(x);
      expect(sums.dead).toBe(5);
      expect(metrics.auxk_loss).toBeGreaterThan(0);
      for (const part of Object.values(gradient))
        expect(flat(part).map(Math.abs)).toEqual(Array(flat(part).length).fill(0));
    },
  );

  onEveryEngine(
    "row 12: b_pre gets of the auxiliary loss what comes through the encoder, and no more",
    async (engine) => {
      const only = { ...options, mseScale: 0 };
      const { gradient } = await Trainer.of(engine, { shape, w, age, hyper: { mseScale: 0 } }).step(x);
      const expected = slopes(w, x, only);
      expect(Math.max(...expected.preBias.map(Math.abs))).toBeGreaterThan(1e-3);
      expectClose(engine, gradient.preBias, expected.preBias, "gradient of the pre-bias", SLOPE);
    },
  );
});

describe("row 13", () => {
  onEveryEngine("row 13: auxk_loss is centred on the mean of the batch", async (engine) => {
    const { target } = holdAt(w, x, options);
    const uncentred = sumOf(target.flat().map((value) => value ** 2));
    expect(uncentred, "the draw tells both normalisers apart").toBeGreaterThan(1.2 * variationOf(target));
    const { metrics } = await Trainer.of(engine, { shape, w, age }).step(x);
    expectClose(engine, [metrics.auxk_loss ?? Number.NaN], [plainLosses(w, x, options).auxkLoss], "auxk_loss");
  });

  onEveryEngine("row 13: target and denominator are held fixed in the gradient", async (engine) => {
    const { gradient } = await Trainer.of(engine, { shape, w, age }).step(x);
    expectWeights(engine, gradient, slopes(w, x, options), "gradient", SLOPE);
  });

  onEveryEngine("row 13: loss and gradient are 0 when nothing is dead", async (engine) => {
    const trainer = Trainer.of(engine, { shape, w, age: age.map(() => 100), hyper: { auxCoef: 1e6 } });
    const { metrics, gradient, bad } = await trainer.step(x);
    expect(bad).toBe(0);
    expect(metrics.auxk_loss).toBe(0);
    const nothing = { ...options, dead: dead.map(() => false) };
    expectClose(engine, [metrics.loss ?? Number.NaN], [plainLosses(w, x, nothing).mse], "loss");
    expectWeights(engine, gradient, slopes(w, x, { ...nothing, auxCoef: 0 }), "gradient", SLOPE);
  });

  /**
   * Two rows (1, 1) and (1 + delta, 1); latent 0 gives (0, 1) to both, b_pre (1, 0): t = (0, 0) and
   * (delta, 0). Latent 1 is dead and gives (0.5, 0).
   */
  const nearlyConstant = (delta: number) => ({
    start: {
      shape: { d: 2, n: 2, k: 1, auxk: 1 },
      w: {
        encoder: [
          [0, 0],
          [0, 0],
        ],
        latentBias: [1, 0.5],
        decoder: [
          [0, 1],
          [1, 0],
        ],
        preBias: [1, 0],
      },
      age: [0, 101],
    },
    rows: [
      [1, 1],
      [1 + delta, 1],
    ],
  });

  onEveryEngine(
    "row 13: loss and gradient are 0 when the denominator is at most 1e-12 mean(x^2), and not above it",
    async (engine) => {
      // sum x^2 is 4, sum (t - mean t)^2 is delta^2 / 2: the border is at delta = 2.83e-6, between
      // 2^-19 and 2^-18.
      for (const delta of [0, 2 ** -20, 2 ** -19]) {
        const { start, rows } = nearlyConstant(delta);
        const { metrics, gradient, sums, bad } = await Trainer.of(engine, { ...start, hyper: { mseScale: 0 } }).step(
          rows,
        );
        expect({ delta, bad, dead: sums.dead, auxk_loss: metrics.auxk_loss }).toEqual({
          delta,
          bad: 0,
          dead: 1,
          auxk_loss: 0,
        });
        expect(Object.values(gradient).flat(2).map(Math.abs)).toEqual(Array(12).fill(0));
      }
      const delta = 2 ** -18;
      const { start, rows } = nearlyConstant(delta);
      const { metrics, gradient } = await Trainer.of(engine, { ...start, hyper: { mseScale: 0 } }).step(rows);
      const expected = (0.5 ** 2 + (0.5 - delta) ** 2) / (delta ** 2 / 2);
      expectClose(engine, [metrics.auxk_loss ?? Number.NaN], [expected], "auxk_loss");
      expectClose(
        engine,
        [gradient.latentBias[1]],
        [(0.5 * 2 * (0.5 + 0.5 - delta)) / (delta ** 2 / 2)],
        "its gradient",
      );
    },
  );

  onEveryEngine("row 13: sums are taken in float64", async (engine) => {
    // 2049^2 / 2^20 needs 23 bits: each square is exact in float32, and sums of float32 lose its
    // last bits after a few.
    const rows = Array.from({ length: 3001 }, () => [2049 / 1024, -2049 / 1024]);
    const still = { encoder: [[0, 0]], latentBias: [-1], decoder: [[1, 0]], preBias: [0, 0] };
    const { sums } = await Trainer.of(engine, { shape: { d: 2, n: 1, k: 1, auxk: 0 }, w: still }).step(rows);
    expect({ err2: sums.err2, x2: sums.x2 }).toEqual({
      err2: (6002 * 2049 ** 2) / 2 ** 20,
      x2: (6002 * 2049 ** 2) / 2 ** 20,
    });
  });

  for (const logged of [true, false]) {
    const which = logged ? "logged" : "not logged";
    onEveryEngine(
      `row 13: what is not finite makes the step bad, and is not turned into 0, in a step that is ${which}`,
      async (engine) => {
        // Only the dead branch touches decoder row 1, which is never among the live.
        const { start } = nearlyConstant(0);
        const broken = { ...start.w, decoder: [start.w.decoder[0], [Number.NaN, 0]] };
        const trainer = Trainer.of(engine, { ...start, w: broken });
        const apart = [
          [1, 1],
          [3, 1],
        ];
        const { bad, metrics } = await trainer.step(apart, {}, logged);
        expect(bad).not.toBe(0);
        expect({ auxk_loss: metrics.auxk_loss, loss: metrics.loss }).toEqual({
          auxk_loss: Number.NaN,
          loss: Number.NaN,
        });
        expect(await trainer.counters()).toEqual({ adam: 0, ema: 0, skipped: 1 });
        expect((await trainer.plain()).preBias).toEqual(start.w.preBias);
      },
    );

    onEveryEngine(
      `row 13: a gradient beyond the engine's numbers makes a step bad that is ${which}`,
      async (engine) => {
        // Value and error are finite; their product is not, or its square is not, which Adam needs.
        const [product, square] = engine.real === "f32" ? [1e20, 1e7] : [1e200, 1e60];
        for (const beyond of [product, square]) await check(engine, beyond, logged);
      },
    );
  }

  async function check(engine: Engine, beyond: number, logged: boolean): Promise<void> {
    const start = { encoder: [[beyond, 0]], latentBias: [0], decoder: [[0.6, 0.8].map(Math.fround)], preBias: [0, 0] };
    const trainer = Trainer.of(engine, { shape: { d: 2, n: 1, k: 1, auxk: 0 }, w: start, dense: false });
    const before = await trainer.plain();
    const { bad } = await trainer.step([[1, 1]], { mseScale: beyond }, logged);
    expect(bad).not.toBe(0);
    expect(await trainer.plain()).toEqual(before);
  }
});

describe("row 14", () => {
  /** Pre-activations are these numbers on every row. */
  const fixed = (values: readonly number[], k: number, auxk: number) => ({
    shape: { d: 2, n: values.length, k, auxk },
    w: {
      encoder: values.map(() => [0, 0]),
      latentBias: values.slice(),
      decoder: values.map(() => [1, 0]),
      preBias: [0, 0],
    },
  });
  const rows = [
    [1, 2],
    [3, -1],
  ];

  onEveryEngine(
    "row 14: the auxiliary top-k is over the dead alone, however small they are beside the living",
    async (engine) => {
      const start = fixed([9, 0.125, 8, 0.5, 7, 0.25], 3, 2);
      const { dead, live } = await Trainer.of(engine, { ...start, age: [0, 101, 0, 101, 0, 101] }).step(rows);
      const slots = [
        { latent: 3, value: 0.5 },
        { latent: 5, value: 0.25 },
      ];
      expect(dead?.slots).toEqual([slots, slots]);
      expect(live.latents[0]).toEqual([0, 2, 4]);
    },
  );

  onEveryEngine("row 14: with fewer dead than auxk, no living latent fills the list", async (engine) => {
    const start = fixed([9, 0.125, 8, 0.5, 7], 2, 4);
    const { dead } = await Trainer.of(engine, { ...start, age: [0, 101, 0, 0, 0] }).step(rows);
    const slots = [{ latent: 1, value: 0.125 }, ...Array(3).fill({ latent: NONE, value: 0 })];
    expect(dead?.slots).toEqual([slots, slots]);
  });

  onEveryEngine(
    "row 14: relu comes after: dead latents that are not above 0 are off, and no living one takes their place",
    async (engine) => {
      const start = fixed([9, -0.5, 8, 0, 7, 0.25], 2, 3);
      const trainer = Trainer.of(engine, { ...start, age: [0, 101, 0, 101, 0, 101] });
      const { dead, gradient, sums } = await trainer.step(rows);
      const slots = [{ latent: 5, value: 0.25 }, ...Array(2).fill({ latent: NONE, value: 0 })];
      expect(dead?.slots).toEqual([slots, slots]);
      expect(sums.dead).toBe(3);
      expect([1, 3, 4].map((j) => [gradient.latentBias[j], ...gradient.decoder[j]].map(Math.abs))).toEqual(
        Array(3).fill([0, 0, 0]),
      );
    },
  );

  onEveryEngine("row 14: a huge living latent makes no NaN among the dead", async (engine) => {
    const start = fixed([3e30, 0.5], 1, 1);
    const { dead } = await Trainer.of(engine, { ...start, age: [0, 101] }).step(rows);
    expect(dead?.slots[0]).toEqual([{ latent: 1, value: 0.5 }]);
  });
});

describe("row 24", () => {
  onEveryEngine(
    "row 24: b_pre has both its paths: sum of the error, minus W_enc^T times the gradient of the pre-activations",
    async (engine) => {
      // One row, one latent that is on: z = w.(x - b) + c, x_hat = z u + b, loss = mean (x_hat -
      // x)^2.
      const start = {
        encoder: [[0.5, -0.25]],
        latentBias: [0.125],
        decoder: [[0.6, 0.8].map(Math.fround)],
        preBias: [0.25, -0.5],
      };
      const row = [1, 2];
      const z = 0.5 * (1 - 0.25) - 0.25 * (2 + 0.5) + 0.125 + 1;
      const u = start.decoder[0];
      const error = [z * u[0] + 0.25 - 1, z * u[1] - 0.5 - 2];
      const along = error[0] * u[0] + error[1] * u[1]; // d loss / d z, the mean being over two elements
      const on = { ...start, latentBias: [1.125] };
      const { gradient } = await Trainer.of(engine, { shape: { d: 2, n: 1, k: 1, auxk: 0 }, w: on }).step([row]);
      expectClose(
        engine,
        gradient.preBias,
        [error[0] - along * 0.5, error[1] + along * 0.25],
        "gradient of the pre-bias",
      );
    },
  );

  onEveryEngine("row 24: the same over a batch, with dead latents", async (engine) => {
    const { gradient } = await Trainer.of(engine, { shape, w, age }).step(x);
    const expected = slopes(w, x, options).preBias;
    const { xHat } = plainForward(w, x, shape, dead);
    const first = xHat[0].map((_, i) => 2 * mean(xHat.map((row, b) => row[i] - x[b][i])));
    expect(
      Math.max(...first.map((value, i) => Math.abs(value / shape.d - expected[i]))),
      "the second path is seen",
    ).toBeGreaterThan(1e-2);
    expectClose(engine, gradient.preBias, expected, "gradient of the pre-bias", SLOPE);
  });
});

/**
 * Known faults of the reference in what counts as firing and as dead: rows 15 and 16 of the list.
 */

import { describe, expect, it } from "vitest";
import { DEFAULTS, resolveConfig } from "../../src/config.ts";
import { allocStep, writeHyper } from "../../src/engine/allocate.ts";
import { hyperOf } from "../../src/train/plan.ts";
import { rescaleEncoder } from "../../src/train/state.ts";
import { readHeldOut, Validator } from "../../src/train/validate.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { dimsOf, selectTopk, shardOf } from "../topk.ts";
import { memorySource } from "./source.ts";
import { expectWeights, HYPER_HERE, onEveryEngine, SLOPE, slopes, Trainer } from "./support.ts";

/** Latent j is on where x[j] > 0, with exactly that value; decoder rows are the axes. */
function axes(n: number, age: readonly number[], hyper = {}, k = n, auxk = 0) {
  const row = (j: number) => Array.from({ length: n }, (_, i) => (i === j ? 1 : 0));
  const eye = Array.from({ length: n }, (_, j) => row(j));
  const nothing = Array<number>(n).fill(0);
  return {
    shape: { d: n, n, k, auxk },
    w: { encoder: eye, latentBias: nothing, decoder: eye, preBias: nothing },
    age,
    hyper: { lr: 0, ...hyper },
  };
}

describe("row 15", () => {
  onEveryEngine("row 15: a selected value above the threshold is a firing; one at it is none", async (engine) => {
    const threshold = 2 ** -10;
    const trainer = Trainer.of(engine, axes(4, [7, 7, 7, 7], { firedAbove: threshold }));
    const { fired, live } = await trainer.step([
      [threshold, threshold * (1 + 2 ** -20), -5, threshold / 2],
      [threshold, 0, 0, 0],
    ]);
    expect(live.latents).toEqual([[1, 0, 3], [0]]);
    expect(fired).toEqual([0, 1, 0, 0]);
    expect(await trainer.ages()).toEqual([9, 0, 9, 9]);
  });

  onEveryEngine("row 15: what is above the threshold and not selected did not fire", async (engine) => {
    const trainer = Trainer.of(engine, axes(3, [7, 7, 7], {}, 1));
    await trainer.step([[3, 2, 1]]);
    expect(await trainer.ages()).toEqual([0, 8, 8]);
  });

  it("row 15: the threshold is an option, 1e-3 as in the reference unless given", () => {
    const facts = { dIn: 8, rowsPerEpoch: 10_000 };
    expect(DEFAULTS.firedThreshold).toBe(1e-3);
    expect(hyperOf(resolveConfig({}, [], facts), 1).firedAbove).toBe(1e-3);
    expect(hyperOf(resolveConfig({ firedThreshold: 0.25 }, [], facts), 1).firedAbove).toBe(0.25);
  });

  onEveryEngine("row 15: encoding alone changes no age; only an update does", async (engine) => {
    const age = [7, 500, 0, 3];
    const trainer = Trainer.of(engine, axes(4, age, {}, 2, 2));
    const t = allocStep(engine, dimsOf(trainer.start.shape));
    const [raw, rows, x] = [engine.alloc("f32", [2, 4]), engine.alloc("u32", [2]), engine.alloc(engine.real, [2, 4])];
    writeHyper(engine, t, { ...HYPER_HERE, rows: 2 });
    engine.write(raw, bytesOf(Float32Array.of(1, 2, 3, 4, 4, 3, 2, 1)));
    engine.write(rows, bytesOf(Uint32Array.of(0, 1)));
    engine.load(raw, rows, x, t);
    const selections = selectTopk({ k: 2, auxk: 2 }, engine.codes(2, 2), engine.codes(2, 2));
    engine.encode(trainer.state.params, x, t, selections, trainer.state.age);
    expect(await trainer.ages()).toEqual(age);
  });

  onEveryEngine(
    "row 15: evaluation on the hold-out and the probes of the rescale change neither ages nor counts",
    async (engine) => {
      const trainer = Trainer.of(engine, axes(4, [7, 500, 0, 3], {}, 2, 2));
      const { state, hyper } = trainer;
      await trainer.step([[0, 9, 0, 0]]);
      const age = [8, 0, 1, 4];
      expect(await trainer.ages()).toEqual(age);
      const shard = shardOf(trainer.start.shape);
      const source = memorySource(Array.from({ length: 6 }, (_, row) => [row, 1, 2, 3]));
      const validator = new Validator(
        engine,
        shard,
        hyper,
        await readHeldOut(source, [{ first: 1, count: 4 }], "stop"),
      );
      expect(await validator.run(state.params)).toMatchObject({ holdout_mse: expect.any(Number) });
      expect(await rescaleEncoder(engine, state.params, shard, 1, hyper)).toBeGreaterThan(0);
      expect(await trainer.ages()).toEqual(age);
      expect(await trainer.counters()).toEqual({ adam: 1, ema: 0, skipped: 0 });
      // Nor do they stand in the way of what the next step finds.
      await trainer.step([[0, 9, 0, 0]]);
      expect(await trainer.ages()).toEqual([9, 0, 2, 5]);
    },
  );
});

describe("row 16", () => {
  onEveryEngine(
    "row 16: age is counted in rows of the batches, 0 after a step in which the latent fired",
    async (engine) => {
      const trainer = Trainer.of(engine, axes(3, [0, 0, 4]));
      const on = (...latents: number[]) => Array.from({ length: 3 }, (_, i) => (latents.includes(i) ? 1 : 0));
      await trainer.step([on(0), on(), on(0)]);
      expect(await trainer.ages()).toEqual([0, 3, 7]);
      await trainer.step([on(), on(), on(), on(1), on()]);
      expect(await trainer.ages()).toEqual([5, 0, 12]);
      await trainer.step([on()]);
      expect(await trainer.ages()).toEqual([6, 1, 13]);
    },
  );

  onEveryEngine(
    "row 16: dead is counted in tokens, as of the step's begin: above the threshold, and for the whole step",
    async (engine) => {
      const rows = [
        [1, 2, 3, 4],
        [1, 2, 3, 4],
        [1, 2, 3, 4],
      ];
      // Latent 0 is at the threshold, 1 above it; 2 would be above it once this step's rows are
      // counted. All of them fire in this step.
      const trainer = Trainer.of(engine, axes(4, [100, 101, 99, 0], { deadAfter: 100 }, 4, 4));
      const first = await trainer.step(rows);
      expect(first.dead?.latents).toEqual([[1], [1], [1]]);
      expect({ dead: first.metrics.dead, dead_fraction: first.metrics.dead_fraction }).toEqual({
        dead: 1,
        dead_fraction: 0.25,
      });
      expect(await trainer.ages()).toEqual([0, 0, 0, 0]);
      // It fired, so it is alive from the next step on.
      expect((await trainer.step(rows)).dead?.latents).toEqual([[], [], []]);
    },
  );

  onEveryEngine(
    "row 16: a latent becomes dead in the first step that begins with its age above the threshold",
    async (engine) => {
      const trainer = Trainer.of(engine, axes(2, [0, 0], { deadAfter: 6 }, 1, 1));
      const found: number[] = [];
      for (let step = 0; step < 4; step++) found.push((await trainer.step(Array(3).fill([2, 1]))).sums.dead);
      // Ages of latent 1 as the steps begin: 0, 3, 6, 9.
      expect(found).toEqual([0, 0, 0, 1]);
    },
  );

  onEveryEngine("row 16: a latent may be dead and live in the same step, and both gradients add", async (engine) => {
    const shape = { d: 2, n: 3, k: 2, auxk: 2 };
    const w = {
      encoder: [
        [1, 0.5],
        [0.25, 1],
        [-1, 0.5],
      ],
      latentBias: [0.5, 0.25, 0.125],
      decoder: [
        [0.6, 0.8],
        [1, 0],
        [0, 1],
      ].map((row) => row.map(Math.fround)),
      preBias: [0.25, -0.25],
    };
    const rows = [
      [1, 2],
      [2, 0.5],
      [0.5, 1.5],
    ];
    const dead = [true, true, false];
    const { live, dead: auxiliary, gradient } = await Trainer.of(engine, { shape, w, age: [101, 101, 0] }).step(rows);
    expect(live.latents.map((on) => on.toSorted())).toEqual(Array(3).fill([0, 1]));
    expect(auxiliary?.latents.map((on) => on.toSorted())).toEqual(Array(3).fill([0, 1]));
    const both = slopes(w, rows, { shape, dead, ...HYPER_HERE });
    const [liveOnly, deadOnly] = [
      { mseScale: 1, auxCoef: 0 },
      { mseScale: 0, auxCoef: 0.5 },
    ].map((o) => slopes(w, rows, { shape, dead, ...o }));
    for (const part of [liveOnly, deadOnly])
      expect(Math.min(...part.latentBias.slice(0, 2).map(Math.abs))).toBeGreaterThan(1e-3);
    for (const j of [0, 1]) expect(liveOnly.latentBias[j] + deadOnly.latentBias[j]).toBeCloseTo(both.latentBias[j], 8);
    expectWeights(engine, gradient, both, "gradient", SLOPE);
  });

  onEveryEngine("row 16: ages saturate at 2^32 - 1 instead of beginning again", async (engine) => {
    const top = 2 ** 32 - 1;
    const trainer = Trainer.of(engine, axes(4, [top, top - 1, top - 2, top - 3], { deadAfter: top - 1 }, 4, 4));
    const silent = [-1, -1, -1, -1];
    expect((await trainer.step([silent, silent])).sums.dead).toBe(1);
    expect(await trainer.ages()).toEqual([top, top, top, top - 1]);
    expect((await trainer.step([silent, [5, -1, -1, -1]])).sums.dead).toBe(3);
    expect(await trainer.ages()).toEqual([0, top, top, top]);
  });

  onEveryEngine("row 16: a skipped step neither advances nor resets ages, nor makes anything dead", async (engine) => {
    const trainer = Trainer.of(engine, axes(3, [99, 100, 5], { deadAfter: 100 }, 3, 2));
    const { bad, fired } = await trainer.step([
      [0, 0, 4],
      [Number.POSITIVE_INFINITY, 0, 0],
    ]);
    expect(bad).not.toBe(0);
    expect(fired[2], "the row before the bad one did select latent 2").toBe(1);
    expect(await trainer.ages()).toEqual([99, 100, 5]);
    expect((await trainer.step([[1, 1, 1]])).sums.dead).toBe(0);
  });

  it("row 16: the threshold comes from the config in tokens, whatever the batch", () => {
    const facts = { dIn: 8, rowsPerEpoch: 1_000_000 };
    for (const batch of [64, 4096])
      expect(hyperOf(resolveConfig({ deadTokens: 12_345, batch }, [], facts), 1).deadAfter).toBe(12_345);
    for (const preset of ["openai", "simple"] as const) {
      expect(hyperOf(resolveConfig({ preset }, [], facts), 1).deadAfter).toBe(10_000_000);
    }
  });

  onEveryEngine("row 16: ages and the number of the dead over a run, counted by hand", async (engine) => {
    const trainer = Trainer.of(engine, axes(3, [0, 0, 0], { deadAfter: 4 }, 1, 1));
    // Plain counting: the latent with the largest positive entry of some row fires.
    const batches = [
      [[3, 1, 0]],
      [
        [0, 2, 1],
        [1, 0, 0],
      ],
      [[0, 0, 0]],
      [
        [1, 0, 0],
        [2, 1, 0],
        [3, 2, 1],
      ],
    ];
    const age = [0, 0, 0];
    for (const rows of batches) {
      const dead = age.filter((value) => value > 4).length;
      expect((await trainer.step(rows)).sums.dead).toBe(dead);
      const firing = rows.map((row) => (Math.max(...row) > 1e-3 ? row.indexOf(Math.max(...row)) : -1));
      for (const j of age.keys()) age[j] = firing.includes(j) ? 0 : age[j] + rows.length;
      expect(await trainer.ages()).toEqual(age);
    }
  });
});

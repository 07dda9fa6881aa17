import { describe, expect, it } from "vitest";
import { type LoopValues, loopInput } from "../../test/support/loop-input.ts";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { dimsOf, newState, shardOf, type TopkSizes } from "../../test/topk.ts";
import { ringRows, START } from "../data/batches.ts";
import { RowSet } from "../data/mask.ts";
import { Order } from "../data/order.ts";
import { geometricMedian } from "../data/statistics.ts";
import { COUNTERS, type State } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { float64Of, uint32Of } from "../util/bytes.ts";
import { trainLoop } from "./loop.ts";
import type { StepMetrics } from "./report.ts";
import type { Progress } from "./start-state.ts";
import { startParams } from "./state.ts";

const D = 6;
const shape: TopkSizes = { d: D, n: 20, k: 3, auxk: 5 };
const values = learnableRows(900, D, 10);
const BATCH = 24;

interface Logged extends Partial<StepMetrics> {
  readonly step: number;
  readonly lr: number;
  readonly holdout_fvu?: number | null;
}

/** A run over many small windows; `from`: where another left off. */
async function start(
  options: Partial<LoopValues> & { broken?: number; poison?: number; values?: Float32Array } = {},
  from?: { state: State; progress: Progress },
) {
  const { broken, poison, values: own = values, ...input } = options;
  const engine = createReferenceEngine();
  const source = memorySource(own, D, broken === undefined ? {} : { broken });
  const order = new Order({ rows: 900, rowBytes: 24, grain: 1 }, new RowSet(900), {
    seed: 5,
    shuffle: true,
    batch: BATCH,
    blockBytes: 24 * 4,
    windowBytes: 24 * 100,
  });
  expect(order.windows).toBeGreaterThan(5);
  const state = newState(engine, shape, true);
  startParams(engine, state.params, dimsOf(shape), 1, geometricMedian(values, D).median);
  if (poison !== undefined) engine.write(state.params.latentBias, new Uint8Array(Float64Array.of(poison).buffer));
  if (from !== undefined) {
    const group = (to: State["params"], of: State["params"]) =>
      Promise.all(CORE_PARAMS.map(async (name) => engine.write(to[name], await engine.read(of[name]))));
    await Promise.all([
      group(state.params, from.state.params),
      group(state.m, from.state.m),
      group(state.v, from.state.v),
      group(state.ema!, from.state.ema!),
    ]);
    engine.write(state.age, await engine.read(from.state.age));
    engine.write(state.counters, await engine.read(from.state.counters));
  }
  const logged: Logged[] = [];
  const saved: number[] = [];
  const steps = 60;
  const run = trainLoop(
    loopInput({
      engine,
      shard: shardOf(shape),
      state,
      source,
      order,
      ring: engine.alloc("f32", [ringRows(order), D]),
      hyper: {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        clip: 0.5,
        emaDecay: 0.9,
        mseScale: 0.7,
        auxCoef: 1 / 32,
        deadAfter: 3 * BATCH,
        firedAbove: 1e-3,
      },
      schedule: { lr: 3e-3, warmup: 5, decay: 0.3, steps },
      batch: BATCH,
      budget: steps * BATCH,
      nonFinite: "stop",
      from: from?.progress ?? { step: 0, tokens: 0, position: START },
      logEvery: 1,
      saveEvery: 0,
      signal: new AbortController().signal,
      onLog: ({ step }, lr, metrics) => logged.push({ step, lr, ...metrics }),
      onSave: async ({ step }) => {
        saved.push(step);
        expect(logged.at(-1)?.step).toBe(step);
      },
      ...input,
    }),
  );
  const everything = async () => {
    const tensors = [
      ...[state.params, state.m, state.v, state.ema!].flatMap((group) => CORE_PARAMS.map((name) => group[name])),
      state.age,
      state.counters,
    ];
    return Promise.all(tensors.map((t) => engine.read(t)));
  };
  return { run, state, logged, saved, everything, engine };
}

const whole = await start();
const end = await whole.run;

describe("the loop", () => {
  it("learns, with latents that die and are revived on the way", () => {
    expect(end).toMatchObject({ step: 60, tokens: 60 * BATCH, position: { epoch: 1 } });
    expect(whole.logged.map(({ step }) => step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
    expect(whole.logged.at(-1)!.fvu!).toBeLessThan(0.7 * whole.logged[0]!.fvu!);
    expect(whole.logged.some(({ dead }) => dead! > 0)).toBe(true);
    expect(whole.logged.some(({ auxk_loss }) => auxk_loss! > 0)).toBe(true);
    expect(whole.logged.some(({ grad_norm }) => grad_norm! > 0.5)).toBe(true);
    expect(whole.logged[0]!.lr).toBeCloseTo(3e-3 / 5, 12);
    expect(whole.logged.every(({ l0 }) => l0! > 0 && l0! <= 3)).toBe(true);
  });

  it.each([
    1, 2, 17, 37, 38, 59,
  ])("stopped after step %i and gone on with, ends with the same bits and reports", async (stop) => {
    const stopping = new AbortController();
    const first = await start({ saveEvery: stop, onSave: async () => stopping.abort(), signal: stopping.signal });
    const progress = await first.run;
    expect(progress.step).toBe(stop);
    const second = await start({}, { state: first.state, progress });
    expect(await second.run).toEqual(end);
    expect(await second.everything()).toEqual(await whole.everything());
    expect([...first.logged, ...second.logged]).toEqual(whole.logged);
  });

  it("saves at its intervals, after everything of the step is logged, and not at the end", async () => {
    const { run, saved } = await start({ saveEvery: 12 });
    await run;
    expect(saved).toEqual([12, 24, 36, 48]);
  });

  it("logs and evaluates at its intervals, and always at the end", async () => {
    let evaluations = 0;
    const { run, logged } = await start({
      logEvery: 16,
      evalEvery: 25,
      evaluate: async () => ({ holdout_fvu: ++evaluations, holdout_mse: 0 }),
    });
    await run;
    expect(logged.map(({ step, holdout_fvu }) => [step, holdout_fvu])).toEqual([
      [16, undefined],
      [25, 1],
      [32, undefined],
      [48, undefined],
      [50, 2],
      [60, 3],
    ]);
  });

  it("trains the short last batch of the budget", async () => {
    const { run, logged } = await start({ budget: 59 * BATCH + 5 });
    expect((await run).tokens).toBe(59 * BATCH + 5);
    expect(logged.length).toBe(60);
  });

  it("lets timers and signals in while an engine computes at the call", async () => {
    const stopping = new AbortController();
    const { run } = await start({
      signal: stopping.signal,
      onLog: ({ step }) => {
        if (step === 1) setTimeout(() => stopping.abort(), 0);
        for (const end = performance.now() + 2; performance.now() < end; ); // by then the timer is due
      },
    });
    expect((await run).step).toBeLessThan(60);
  });

  it("stops at a step that is not finite, which changed nothing", async () => {
    const { run, state, engine } = await start({ poison: Number.NaN });
    await expect(run).rejects.toThrow(
      "step 1 is not finite, and changed nothing; lower --lr, set --clip 1, or look at the data",
    );
    expect(uint32Of(await engine.read(state.age)).every((age) => age === 0)).toBe(true);
  });

  it("with skip goes on, but not for ever", async () => {
    const { run, state, engine } = await start({
      poison: Number.NaN,
      nonFinite: "skip",
      schedule: { lr: 1, warmup: 0, decay: 0, steps: 1000 },
      budget: 1000 * BATCH,
    });
    await expect(run).rejects.toThrow("the last 100 steps were skipped: step 100 is not finite");
    const counters = float64Of(await engine.read(state.counters));
    expect(counters[COUNTERS.indexOf("adam")]).toBe(0);
    expect(counters[COUNTERS.indexOf("skipped")]).toBeGreaterThanOrEqual(100);
  });

  it("passes on what the source and the saving fail with", async () => {
    await expect((await start({ broken: 450 })).run).rejects.toThrow("the disk is gone");
    const full = await start({ saveEvery: 5, onSave: () => Promise.reject(new Error("the disk is full")) });
    await expect(full.run).rejects.toThrow("the disk is full");
  });

  it("passes on what the engine fails with, once", async () => {
    const loop = await start();
    loop.engine.read = () => Promise.reject(new Error("the device is gone"));
    await expect(loop.run).rejects.toThrow("the device is gone");
  });
});

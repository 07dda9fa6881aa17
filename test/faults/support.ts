/**
 * What the tests of the reference's known faults share: one training step on any engine with
 * everything that it wrote, and, to compare with, the loss and the update once more in plain
 * arrays. Nothing here calls the code under test for an expected value; gradients are slopes of the
 * loss.
 */

import { expect, it } from "vitest";
import {
  COUNTERS,
  type Engine,
  type Hyper,
  NONE,
  type Params,
  type State,
  SUMS,
  type Tensor,
} from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { CORE_PARAMS, type CoreParam } from "../../src/sae/params.ts";
import { readStepMetrics, type StepMetrics } from "../../src/train/report.ts";
import { readReals, writeReals } from "../../src/train/state.ts";
import type { TrainStep } from "../../src/train/step.ts";
import { bytesOf, float64Of, uint32Of } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { cpuEngine, whyNoCpu } from "../support/engines.ts";
import { newState, newStep, type TopkSizes } from "../topk.ts";

/** One test on each engine that runs here. */
export function onEveryEngine(name: string, body: (engine: Engine) => Promise<void>): void {
  const disposing = async (engine: Engine) => {
    try {
      await body(engine);
    } finally {
      await engine[Symbol.asyncDispose]();
    }
  };
  it(`${name} (reference)`, () => disposing(createReferenceEngine()));
  it(`${name} (cpu)`, async (context) => {
    const reason = whyNoCpu();
    if (reason !== undefined) context.skip(reason);
    await disposing(await cpuEngine());
  });
}

// ---- numbers ----

/** Weights in plain arrays: encoder [n][d], latentBias [n], decoder [n][d], preBias [d]. */
export interface Plain {
  encoder: number[][];
  latentBias: number[];
  decoder: number[][];
  preBias: number[];
}

export const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, i) => sum + value * b[i], 0);
export const length = (a: readonly number[]): number => Math.sqrt(dot(a, a));
export const unit = (a: readonly number[]): number[] => a.map((value) => value / length(a));
/** As float32 holds it, so that every engine starts from the same numbers. */
export const held = (a: readonly number[]): number[] => a.map(Math.fround);
export const sumOf = (a: readonly number[]): number => a.reduce((sum, value) => sum + value, 0);
export const mean = (a: readonly number[]): number => sumOf(a) / a.length;

export function drawWeights({ d, n }: TopkSizes, seed: number): Plain {
  const rng = new Rng(9, seed);
  const normal = (count: number, scale: number) => Array.from({ length: count }, () => scale * rng.normal());
  return {
    encoder: Array.from({ length: n }, () => held(normal(d, 0.7))),
    latentBias: held(normal(n, 0.3)),
    decoder: Array.from({ length: n }, () => held(unit(normal(d, 1)))),
    preBias: held(normal(d, 0.5)),
  };
}

export function drawRows(count: number, d: number, seed: number, scale = 1): number[][] {
  const rng = new Rng(10, seed);
  return Array.from({ length: count }, () => held(Array.from({ length: d }, () => scale * rng.normal())));
}

export function zeros({ d, n }: TopkSizes): Plain {
  return fill({ d, n }, 0);
}

export function fill({ d, n }: Pick<TopkSizes, "d" | "n">, value: number): Plain {
  const row = () => Array<number>(d).fill(value);
  return {
    encoder: Array.from({ length: n }, row),
    latentBias: Array<number>(n).fill(value),
    decoder: Array.from({ length: n }, row),
    preBias: row(),
  };
}

export const flat = (a: readonly number[] | readonly number[][]): number[] => (a as (number | number[])[]).flat();

/** Equal within what the engine's arithmetic allows, relative to the largest number. */
export function expectClose(
  engine: Engine,
  actual: readonly number[] | readonly number[][],
  expected: readonly number[] | readonly number[][],
  what: string,
  [f64, f32] = [1e-9, 2e-5],
): void {
  const [a, e] = [flat(actual), flat(expected)];
  expect(a.length, what).toBe(e.length);
  const largest = Math.max(1e-30, ...e.map(Math.abs));
  const worst = Math.max(
    ...a.map((value, i) => (Number.isNaN(value) ? Number.POSITIVE_INFINITY : Math.abs(value - e[i]) / largest)),
  );
  expect(worst, `${what}: ${a.join(" ")} instead of ${e.join(" ")}`).toBeLessThanOrEqual(
    engine.real === "f64" ? f64 : f32,
  );
}

/** For slopes, which are good to about 1e-8. */
export const SLOPE: [number, number] = [1e-6, 1e-4];

export function expectWeights(
  engine: Engine,
  actual: Plain,
  expected: Plain,
  what: string,
  tolerance?: [number, number],
): void {
  for (const name of CORE_PARAMS) expectClose(engine, actual[name], expected[name], `${what} of ${name}`, tolerance);
}

// ---- the loss, in plain arrays ----

export interface LossOptions {
  readonly shape: TopkSizes;
  readonly dead: readonly boolean[];
  readonly mseScale: number;
  readonly auxCoef: number;
}

export function plainForward(w: Plain, x: readonly number[][], { k, auxk }: TopkSizes, dead: readonly boolean[]) {
  const pre = x.map((row) =>
    w.encoder.map((weights, j) => w.latentBias[j] + sumOf(weights.map((e, i) => e * (row[i] - w.preBias[i])))),
  );
  const top = (values: readonly number[], count: number, may: (j: number) => boolean) =>
    [...values.keys()]
      .filter((j) => may(j) && values[j] > 0)
      .sort((a, b) => values[b] - values[a] || a - b)
      .slice(0, count);
  const live = pre.map((values) => top(values, k, () => true));
  const aux = pre.map((values) => top(values, auxk, (j) => dead[j]));
  const add = (on: readonly number[], b: number, i: number) => sumOf(on.map((j) => pre[b][j] * w.decoder[j][i]));
  const xHat = x.map((row, b) => row.map((_, i) => add(live[b], b, i) + w.preBias[i]));
  const target = x.map((row, b) => row.map((value, i) => value - xHat[b][i]));
  const tHat = x.map((row, b) => row.map((_, i) => add(aux[b], b, i)));
  return { pre, live, aux, xHat, target, tHat };
}

/** sum (t - mean over the batch of t)^2, the mean for each input. */
export function variationOf(rows: readonly number[][]): number {
  const means = rows[0].map((_, i) => mean(rows.map((row) => row[i])));
  return sumOf(rows.map((row) => sumOf(row.map((value, i) => (value - means[i]) ** 2))));
}

/** The auxiliary target and its normaliser, held where they are. */
export interface Hold {
  readonly target: readonly number[][];
  readonly variation: number;
}

export function holdAt(w: Plain, x: readonly number[][], o: LossOptions): Hold {
  const { target } = plainForward(w, x, o.shape, o.dead);
  return { target, variation: variationOf(target) };
}

export function plainLosses(w: Plain, x: readonly number[][], o: LossOptions, hold = holdAt(w, x, o)) {
  const { target, tHat } = plainForward(w, x, o.shape, o.dead);
  const mse = mean(target.flat().map((value) => value ** 2));
  const aux =
    sumOf(tHat.map((row, b) => sumOf(row.map((value, i) => (value - hold.target[b][i]) ** 2)))) / hold.variation;
  const auxkLoss = o.dead.includes(true) ? aux : 0;
  return { mse, auxkLoss, loss: o.mseScale * mse + o.auxCoef * auxkLoss };
}

/** The gradient of the loss by central differences. */
export function slopes(w: Plain, x: readonly number[][], o: LossOptions): Plain {
  const hold = holdAt(w, x, o);
  const at = structuredClone(w);
  const step = 1e-5;
  const slope = (list: number[]) =>
    list.map((was, i) => {
      const lossAt = (value: number) => {
        list[i] = value;
        return plainLosses(at, x, o, hold).loss;
      };
      const rise = lossAt(was + step) - lossAt(was - step);
      list[i] = was;
      return rise / (2 * step);
    });
  return {
    encoder: at.encoder.map(slope),
    latentBias: slope(at.latentBias),
    decoder: at.decoder.map(slope),
    preBias: slope(at.preBias),
  };
}

// ---- the update, in plain arrays ----

export const projected = (decoder: readonly number[][], g: readonly number[][]): number[][] =>
  g.map((row, j) => row.map((value, i) => value - dot(decoder[j], row) * decoder[j][i]));

export const normOf = (g: Plain): number =>
  Math.sqrt(sumOf(CORE_PARAMS.flatMap((name) => flat(g[name]).map((value) => value ** 2))));

/** Project, clip, Adam, unit decoder rows; `t` counts from 1. */
export function plainUpdate(
  w: Plain,
  m: Plain,
  v: Plain,
  gradient: Plain,
  h: Hyper,
  t: number,
): { w: Plain; m: Plain; v: Plain } {
  const g: Plain = { ...gradient, decoder: projected(w.decoder, gradient.decoder) };
  const factor = h.clip > 0 ? h.clip / Math.max(normOf(g), h.clip) : 1;
  const each = (f: (w: number, m: number, v: number, g: number) => number): Plain => {
    const list = (name: "latentBias" | "preBias") =>
      w[name].map((value, i) => f(value, m[name][i], v[name][i], factor * g[name][i]));
    const table = (name: "encoder" | "decoder") =>
      w[name].map((row, j) => row.map((value, i) => f(value, m[name][j][i], v[name][j][i], factor * g[name][j][i])));
    return {
      encoder: table("encoder"),
      latentBias: list("latentBias"),
      decoder: table("decoder"),
      preBias: list("preBias"),
    };
  };
  const nextM = (mean: number, g: number) => h.beta1 * mean + (1 - h.beta1) * g;
  const nextV = (mean: number, g: number) => h.beta2 * mean + (1 - h.beta2) * g * g;
  const moved = each(
    (w, m, v, g) =>
      w - (h.lr * nextM(m, g)) / (1 - h.beta1 ** t) / (Math.sqrt(nextV(v, g) / (1 - h.beta2 ** t)) + h.eps),
  );
  return {
    w: { ...moved, decoder: moved.decoder.map(unit) },
    m: each((_w, m, _v, g) => nextM(m, g)),
    v: each((_w, _m, v, g) => nextV(v, g)),
  };
}

// ---- one step on an engine ----

export const HYPER_HERE: Hyper = {
  lr: 0.01,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  clip: 0,
  emaDecay: 0,
  mseScale: 1,
  auxCoef: 0.5,
  rows: 0,
  deadAfter: 100,
  firedAbove: 1e-3,
};

export interface Start {
  readonly shape: TopkSizes;
  readonly w: Plain;
  readonly m?: Plain;
  readonly v?: Plain;
  readonly ema?: Plain;
  readonly age?: readonly number[];
  /** Updates done. */
  readonly adam?: number;
  readonly hyper?: Partial<Hyper>;
  /** Default true: encoder and decoder gradients can be looked at. */
  readonly dense?: boolean;
}

export interface Codes {
  /** Of each row, the latents that are on, the strongest first; and every slot as it is. */
  readonly latents: number[][];
  readonly slots: { readonly latent: number; readonly value: number }[][];
}

/** A training state on an engine, and steps on it. */
export class Trainer {
  readonly engine: Engine;
  readonly start: Start;
  readonly hyper: Hyper;
  readonly state: State;
  readonly #steps = new Map<number, TrainStep>();

  private constructor(engine: Engine, start: Start) {
    this.engine = engine;
    this.start = start;
    this.hyper = { ...HYPER_HERE, ...start.hyper };
    this.state = newState(engine, start.shape, start.ema !== undefined);
  }

  static of(engine: Engine, start: Start): Trainer {
    const trainer = new Trainer(engine, start);
    const { params, m, v, ema, age, counters } = trainer.state;
    const groups: [Params | undefined, Plain | undefined][] = [
      [params, start.w],
      [m, start.m],
      [v, start.v],
      [ema, start.ema],
    ];
    for (const [tensors, plain] of groups) {
      if (tensors !== undefined && plain !== undefined)
        for (const name of CORE_PARAMS) writeReals(engine, tensors[name], Float64Array.from(flat(plain[name])));
    }
    if (start.age !== undefined) engine.write(age, bytesOf(Uint32Array.from(start.age)));
    engine.write(counters, bytesOf(Float64Array.from(COUNTERS, (name) => (name === "adam" ? (start.adam ?? 0) : 0))));
    return trainer;
  }

  /**
   * One step on the rows, and what it wrote. `logged`: with the norm, which steps that are not
   * logged do without. The memory of a step is used again for the next batch of as many rows, as in
   * training.
   */
  async step(x: readonly number[][], hyper: Partial<Hyper> = {}, logged = true) {
    const { engine, state, start } = this;
    const rows = x.length;
    const step = this.#steps.get(rows) ?? newStep(engine, start.shape, rows, { dense: start.dense ?? true });
    this.#steps.set(rows, step);
    const raw = engine.alloc("f32", [rows, start.shape.d]);
    engine.write(raw, bytesOf(Float32Array.from(x.flat())));
    const all = { ...this.hyper, rows, ...hyper };
    step.run(state, raw, Uint32Array.from(x.keys()), all, logged);
    const metrics: StepMetrics = await readStepMetrics(engine, step, state, { ...all, rows: step.rows });
    const sums = float64Of(await engine.read(step.step.sums));
    const grad = async (t: Tensor | undefined) => (t === undefined ? [] : Array.from(await readReals(engine, t)));
    const { preBias, latentBias, encoder, decoder } = step.grads;
    const found = {
      metrics,
      sums: Object.fromEntries(SUMS.map((name, i) => [name, sums[i]])) as Record<(typeof SUMS)[number], number>,
      bad: uint32Of(await engine.read(step.step.bad))[0],
      fired: Array.from(uint32Of(await engine.read(step.step.fired))),
      norm: Math.sqrt(float64Of(await engine.read(step.step.sq))[0]),
      gradient: {
        encoder: this.#rowsOf(await grad(encoder)),
        latentBias: await grad(latentBias),
        decoder: this.#rowsOf(await grad(decoder)),
        preBias: await grad(preBias),
      } satisfies Plain,
      live: await this.#codes(step.live.codes),
      dead: step.dead && (await this.#codes(step.dead.codes)),
    };
    engine.free(raw);
    return found;
  }

  async plain(which: "params" | "m" | "v" | "ema" = "params"): Promise<Plain> {
    const group = this.state[which];
    if (group === undefined) throw new Error(`no ${which} here`);
    const list = async (name: CoreParam) => Array.from(await readReals(this.engine, group[name]));
    return {
      encoder: this.#rowsOf(await list("encoder")),
      latentBias: await list("latentBias"),
      decoder: this.#rowsOf(await list("decoder")),
      preBias: await list("preBias"),
    };
  }

  async ages(): Promise<number[]> {
    return Array.from(uint32Of(await this.engine.read(this.state.age)));
  }

  async counters(): Promise<Record<(typeof COUNTERS)[number], number>> {
    const values = float64Of(await this.engine.read(this.state.counters));
    return Object.fromEntries(COUNTERS.map((name, i) => [name, values[i]])) as Record<
      (typeof COUNTERS)[number],
      number
    >;
  }

  #rowsOf(values: readonly number[]): number[][] {
    const { d } = this.start.shape;
    return Array.from({ length: values.length / d }, (_, j) => values.slice(j * d, (j + 1) * d));
  }

  async #codes(z: TrainStep["live"]["codes"]): Promise<Codes> {
    const pairs = this.engine.pairs(z);
    const latent = uint32Of(await this.engine.read(pairs.latent));
    const value = await readReals(this.engine, pairs.value);
    const slots = Array.from({ length: z.rows }, (_, b) =>
      Array.from({ length: z.capacity }, (_, slot) => ({
        latent: latent[b * z.capacity + slot],
        value: value[b * z.capacity + slot],
      })),
    );
    return {
      slots,
      latents: slots.map((row) => row.filter((slot) => slot.latent !== NONE).map((slot) => slot.latent)),
    };
  }
}

/**
 * Every gradient against central differences of the loss, in float64: E1 to E12 evaluated forward
 * by code that shares nothing with the gradients, at weight + eps and weight - eps, for every
 * element of every parameter, on random small shapes. As in training, the auxiliary target and its
 * normaliser are held where they were.
 */

import { afterAll, describe, expect, it } from "vitest";
import type { Engine, Hyper, Params } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import * as maths from "../../src/sae/math.ts";
import { CORE_PARAMS, parameterCount } from "../../src/sae/params.ts";
import { freeState, readReals, writeReals } from "../../src/train/state.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { cpuEngine, whyNoCpu } from "../support/engines.ts";
import { dimsOf, newState, newStep, type TopkSizes } from "../topk.ts";

const SHAPES = 240;
const EPS = 1e-6;
const ABSOLUTE = 1e-7;
const RELATIVE = 1e-5;
/** How far the inputs stay from every kink of the loss. */
const CLEAR = 1e-3;

interface Problem {
  readonly shape: TopkSizes;
  readonly B: number;
  readonly w: maths.Weights;
  readonly x: Float64Array;
  readonly age: Uint32Array;
  readonly hyper: Hyper;
}

function drawProblem(seed: number): Problem {
  const rng = new Rng(77, seed);
  for (;;) {
    const [d, n, B] = [1 + rng.below(17), 1 + rng.below(40), 1 + rng.below(9)];
    const k = 1 + rng.below(n);
    const auxk = rng.below(5) === 0 ? 0 : 1 + rng.below(n);
    const array = (length: number, scale: number) => Float64Array.from({ length }, () => scale * rng.normal());
    // Every value is one that f32 holds, so that other engines can start from it too.
    const f32 = (a: Float64Array) => a.map(Math.fround);
    const decoder = array(n * d, 1);
    maths.unitRows(decoder, new Float64Array(n * d), new Float64Array(n * d), d, 1);
    const w = {
      encoder: f32(array(n * d, 1 / Math.sqrt(d))),
      latentBias: f32(array(n, 0.3)),
      decoder: f32(decoder),
      preBias: f32(array(d, 0.5)),
    };
    const dead = [0, 0.3, 0.7, 1][rng.below(4)] ?? 0;
    const age = Uint32Array.from({ length: n }, () => (rng.uniform() < dead ? 100 : 0));
    const hyper: Hyper = {
      lr: 1e-3,
      beta1: 0.9,
      beta2: 0.999,
      eps: 1e-8,
      clip: 0,
      emaDecay: 0,
      mseScale: 0.5 + rng.uniform(),
      auxCoef: rng.uniform() / 8,
      rows: B,
      deadAfter: 50,
      firedAbove: 1e-2,
    };
    const x = new Float64Array(B * d);
    const clear = Array.from({ length: B }, (_, row) => {
      for (let tries = 0; tries < 100; tries++) {
        const drawn = f32(array(d, 1));
        x.set(drawn, row * d);
        if (isClear(w, drawn, k, auxk, hyper, age)) return true;
      }
      return false;
    });
    if (clear.every(Boolean)) return { shape: { d, n, k, auxk }, B, w, x, age, hyper };
  }
}

function isClear(w: maths.Weights, x: Float64Array, k: number, auxk: number, hyper: Hyper, age: Uint32Array): boolean {
  const pre = new Float64Array(age.length);
  maths.preActivations(w, x, pre);
  const gap = (values: Float64Array, count: number) => {
    const sorted = values.sort().reverse();
    return count === 0 || count >= sorted.length || (sorted[count - 1] ?? 0) - (sorted[count] ?? 0) > CLEAR;
  };
  return (
    pre.every((value) => Math.abs(value) > CLEAR && Math.abs(value - hyper.firedAbove) > CLEAR) &&
    gap(pre.slice(), k) &&
    gap(
      pre.filter((_, j) => (age[j] ?? 0) > hyper.deadAfter),
      auxk,
    )
  );
}

/**
 * What the loss holds fixed: the auxiliary target t [B,d] and the sum of its squared distances from
 * its mean.
 */
interface Held {
  readonly target: Float64Array;
  readonly variation: number;
}

/** E1 to E5 and E10: W_dec z + bias [B,d] of the top `count` of the candidates. */
function reconstruct(
  p: Problem,
  w: maths.Weights,
  count: number,
  isCandidate: (j: number) => boolean,
  bias: boolean,
): Float64Array {
  const { d, n } = p.shape;
  const out = new Float64Array(p.B * d);
  const [pre, latent, value] = [new Float64Array(n), new Uint32Array(count), new Float64Array(count)];
  for (let row = 0; row < p.B; row++) {
    maths.preActivations(w, p.x.subarray(row * d, (row + 1) * d), pre);
    const on = maths.topK(pre, count, latent, value, isCandidate);
    for (let i = 0; i < d; i++) {
      let sum = bias ? w.preBias[i] : 0;
      for (let slot = 0; slot < on; slot++) sum += value[slot] * w.decoder[latent[slot] * d + i];
      out[row * d + i] = sum;
    }
  }
  return out;
}

function hold(p: Problem): Held {
  const { d } = p.shape;
  const reconstruction = reconstruct(p, p.w, p.shape.k, () => true, true);
  const target = p.x.map((value, e) => value - reconstruction[e]);
  const mean = new Float64Array(d);
  target.forEach((value, e) => {
    mean[e % d] += value / p.B;
  });
  return { target, variation: target.reduce((sum, value, e) => sum + (value - mean[e % d]) ** 2, 0) };
}

/** E12, with the auxiliary target held. */
function loss(p: Problem, w: maths.Weights, { target, variation }: Held): number {
  const reconstruction = reconstruct(p, w, p.shape.k, () => true, true);
  const mse = p.x.reduce((sum, value, e) => sum + (reconstruction[e] - value) ** 2, 0) / p.x.length;
  const isDead = (j: number) => p.age[j] > p.hyper.deadAfter;
  if (p.shape.auxk === 0 || !p.age.some((_, j) => isDead(j)) || variation <= 1e-12 * maths.squares(p.x))
    return p.hyper.mseScale * mse;
  const auxiliary = reconstruct(p, w, p.shape.auxk, isDead, false);
  const auxk = target.reduce((sum, value, e) => sum + (auxiliary[e] - value) ** 2, 0) / variation;
  return p.hyper.mseScale * mse + p.hyper.auxCoef * auxk;
}

/** The dense gradient of one training step. */
async function gradient(
  engine: Engine,
  p: Problem,
): Promise<{ readonly [K in keyof Params]: Float32Array | Float64Array }> {
  const { shape, B } = p;
  const state = newState(engine, shape, false);
  for (const name of CORE_PARAMS) writeReals(engine, state.params[name], p.w[name]);
  engine.write(state.age, bytesOf(p.age));
  const raw = engine.alloc("f64", [B, shape.d]);
  engine.write(raw, bytesOf(p.x));
  const step = newStep(engine, shape, B, { dense: true });
  step.run(
    state,
    raw,
    Uint32Array.from({ length: B }, (_, row) => row),
    p.hyper,
    false,
  );
  const { encoder, decoder, latentBias, preBias } = step.grads;
  if (encoder === undefined || decoder === undefined) throw new Error("dense gradients were asked for");
  const [e, l, dec, pre] = await Promise.all(
    [encoder, latentBias, decoder, preBias].map((tensor) => readReals(engine, tensor)),
  );
  step.close();
  freeState(engine, state);
  engine.free(raw);
  return { encoder: e, latentBias: l, decoder: dec, preBias: pre };
}

const problems = Array.from({ length: SHAPES }, (_, seed) => drawProblem(seed));
const found = { parameters: 0, shapes: 0, auxiliary: 0, alsoLive: 0, worst: 0 };

describe("gradients", () => {
  it(`agree with central differences in float64, for every parameter of ${SHAPES} shapes`, async () => {
    const engine = createReferenceEngine();
    for (const p of problems) {
      const g = await gradient(engine, p);
      const held = hold(p);
      for (const name of CORE_PARAMS) {
        const values = p.w[name];
        for (let i = 0; i < values.length; i++) {
          const at = (value: number) => {
            const before = values[i];
            values[i] = value;
            const there = loss(p, p.w, held);
            values[i] = before;
            return there;
          };
          const difference = (at(values[i] + EPS) - at(values[i] - EPS)) / (2 * EPS);
          const allowed = ABSOLUTE + RELATIVE * Math.abs(difference);
          const off = Math.abs(g[name][i] - difference) / allowed;
          if (!(off <= 1)) {
            const { d, n, k, auxk } = p.shape;
            expect.fail(
              `${name}[${i}] of d=${d} n=${n} k=${k} auxk=${auxk} B=${p.B}: gradient ${g[name][i]}, difference ${difference}`,
            );
          }
          found.worst = Math.max(found.worst, off);
        }
      }
      found.parameters += parameterCount(dimsOf(p.shape), CORE_PARAMS);
      found.shapes++;
      if (p.shape.auxk > 0 && p.age.some((age) => age > p.hyper.deadAfter) && p.B > 1) found.auxiliary++;
    }
    expect(found.shapes).toBeGreaterThanOrEqual(200);
    expect(found.auxiliary).toBeGreaterThan(SHAPES / 3);
  });

  it("of the cpu engine agree with the reference's within the rounding of float32", async (context) => {
    const reason = whyNoCpu();
    if (reason !== undefined) context.skip(reason);
    const [cpu, reference] = [await cpuEngine(), createReferenceEngine()];
    for (const p of problems) {
      const [actual, expected] = [await gradient(cpu, p), await gradient(reference, p)];
      // The auxiliary factor divides by a difference of sums, which enlarges the rounding of err.
      const { target, variation } = hold(p);
      const enlarged = 1 + (variation > 0 ? Math.min(maths.squares(target) / variation, 1e6) : 0);
      for (const name of CORE_PARAMS) {
        const largest = Float64Array.from(expected[name]).reduce((high, value) => Math.max(high, Math.abs(value)), 0);
        const allowed = 512 * 2 ** -24 * enlarged * (largest + 1e-3);
        for (let i = 0; i < expected[name].length; i++) {
          if (!(Math.abs(actual[name][i] - expected[name][i]) <= allowed)) {
            expect.fail(
              `${name}[${i}]: cpu ${actual[name][i]}, reference ${expected[name][i]}, allowed ${allowed}; ${JSON.stringify(p.shape)}`,
            );
          }
        }
      }
    }
    await cpu[Symbol.asyncDispose]();
  });

  afterAll(() => {
    console.log(
      `${found.parameters.toLocaleString("en")} parameters of ${found.shapes} shapes checked (${found.auxiliary} with the auxiliary loss), ` +
        `worst error ${found.worst.toFixed(3)} of what is allowed (${ABSOLUTE} + ${RELATIVE} |gradient|)`,
    );
  });
});

/**
 * Gradients of prefixes, skip connections, untied biases, every selection rule and the sparsity
 * loss against central differences of the loss, in float64, for every element of every parameter.
 * The loss is evaluated densely, by code that shares nothing with the gradients. What is selected,
 * and the auxiliary target with its normaliser, are held where they were. The straight-through part
 * of a threshold's gradient is in src/sae/math/sparsity.test.ts.
 */

import { describe, expect, it } from "vitest";
import type { Hyper } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { SelectionRules } from "../../src/sae/architectures/architecture.ts";
import { autoencoderDims, type Dims, transcoderDims } from "../../src/sae/dims.ts";
import { NO_NORMALIZATION, PENALTIES, type Weights } from "../../src/sae/math.ts";
import { CORE_PARAMS, PARAMS, type ParamName, paramEntries, perParam } from "../../src/sae/params.ts";
import { rankShard } from "../../src/train/rank-shard.ts";
import { allocState, readReals, writeReals } from "../../src/train/state.ts";
import { createTrainStep } from "../../src/train/step.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";

const SHAPES = 150;
const EPS = 1e-6;
const ABSOLUTE = 1e-7;
const RELATIVE = 1e-5;
const DEAD_AFTER = 50;

interface Problem {
  readonly dims: Dims;
  readonly B: number;
  readonly rules: SelectionRules;
  readonly w: Weights;
  readonly x: Float64Array;
  /** x, but for a transcoder. */
  readonly y: Float64Array;
  readonly age: Uint32Array;
  readonly hyper: Hyper;
}

function drawProblem(seed: number): Problem {
  const rng = new Rng(78, seed);
  const [dIn, n, B] = [1 + rng.below(9), 2 + rng.below(20), 2 + rng.below(6)];
  const untied = rng.below(2) === 0;
  const dims = untied ? transcoderDims(dIn, n, 1 + rng.below(9)) : autoencoderDims(dIn, n);
  const kind = (["topk", "batchtopk", "threshold"] as const)[seed % 3]!;
  const jumps = kind === "threshold";
  const ends = Array.from({ length: n - 1 }, (_, j) => j + 1).filter(() => rng.below(4) === 0);
  const k = 1 + rng.below(n);
  const rules: SelectionRules = {
    live: jumps ? { kind, param: "threshold" } : { kind, k },
    dead: jumps || rng.below(3) === 0 ? undefined : { kind: "topk", k: 1 + rng.below(n) },
    band: jumps ? { kind: "band" } : undefined,
    prefixes: [...ends.map((end) => ({ end, weight: 0.2 + 2 * rng.uniform() })), { end: n, weight: 1 }],
    inference: jumps ? { kind, param: "threshold" } : { kind: "topk", k },
  };
  const array = (length: number, scale: number) => Float64Array.from({ length }, () => scale * rng.normal());
  const names: ParamName[] = [...CORE_PARAMS, ...(jumps ? (["threshold", "sparsity"] as const) : [])];
  if (untied && rng.below(2) === 0) names.push("skip");
  const w = perParam(names, (name, { shape }) => {
    const size = shape(dims).reduce((a, b) => a * b, 1);
    if (name === "sparsity") return Float64Array.of(0.5 + rng.uniform(), 0);
    return name === "threshold" ? array(size, 0.3).map(Math.abs) : array(size, 0.6);
  });
  const x = array(B * dIn, 1);
  const hyper: Hyper = {
    ...{ lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, clip: 0, emaDecay: 0, unitRows: untied ? 0 : 1 },
    ...{ mseScale: 0.5 + rng.uniform(), auxCoef: rng.uniform() / 8, rows: B, firedAbove: 1e-2 },
    ...{ deadAfter: DEAD_AFTER, kept: 1 + rng.below(B * k) },
    // Nothing is in a window so narrow.
    bandwidth: 1e-12,
    ...(jumps ? { penalty: PENALTIES.indexOf("tanh"), sparsity: 0.3, tanhScale: 2, deadPenalty: rng.uniform() } : {}),
  };
  const age = Uint32Array.from({ length: n }, () => (rng.uniform() < 0.4 ? 2 * DEAD_AFTER : 0));
  return { dims, B, rules, w, x, y: untied ? array(B * dims.dOut, 1) : x, age, hyper };
}

function preActivations({ dims: { dIn, n, untied }, B, x }: Problem, w: Weights): Float64Array {
  return Float64Array.from({ length: B * n }, (_, at) => {
    const [row, j] = [Math.floor(at / n), at % n];
    let sum = w.latentBias[j]!;
    for (let i = 0; i < dIn; i++) sum += w.encoder[j * dIn + i]! * (x[row * dIn + i]! - (untied ? 0 : w.preBias[i]!));
    return sum;
  });
}

/** What the loss holds fixed. Masks are [B,n] of 0 and 1. */
interface Held {
  readonly live: Float64Array;
  readonly dead: Float64Array;
  /** The auxiliary target [B,dOut], and the sum of its squared distances from its mean. */
  readonly target: Float64Array;
  readonly variation: number;
}

/** The `count` highest of those of `candidates` that are above 0. */
function highest(z: Float64Array, candidates: readonly number[], count: number): readonly number[] {
  return candidates
    .filter((at) => z[at]! > 0)
    .sort((a, b) => z[b]! - z[a]!)
    .slice(0, count);
}

function hold(p: Problem): Held {
  const { dims, B, rules, w, age, hyper } = p;
  const { n, dOut } = dims;
  const z = preActivations(p, w);
  const rows = Array.from({ length: B }, (_, row) => Array.from({ length: n }, (_, j) => row * n + j));
  const masked = (on: readonly number[]) => {
    const mask = new Float64Array(B * n);
    for (const at of on) mask[at] = 1;
    return mask;
  };
  const { live, dead } = rules;
  const select = (): readonly number[] => {
    switch (live.kind) {
      case "topk":
        return rows.flatMap((row) => highest(z, row, live.k));
      case "batchtopk":
        return highest(z, rows.flat(), hyper.kept!);
      default:
        return rows.flat().filter((at) => z[at]! > 0 && z[at]! > w.threshold![at % n]!);
    }
  };
  const isDead = (at: number) => age[at % n]! > DEAD_AFTER;
  const deadK = dead?.kind === "topk" ? dead.k : 0;
  const liveMask = masked(select());
  const deadMask = masked(rows.flatMap((row) => highest(z, row.filter(isDead), deadK)));
  const target = reconstruct(p, w, z, liveMask, n, true).map((value, e) => p.y[e]! - value);
  const mean = new Float64Array(dOut);
  target.forEach((value, e) => {
    mean[e % dOut]! += value / B;
  });
  const variation = target.reduce((sum, value, e) => sum + (value - mean[e % dOut]!) ** 2, 0);
  return { live: liveMask, dead: deadMask, target, variation };
}

/** By the latents below `end`; `whole`: with b_dec and the skip connection. -> [B,dOut]. */
function reconstruct(
  { dims: { dIn, n, dOut }, B, x }: Problem,
  w: Weights,
  z: Float64Array,
  mask: Float64Array,
  end: number,
  whole: boolean,
): Float64Array {
  return Float64Array.from({ length: B * dOut }, (_, e) => {
    const [row, o] = [Math.floor(e / dOut), e % dOut];
    let sum = whole ? w.preBias[o]! : 0;
    for (let j = 0; j < end; j++) sum += mask[row * n + j]! * z[row * n + j]! * w.decoder[j * dOut + o]!;
    if (whole && w.skip !== undefined) for (let i = 0; i < dIn; i++) sum += w.skip[o * dIn + i]! * x[row * dIn + i]!;
    return sum;
  });
}

function loss(p: Problem, w: Weights, held: Held): number {
  const { dims, B, rules, y, age, hyper } = p;
  const { n, dOut } = dims;
  const z = preActivations(p, w);
  let sum = 0;
  for (const { end, weight } of rules.prefixes!) {
    const reconstruction = reconstruct(p, w, z, held.live, end, true);
    const square = reconstruction.reduce((total, value, e) => total + (value - y[e]!) ** 2, 0);
    sum += (hyper.mseScale * weight * square) / (B * dOut);
  }
  if (rules.dead !== undefined && age.some((each) => each > DEAD_AFTER)) {
    const auxiliary = reconstruct(p, w, z, held.dead, n, false);
    const square = auxiliary.reduce((total, value, e) => total + (value - held.target[e]!) ** 2, 0);
    sum += (hyper.auxCoef * square) / held.variation;
  }
  if (w.threshold === undefined) return sum;
  for (let at = 0; at < B * n; at++) {
    const coefficient = hyper.sparsity! * w.sparsity![0]!;
    sum += (coefficient * Math.tanh(hyper.tanhScale! * held.live[at]! * z[at]!)) / B;
    if (age[at % n]! > DEAD_AFTER) sum += (hyper.deadPenalty! * Math.max(0, w.threshold[at % n]! - z[at]!)) / B;
  }
  return sum;
}

/** The gradient of one training step. */
async function gradient(p: Problem): Promise<Weights> {
  await using engine = createReferenceEngine();
  const { dims, B, w, x, y, hyper } = p;
  const names = paramEntries(w).map(([name]) => name);
  const state = allocState(engine, dims, names, false);
  for (const [name, , values] of paramEntries(w)) writeReals(engine, state.params[name]!, values);
  engine.write(state.age, bytesOf(p.age));
  const { dIn, dOut } = dims;
  const width = dIn + (y === x ? 0 : dOut);
  const raw = engine.alloc("f64", [B, width]);
  const rows = Float64Array.from({ length: B * width }, (_, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    return column < dIn ? x[row * dIn + column]! : y[row * dOut + column - dIn]!;
  });
  engine.write(raw, bytesOf(rows));
  const target = y === x ? undefined : NO_NORMALIZATION;
  const shard = rankShard(dims, p.rules);
  const step = createTrainStep(engine, { shard, rows: B, dense: true, target, skip: w.skip !== undefined });
  const index = Uint32Array.from({ length: B }, (_, row) => row);
  step.run(state, raw, index, hyper, false);
  while ((await step.verdict()).full) step.again(state, hyper, false);
  const found: [ParamName, Float64Array][] = [];
  for (const name of names.filter((each) => PARAMS[each].update !== "controller"))
    found.push([name, Float64Array.from(await readReals(engine, step.grads[name as keyof typeof step.grads]!))]);
  return Object.fromEntries(found) as unknown as Weights;
}

const problems = Array.from({ length: SHAPES }, (_, seed) => drawProblem(seed));

describe("gradients of architectures", () => {
  it("are drawn with every part", () => {
    const some = (what: (p: Problem) => boolean) => expect(problems.filter(what).length).toBeGreaterThanOrEqual(10);
    some(({ rules }) => rules.prefixes!.length >= 5);
    some(({ w }) => w.skip !== undefined);
    some(({ rules, w }) => w.skip !== undefined && rules.dead !== undefined);
    some(({ dims }) => dims.untied === true && dims.dIn !== dims.dOut);
    some(({ dims, w, age }) => dims.untied === true && w.threshold !== undefined && age.some((each) => each > 0));
    some(({ dims, w }) => dims.untied !== true && w.threshold !== undefined);
  });

  it(`agree with central differences in float64, for every parameter of ${SHAPES} shapes`, async () => {
    for (const [seed, p] of problems.entries()) {
      const g = await gradient(p);
      const held = hold(p);
      for (const [name, , found] of paramEntries(g)) {
        const values = p.w[name]!;
        for (let i = 0; i < values.length; i++) {
          const at = (by: number) => loss(p, { ...p.w, [name]: values.with(i, values[i]! + by) }, held);
          const difference = (at(EPS) - at(-EPS)) / (2 * EPS);
          const off = Math.abs(found[i]! - difference);
          if (!(off <= ABSOLUTE + RELATIVE * Math.abs(difference)))
            expect.fail(`shape ${seed}: ${name}[${i}] has gradient ${found[i]}, difference ${difference}`);
        }
      }
    }
  });
});

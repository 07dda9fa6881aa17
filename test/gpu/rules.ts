/**
 * Whole steps of every rule on the cuda engine and on the reference engine from the same numbers:
 * sums, moments and weights agree within rounding. Run on a card by gpu.test.ts, and over the
 * stand-in of test/cuda by host.test.ts.
 */

import type { Engine, Hyper, State, Tensor } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { SelectionRules } from "../../src/sae/architectures/architecture.ts";
import { autoencoderDims, type Dims, transcoderDims } from "../../src/sae/dims.ts";
import { NO_NORMALIZATION, PENALTIES, type PenaltyKind } from "../../src/sae/math.ts";
import { CORE_PARAMS, type ParamName, paramEntries } from "../../src/sae/params.ts";
import { rankShard } from "../../src/train/rank-shard.ts";
import { allocState, writeReals } from "../../src/train/state.ts";
import { createTrainStep } from "../../src/train/step.ts";
import { bytesOf, float32Of, float64Of, uint32Of } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import type { Check } from "./checks.ts";

interface Variant {
  readonly dims: Dims;
  readonly rules: SelectionRules;
  readonly params?: readonly ParamName[];
  readonly hyper?: Partial<Hyper>;
  /** Of all latents at the start. */
  readonly threshold?: number;
}

const ROWS = 150;
const BATCH = 90;
const STEPS = 4;
/**
 * The largest difference, as a part of the largest number of a tensor; where products are narrower,
 * which select other latents here and there, the length of all differences.
 */
const ALLOWED = { f32: 2e-4, bf16: 0.2, fp16: 0.1 } as const;

const topk = (k: number): SelectionRules => ({ live: { kind: "topk", k }, inference: { kind: "topk", k } });
const batchtopk = (k: number): SelectionRules => ({
  live: { kind: "batchtopk", k },
  inference: { kind: "threshold", param: "cut" },
});
const PREFIXES = [
  { end: 9, weight: 0.5 },
  { end: 40, weight: 0.25 },
  { end: 160, weight: 1 },
] as const;
const JUMPRELU: SelectionRules = {
  live: { kind: "threshold", param: "threshold" },
  band: { kind: "band" },
  inference: { kind: "threshold", param: "threshold" },
};
const jumprelu = (penalty: PenaltyKind, more: Partial<Hyper> = {}): Variant => ({
  dims: autoencoderDims(24, 160),
  rules: JUMPRELU,
  params: [...CORE_PARAMS, "threshold", "sparsity"],
  threshold: 0.6,
  hyper: {
    ...{ penalty: PENALTIES.indexOf(penalty), sparsity: 0.3, bandwidth: 0.4, tanhScale: 2, targetL0: 20 },
    ...{ gain: 0.05, unitRows: 1 },
    ...more,
  },
});

const VARIANTS: Readonly<Record<string, Variant>> = {
  topk: { dims: autoencoderDims(24, 160), rules: topk(7) },
  "topk that k annealing lets have less": { dims: autoencoderDims(24, 160), rules: topk(40), hyper: { rowK: 9 } },
  "multi-TopK": {
    dims: autoencoderDims(24, 160),
    rules: { ...topk(7), wide: { kind: "topk", k: 28 } },
    hyper: { wideCoef: 0.25 },
  },
  "multi-TopK transcoder, rows of odd length": {
    dims: transcoderDims(21, 160, 26),
    rules: { ...topk(9), wide: { kind: "topk", k: 36 } },
    hyper: { wideCoef: 2, unitRows: 0 },
  },
  batchtopk: {
    dims: autoencoderDims(24, 160),
    rules: { ...batchtopk(7.5), dead: { kind: "topk", k: 12 } },
    params: [...CORE_PARAMS, "cut"],
    hyper: { kept: 7.5 * BATCH, cutDecay: 0.9 },
  },
  "batchtopk of many latents": {
    dims: autoencoderDims(32, 5000),
    rules: batchtopk(32),
    params: [...CORE_PARAMS, "cut"],
    hyper: { kept: 32 * BATCH, cutDecay: 0.9 },
  },
  "batchtopk, all kept": {
    dims: autoencoderDims(24, 160),
    rules: batchtopk(100),
    params: [...CORE_PARAMS, "cut"],
    hyper: { kept: 1e6, cutDecay: 0.9 },
  },
  matryoshka: {
    dims: autoencoderDims(24, 160),
    rules: { ...batchtopk(8), dead: { kind: "topk", k: 12 }, prefixes: PREFIXES },
    params: [...CORE_PARAMS, "cut"],
    hyper: { kept: 8 * BATCH, cutDecay: 0.9 },
  },
  "matryoshka, rows of odd length": {
    dims: autoencoderDims(23, 160),
    rules: { ...topk(40), prefixes: PREFIXES },
  },
  "matryoshka, many codes of a row": { dims: autoencoderDims(40, 160), rules: { ...topk(90), prefixes: PREFIXES } },
  "jumprelu, step": jumprelu("step"),
  "jumprelu, tanh": jumprelu("tanh"),
  "jumprelu, quadratic, and the dead": jumprelu("quadratic", { deadPenalty: 0.02 }),
  "jumprelu, tanh, rows of any norm": jumprelu("tanh", { unitRows: 0 }),
  "jumprelu, rows that need more slots": {
    ...jumprelu("step"),
    dims: autoencoderDims(24, 700),
    threshold: 0.01,
  },
  transcoder: { dims: transcoderDims(24, 160, 36), rules: { ...topk(7), dead: { kind: "topk", k: 12 } } },
  "transcoder with a skip connection": {
    dims: transcoderDims(40, 160, 24),
    rules: topk(7),
    params: [...CORE_PARAMS, "skip"],
  },
  "transcoder, rows of odd length": {
    dims: transcoderDims(21, 160, 26),
    rules: { ...topk(37), prefixes: PREFIXES },
    params: [...CORE_PARAMS, "skip"],
  },
  "transcoder, jumprelu": { ...jumprelu("tanh"), dims: transcoderDims(24, 160, 32) },
};

export const RULE_CHECKS: readonly Check[] = Object.entries(VARIANTS).map(([name, variant]) => ({
  name: `as the reference engine: ${name}`,
  run: async (make, dtype) => {
    await using engine = await make({ dtype });
    const [own, expected] = [await numbersOf(engine, variant), await numbersOf(createReferenceEngine(), variant)];
    let worst = 0;
    for (const [tensor, values] of expected) {
      const size = dtype === "f32" ? largestOf : lengthOf;
      // The lowest value kept can be near 0, a difference of larger numbers.
      const least = tensor.startsWith("cut of") ? 0.05 : 0;
      const off = size(values.map((value, i) => value - own.get(tensor)![i]!));
      const largest = Math.max(least, size(values));
      if (off === 0) continue;
      if (!(off <= ALLOWED[dtype] * largest)) throw new Error(`${tensor} is off by ${off} of ${largest}`);
      worst = Math.max(worst, off / largest);
    }
    return `off by ${worst.toExponential(1)}`;
  },
}));

function largestOf(numbers: Float64Array): number {
  return numbers.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

function lengthOf(numbers: Float64Array): number {
  return Math.sqrt(numbers.reduce((sum, value) => sum + value * value, 0));
}

/** Sums of each step, and the state after the last. */
async function numbersOf(engine: Engine, variant: Variant): Promise<ReadonlyMap<string, Float64Array>> {
  const { dims, rules, params = CORE_PARAMS } = variant;
  const { dIn, n, dOut } = dims;
  const hyper: Hyper = {
    ...{ lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-2, clip: 1, emaDecay: 0.9, mseScale: 1, auxCoef: 1 / 32 },
    ...{ rows: BATCH, deadAfter: 1000, firedAbove: 0.05 },
    ...variant.hyper,
  };
  const state = allocState(engine, dims, params, true);
  fill(engine, state, variant);
  const target = dims.untied ? NO_NORMALIZATION : undefined;
  const width = dIn + (target === undefined ? 0 : dOut);
  const rng = new Rng(5, 1);
  const raw = engine.alloc("f32", [ROWS, width]);
  engine.write(raw, bytesOf(Float32Array.from({ length: ROWS * width }, () => rng.normal())));
  const shard = rankShard(dims, rules);
  const step = createTrainStep(engine, { shard, rows: BATCH, most: BATCH + 5, target, skip: params.includes("skip") });
  const found = new Map<string, Float64Array>();
  const { sums, cut, active } = step.step;
  for (let i = 0; i < STEPS; i++) {
    const index = Uint32Array.from({ length: BATCH }, () => rng.below(ROWS));
    step.run(state, raw, index, hyper, true);
    for (let more = 0; (await step.verdict()).full && more < 5; more++) step.again(state, hyper, true);
    found.set(`sums of step ${i}`, float64Of(await engine.read(sums)));
    found.set(`active of step ${i}`, float64Of(await engine.read(active)));
    found.set(`cut of step ${i}`, await reals(engine, cut));
  }
  engine.complete(state);
  const groups = { params: state.params, m: state.m, v: state.v, ema: state.ema! };
  for (const [group, values] of Object.entries(groups))
    for (const [name, , tensor] of paramEntries(values)) found.set(`${group}.${name}`, await reals(engine, tensor));
  found.set("age", Float64Array.from(uint32Of(await engine.read(state.age))));
  found.set("counters", float64Of(await engine.read(state.counters)));
  found.set("latents", Float64Array.of(n));
  step.close();
  return found;
}

async function reals(engine: Engine, tensor: Tensor): Promise<Float64Array> {
  const bytes = await engine.read(tensor);
  return tensor.dtype === "f64" ? float64Of(bytes) : Float64Array.from(float32Of(bytes));
}

function fill(engine: Engine, state: State, { dims, threshold = 0 }: Variant): void {
  const { n, dOut } = dims;
  const rng = new Rng(4, 2);
  for (const [name, , tensor] of paramEntries(state.params)) {
    const size = tensor.shape.reduce((a, b) => a * b, 1);
    const scale = name === "encoder" ? 1 / Math.sqrt(dims.dIn) : name === "decoder" ? 1 : 0.1;
    const values = Float32Array.from({ length: size }, () => scale * rng.normal());
    if (name === "decoder") {
      for (let j = 0; j < n; j++) {
        const row = values.subarray(j * dOut, (j + 1) * dOut);
        const length = Math.hypot(...row);
        for (let i = 0; i < dOut; i++) row[i] = Math.fround(row[i]! / length);
      }
    }
    if (name === "threshold") for (let j = 0; j < n; j++) values[j] = threshold + 0.01 * (j % 7);
    if (name === "cut") values[0] = 0.5;
    if (name === "sparsity") values.set([1.5, 0]);
    writeReals(engine, tensor, values);
  }
  const ages = Uint32Array.from({ length: n }, (_, j) => (j % 3 === 0 ? 5000 : (j * 7) % 900));
  engine.write(state.age, bytesOf(ages));
}

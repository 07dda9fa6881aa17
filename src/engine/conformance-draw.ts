/**
 * Random setups for the conformance cases, drawn away from where rounding could change what is
 * selected.
 */

import { autoencoderDims } from "../sae/dims.ts";
import type { Weights } from "../sae/math.ts";
import { bytesOf } from "../util/bytes.ts";
import { Rng } from "../util/rng.ts";
import { absoluteWeights, preActivations, SLACK } from "./conformance-bounds.ts";
import type { Setup } from "./conformance-guarded-step.ts";
import type { Hyper, Normalization, Rule, SelectionPlan } from "./engine.ts";
import { ROUNDING } from "./numbers.ts";

export interface Draw {
  readonly d: number;
  readonly n: number;
  /** Fractional only with "batchtopk". */
  readonly k: number;
  readonly auxk?: number;
  readonly B: number;
  readonly seed?: number;
  readonly dense?: boolean;
  readonly hyper?: Partial<Hyper>;
  /** Age of latent j; above 1000 is dead. Default: every third is dead. */
  readonly age?: (j: number) => number;
  /** Latent bias of latent j in place of a random one. */
  readonly bias?: (j: number) => number | undefined;
  /**
   * Small multiples of 1/8 everywhere that selection looks: no sum is rounded in f32, in any order,
   * and ties abound.
   */
  readonly exact?: boolean;
  readonly ema?: boolean;
  readonly raw?: "f64" | "f32";
  /** Of the live codes. "threshold" and "cut": the rule "threshold" by that parameter. */
  readonly rule?: "topk" | "batchtopk" | "threshold" | "cut";
  /** Slots per row of the live codes. Default: k, or a slot for each latent if rows may need it. */
  readonly slots?: number;
  /** Slots per row of a selection by "band"; default: there is none. */
  readonly band?: number;
  /** The threshold of latent j in place of a random one; cut is that of latent 0. */
  readonly threshold?: (j: number) => number;
  readonly normalization?: Normalization;
}

export const HYPERS: Hyper = {
  lr: 1e-3,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  clip: 0,
  emaDecay: 0,
  mseScale: 0.7,
  auxCoef: 1 / 32,
  rows: 0,
  deadAfter: 1000,
  firedAbove: 1e-3,
};

export function draw(o: Draw): Setup {
  const { d, n, k, B } = o;
  const rng = new Rng(o.seed ?? 1, d, n, Math.ceil(k), o.auxk ?? 0, B);
  const f32 = (length: number, next: () => number) => {
    const numbers = new Float64Array(length);
    for (let i = 0; i < length; i++) numbers[i] = Math.fround(next());
    return numbers;
  };
  const grid = (largest: number, step: number) => () => (rng.below(2 * largest + 1) - largest) * step;
  const normal = (scale: number) => () => scale * rng.normal();
  const decoder = f32(n * d, normal(1));
  for (let start = 0; start < n * d; start += d) {
    const row = decoder.subarray(start, start + d);
    const length = Math.hypot(...row);
    for (let i = 0; i < d; i++) row[i] = Math.fround(row[i] / length);
  }
  const bias = f32(n, o.exact ? grid(4, 1 / 8) : normal(0.3));
  for (let j = 0; j < n; j++) bias[j] = o.bias?.(j) ?? bias[j];
  const thresholds = (length: number) => {
    const values = f32(length, o.exact ? grid(6, 1 / 8) : normal(0.5));
    return o.threshold === undefined ? values : values.map((_, j) => Math.fround(o.threshold!(j)));
  };
  const params: Weights = {
    encoder: f32(n * d, o.exact ? grid(2, 1 / 2) : normal(1 / Math.sqrt(d))),
    latentBias: bias,
    decoder,
    preBias: f32(d, o.exact ? grid(4, 1 / 4) : normal(0.5)),
    ...extraParams(o, thresholds, () => Float64Array.of(1.5, 20)),
  };
  const moments = (scale: number, shape: (value: number) => number): Weights => {
    const make = (length: number) => f32(length, () => shape(scale * rng.normal()));
    const core = { encoder: make(n * d), latentBias: make(n), decoder: make(n * d), preBias: make(d) };
    return { ...core, ...extraParams(o, make, make) };
  };
  const age = Uint32Array.from({ length: n }, (_, j) => (o.age ? o.age(j) : j % 3 === 0 ? 5000 : rng.below(1000)));
  const hyper = { ...HYPERS, rows: B, ...(o.rule === "batchtopk" ? { kept: Math.round(k * B) } : {}), ...o.hyper };
  const selections = selectionsOf(o);

  // One row more than the batch, so that a wrong row is seen; the batch takes them in random order.
  const x = new Float64Array((B + 1) * d);
  const aw = absoluteWeights(params);
  for (let row = 0; row <= B; row++) {
    for (let tries = 0; tries < 200; tries++) {
      x.set(f32(d, o.exact ? grid(4, 1 / 4) : normal(1)), row * d);
      if (o.exact || isClear({ params, aw, selections, hyper, age }, x.subarray(row * d, (row + 1) * d))) break;
    }
  }
  const rows = Uint32Array.from({ length: B }, (_, b) => b + 1);
  const dtype = o.raw ?? "f32";
  return {
    dims: autoencoderDims(d, n),
    live: selections[0]!,
    dead: selections.find(({ among }) => among === "dead"),
    band: selections.find(({ rule }) => rule.kind === "band"),
    B,
    hyper,
    params,
    m: moments(0.01, (value) => value),
    v: moments(0.01, (value) => value * value),
    ema: o.ema ? moments(0.5, (value) => value) : undefined,
    age,
    raw: { dtype, bytes: bytesOf(dtype === "f32" ? Float32Array.from(x) : x) },
    rows: rng.shuffle(rows),
    normalization: o.normalization,
    dense: o.dense ?? false,
  };
}

type Make = (length: number) => Float64Array;

/** The parameters that the rule needs beyond those that every architecture has. */
function extraParams({ rule, band, n }: Draw, make: Make, sparsity: Make): Partial<Weights> {
  return {
    ...(rule === "threshold" || band ? { threshold: make(n) } : {}),
    ...(rule === "cut" || rule === "batchtopk" ? { cut: make(1) } : {}),
    ...(rule === "threshold" ? { sparsity: sparsity(2) } : {}),
  };
}

/** The selections of what `draw` draws, the live one first. */
export function selectionsOf(o: Pick<Draw, "n" | "k" | "auxk" | "rule" | "slots" | "band">): readonly SelectionPlan[] {
  const { n, k, auxk, rule = "topk", slots = rule === "topk" ? k : n, band } = o;
  const live: Rule = rule === "topk" || rule === "batchtopk" ? { kind: rule, k } : { kind: "threshold", param: rule };
  return [
    { rule: live, among: "all", slots },
    ...(auxk ? [{ rule: { kind: "topk", k: auxk }, among: "dead", slots: auxk } as const] : []),
    ...(band ? [{ rule: { kind: "band" }, among: "all", slots: band } as const] : []),
  ];
}

interface Drawn {
  readonly params: Weights;
  readonly aw: Weights;
  readonly selections: readonly SelectionPlan[];
  readonly hyper: Hyper;
  readonly age: Uint32Array;
}

/** Whether rounding to f32 cannot change what this row [d] selects, or what fires. */
function isClear({ params, aw, selections, hyper, age }: Drawn, x: Float64Array): boolean {
  const { pre, magnitude } = preActivations(params, x, aw);
  const bound = 2 * SLACK * ROUNDING.f32 * magnitude.reduce((a, b) => Math.max(a, b), 0);
  if (pre.some((value) => Math.abs(value) < bound || Math.abs(value - hyper.firedAbove) < bound)) return false;
  const gap = (values: Float64Array, count: number) => {
    const sorted = values.sort().reverse();
    return count === 0 || count >= sorted.length || sorted[count - 1] - sorted[count] > bound;
  };
  return selections.every(({ rule, among, slots }) => {
    switch (rule.kind) {
      case "threshold":
        return pre.every((z, j) => Math.abs(z - (params[rule.param]![j] ?? params.cut![0]!)) > bound);
      case "band":
        return pre.every((z, j) => Math.abs(Math.abs(z - params.threshold![j]!) - (hyper.bandwidth ?? 0) / 2) > bound);
      default:
        return among === "dead"
          ? gap(
              pre.filter((_, j) => age[j] > hyper.deadAfter),
              slots,
            )
          : gap(pre.slice(), Math.min(slots, hyper.rowK ?? slots));
    }
  });
}

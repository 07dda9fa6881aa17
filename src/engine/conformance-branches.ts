/**
 * The cases of what follows selection: prefixes (Matryoshka), widths that differ and skip
 * connections (transcoders), thresholds and sparsity losses (JumpReLU). They give each engine the
 * codes, so that nothing depends on how codes are selected.
 */

import type { Prefix, Weights } from "../sae/math.ts";
import { isDead, PENALTIES, type PenaltyKind } from "../sae/math.ts";
import { PARAMS, type ParamName, perParam } from "../sae/params.ts";
import { Rng } from "../util/rng.ts";
import { type Case, within } from "./conformance-case.ts";
import { HYPERS } from "./conformance-draw.ts";
import { type Given, type GivenCodes, GuardedStep, type Setup } from "./conformance-guarded-step.ts";
import { checkSteps } from "./conformance-step.ts";
import { Tally } from "./conformance-tally.ts";
import { type Engine, FULL, type Hyper, NONE, type SelectionPlan } from "./engine.ts";

export interface BranchDraw {
  readonly dIn: number;
  readonly n: number;
  readonly B: number;
  /** Most codes of a row. */
  readonly k: number;
  /** Slots of a row; default: k. */
  readonly slots?: number;
  /** Default: dIn. */
  readonly dOut?: number;
  readonly untied?: boolean;
  readonly skip?: boolean;
  readonly auxk?: number;
  readonly prefixes?: readonly Prefix[];
  /** Of JumpReLU: a band, thresholds and this penalty. */
  readonly penalty?: PenaltyKind;
  /** Latents that all codes are among; default: all. */
  readonly among?: number;
  readonly cut?: boolean;
  readonly ema?: boolean;
  readonly dense?: boolean;
  readonly hyper?: Partial<Hyper>;
  readonly seed?: number;
}

function plan(kind: "topk" | "threshold" | "band", among: SelectionPlan["among"], slots: number): SelectionPlan {
  const rule =
    kind === "topk" ? { kind, k: slots } : kind === "band" ? { kind } : { kind, param: "threshold" as const };
  return { rule, among, slots };
}

export function drawBranches(o: BranchDraw): Setup {
  const { dIn, n, B, k, dOut = dIn, slots = k, auxk = 0, prefixes, penalty } = o;
  const rng = new Rng(o.seed ?? 1, dIn, n, B, k);
  const dims = { dIn, n, dOut, untied: o.untied };
  const numbers = (length: number, scale: number) =>
    Float64Array.from({ length }, () => Math.fround(scale * rng.normal()));
  const names: readonly ParamName[] = [
    ...(["encoder", "latentBias", "decoder", "preBias"] as const),
    ...(penalty === undefined ? [] : (["threshold", "sparsity"] as const)),
    ...(o.cut ? (["cut"] as const) : []),
    ...(o.skip ? (["skip"] as const) : []),
  ];
  const draw = (scale: number, shape: (value: number) => number = (value) => value): Weights =>
    perParam(names, (name) =>
      numbers(
        PARAMS[name].shape(dims).reduce((a, b) => a * b, 1),
        scale,
      ).map((v) => Math.fround(shape(v))),
    );
  const params = draw(0.5);
  for (let start = 0; start < n * dOut; start += dOut) {
    const row = params.decoder.subarray(start, start + dOut);
    const length = Math.hypot(...row) || 1;
    for (let i = 0; i < dOut; i++) row[i] = Math.fround(row[i] / length);
  }
  params.sparsity?.set([1.5, 3]);
  params.cut?.set([0.75]);
  const age = Uint32Array.from({ length: n }, (_, j) => (j % 3 === 0 ? 5000 : rng.below(1000)));
  const hyper = {
    ...{ ...HYPERS, rows: B, bandwidth: 0.5, sparsity: 0.3, tanhScale: 1.5, targetL0: 2.5, gain: 0.1, cutDecay: 0.9 },
    ...{ penalty: PENALTIES.indexOf(penalty ?? "none") },
    ...o.hyper,
  };
  /** Random latents of a random number, in random order. */
  const codes = (most: number, capacity: number, drawValue: (j: number) => number, among: readonly number[]) => {
    const latent = new Float64Array(B * capacity).fill(NONE);
    const value = new Float64Array(B * capacity);
    for (let row = 0; row < B; row++) {
      const shuffled = rng.shuffle(Uint32Array.from(among));
      const used = Math.min(among.length, rng.below(Math.min(most, capacity) + 1));
      for (let i = 0; i < used; i++) {
        latent[row * capacity + i] = shuffled[i]!;
        value[row * capacity + i] = Math.fround(drawValue(shuffled[i]!));
      }
    }
    return { latent, value };
  };
  const all = Array.from({ length: Math.min(n, o.among ?? n) }, (_, j) => j);
  const positive = () => 0.01 + Math.abs(rng.normal());
  const live = codes(k, slots, positive, all);
  const given: Given = {
    x: numbers(B * dIn, 1),
    target: o.untied ? numbers(B * dOut, 1) : undefined,
    live,
    dead:
      auxk === 0
        ? undefined
        : codes(
            auxk,
            auxk,
            positive,
            all.filter((j) => isDead(age[j]!, hyper.deadAfter)),
          ),
    band:
      penalty === undefined
        ? undefined
        : codes(k, slots, (j) => params.threshold![j]! + 0.4 * (rng.below(1000) / 1000 - 0.5), all),
    fired: Float64Array.from({ length: n }, () => rng.below(2)),
    cut: Math.fround(0.25),
    active: live.latent.filter((j) => j !== NONE).length,
    deadLatents: age.filter((each) => isDead(each, hyper.deadAfter)).length,
  };
  return {
    dims,
    live: plan(penalty === undefined ? "topk" : "threshold", "all", slots),
    dead: auxk === 0 ? undefined : plan("topk", "dead", auxk),
    band: penalty === undefined ? undefined : plan("band", "all", slots),
    ...{ B, hyper, params, age, prefixes, given },
    m: draw(0.01),
    v: draw(0.01, (value) => value * value),
    ema: o.ema ? draw(0.5) : undefined,
    raw: { dtype: "f32", bytes: new Uint8Array(4 * dIn) },
    rows: new Uint32Array(B),
    dense: o.dense ?? false,
  };
}

/** Each draw as a step from given codes on, on both engines. */
function branches(name: string, draws: () => Iterable<BranchDraw>, steps = 1): Case {
  return {
    name,
    run: async (engine, reference) => {
      const tally = new Tally();
      for (const o of draws()) {
        const setup = drawBranches(o);
        const why = refusal(engine, setup);
        if (why !== undefined) return { skipped: why };
        await within(JSON.stringify(o), () => checkSteps(tally, engine, reference, setup, { steps }));
      }
      return { worst: tally.worst };
    },
  };
}

function refusal(engine: Engine, { dims, live, dead, band }: Setup): string | undefined {
  return engine.refuses(
    dims,
    [live, dead, band].filter((each) => each !== undefined),
  );
}

/** Widths of inputs and outputs, latents, codes, dead codes and rows, around SIMD widths. */
const SHAPES = [
  [1, 1, 1, 1, 0, 1],
  [2, 3, 5, 2, 1, 2],
  [5, 4, 17, 4, 3, 9],
  [15, 17, 40, 8, 5, 16],
  [16, 31, 37, 5, 0, 33],
  [33, 16, 64, 20, 16, 12],
  [64, 65, 129, 12, 30, 40],
  [70, 130, 90, 33, 7, 70],
  [131, 64, 200, 16, 0, 35],
] as const;

function* shaped(rest: (i: number, n: number) => Partial<BranchDraw>, square = false): Generator<BranchDraw> {
  for (const [i, [dIn, dOut, n, k, auxk, B]] of SHAPES.entries())
    yield { ...{ dIn, n, k, auxk, B }, ...(square ? {} : { dOut, untied: true }), ...rest(i, n) };
}

/** Prefixes that end at parts of n; repeated ends are empty planes. */
function prefixesOf(n: number, ...parts: readonly number[]): readonly Prefix[] {
  const inner = parts.map((part, g) => ({ end: Math.floor(part * n), weight: [0.5, 2, 1, 0.25][g % 4]! }));
  return [...inner, { end: n, weight: 1 }];
}

const PARTS = [[0.5], [0.1, 0.5], [0, 0.3, 0.3, 0.9], [0.06, 0.12, 0.25, 0.5], [1, 1]] as const;
const nested = (i: number, n: number) => ({ prefixes: prefixesOf(n, ...PARTS[i % PARTS.length]!) });
const SMALL = { dIn: 13, n: 37, k: 5, auxk: 4, B: 11 } as const;

const MATRYOSHKA: readonly Case[] = [
  branches("matryoshka: sizes around SIMD widths", () => shaped(nested, true)),
  branches("matryoshka: the same with dense gradients", () =>
    shaped((i, n) => ({ ...nested(i + 1, n), dense: true, seed: 2 }), true),
  ),
  branches("matryoshka: one prefix is none", () => [{ ...SMALL, prefixes: prefixesOf(SMALL.n) }]),
  branches("matryoshka: no code in a row, none at all, slots that are never used", () => [
    { ...SMALL, k: 1, slots: 9, prefixes: prefixesOf(SMALL.n, 0.2, 0.6) },
    { ...SMALL, k: 0, slots: 3, prefixes: prefixesOf(SMALL.n, 0.2, 0.6) },
  ]),
  branches("matryoshka: few latents in many rows", () =>
    [false, true].map((dense) => ({
      dIn: 17,
      n: 40,
      k: 4,
      auxk: 3,
      B: 1500,
      dense,
      prefixes: prefixesOf(40, 0.05, 0.2),
      among: 12,
    })),
  ),
  branches(
    "matryoshka: several steps",
    () => [{ ...SMALL, prefixes: prefixesOf(SMALL.n, 0.2, 0.6), ema: true, hyper: { clip: 0.5, emaDecay: 0.9 } }],
    4,
  ),
];

const TRANSCODERS: readonly Case[] = [
  branches("transcoder: sizes around SIMD widths", () => shaped(() => ({}))),
  branches("transcoder: with a skip connection", () => shaped((i) => ({ skip: true, dense: i % 2 === 0, seed: 3 }))),
  branches("transcoder: skip connection and prefixes", () =>
    shaped((i, n) => ({ skip: true, ...nested(i, n), dense: i % 2 === 1 })),
  ),
  branches("transcoder: more rows than are summed at a time", () => [
    { dIn: 9, dOut: 50, untied: true, skip: true, n: 30, k: 3, auxk: 2, B: 2100 },
  ]),
  branches("transcoder: few latents in many rows", () =>
    [false, true].map((dense) => ({
      ...{ dIn: 21, dOut: 10, untied: true, n: 40, k: 4, auxk: 3, B: 1500, dense, among: 9 },
    })),
  ),
  branches(
    "transcoder: several steps",
    () => [
      {
        ...{ ...SMALL, dOut: 20, untied: true, skip: true, ema: true, hyper: { clip: 0.5, emaDecay: 0.9 } },
      },
    ],
    4,
  ),
];

const JUMP: readonly Case[] = [
  ...PENALTIES.map((penalty) =>
    branches(`jumprelu: penalty ${penalty}, sizes around SIMD widths`, () =>
      shaped((i) => ({ penalty, dense: i % 2 === 1, hyper: { deadPenalty: i % 3 === 2 ? 0 : 0.2 } }), true),
    ),
  ),
  branches("jumprelu: no dead penalty, and one without codes", () => [
    { ...SMALL, penalty: "tanh" },
    { ...SMALL, penalty: "tanh", k: 0, slots: 2, hyper: { deadPenalty: 0.3 } },
    { ...SMALL, penalty: "tanh", k: 0, slots: 2, hyper: { deadPenalty: 0.3 }, dense: true },
  ]),
  branches("jumprelu: many rows", () =>
    [false, true].map((dense) => ({
      ...{ dIn: 17, n: 40, k: 4, auxk: 3, B: 1500, dense, among: 12, penalty: "tanh" as const },
      hyper: { deadPenalty: 0.1 },
    })),
  ),
  branches("jumprelu: a transcoder with prefixes", () =>
    shaped((i, n) => ({
      ...{ penalty: "tanh", skip: i % 2 === 0, ...nested(i, n), dense: i % 3 === 1 },
      hyper: { deadPenalty: 0.2, clip: 1 },
    })),
  ),
  branches(
    "jumprelu: several steps",
    () =>
      (["tanh", "quadratic"] as const).map((penalty) => ({
        ...{ ...SMALL, penalty, ema: true, hyper: { clip: 0.5, emaDecay: 0.9, deadPenalty: 0.1, gain: 2 } },
      })),
    6,
  ),
];

const UPDATES: readonly Case[] = [
  branches("unit rows off: no projection, lengths stay", () =>
    [true, false].flatMap((dense) =>
      [0, 0.5].map((clip) => ({ ...SMALL, dense, ema: true, hyper: { unitRows: 0, clip, emaDecay: 0.5 } })),
    ),
  ),
  branches(
    "cut: a running mean, copied to the average, left where nothing was kept",
    () => [
      { ...SMALL, cut: true, ema: true, hyper: { emaDecay: 0.9 } },
      { ...SMALL, cut: true, ema: true, hyper: { emaDecay: 0, cutDecay: 0 } },
      { ...SMALL, cut: true, hyper: { cutDecay: 1 } },
    ],
    3,
  ),
  branches(
    "controller: up, down, at its limit, off",
    () =>
      [
        { targetL0: 0.1, gain: 1 },
        { targetL0: 30, gain: 1 },
        { targetL0: 2, gain: 1e-4 },
        { targetL0: 2, gain: 0 },
      ].map((hyper) => ({ ...SMALL, penalty: "step" as const, ema: true, hyper: { ...hyper, emaDecay: 0.9 } })),
    3,
  ),
];

/** The same codes in more slots, and operations together or one by one: the same bits. */
const SAME_BITS: Case = {
  name: "branches: the same bits with more slots, and in one pass",
  run: async (engine) => {
    const rest = { ema: true, hyper: { clip: 1, deadPenalty: 0.1, emaDecay: 0.9 } };
    const draws: readonly BranchDraw[] = [
      { ...SMALL, ...nested(3, SMALL.n), ...rest },
      { dIn: 64, dOut: 33, untied: true, skip: true, n: 90, k: 12, auxk: 9, B: 130, ...nested(1, 90), ...rest },
      { dIn: 65, n: 90, k: 12, auxk: 9, B: 130, penalty: "tanh", ...rest },
      { dIn: 64, dOut: 64, untied: true, skip: true, n: 30, k: 25, auxk: 9, B: 130, ...rest },
    ];
    for (const o of draws) {
      const setup = drawBranches(o);
      const why = refusal(engine, setup);
      if (why !== undefined) return { skipped: why };
      const roomy = await GuardedStep.create(engine, withSlots(setup, 3 * o.k + 1));
      const [apart, together] = [await GuardedStep.create(engine, setup), await GuardedStep.create(engine, setup)];
      await apart.whole();
      await together.whole(true);
      await roomy.whole(true);
      for (const name of apart.names) {
        new Tally().same(`${name}, in one pass`, together.get(name), apart.get(name));
        if (!/^(live|band)\.(latent|value|grad)$/.test(name))
          new Tally().same(`${name}, with more slots`, roomy.get(name), apart.get(name));
      }
      for (const step of [apart, together, roomy]) step.free();
    }
    return { worst: 0 };
  },
};

function withSlots(setup: Setup, slots: number): Setup {
  const { B, live, band, given } = setup;
  const wider = (codes: GivenCodes, from: number): GivenCodes => {
    const latent = new Float64Array(B * slots).fill(NONE);
    const value = new Float64Array(B * slots);
    for (let row = 0; row < B; row++) {
      latent.set(codes.latent.subarray(row * from, (row + 1) * from), row * slots);
      value.set(codes.value.subarray(row * from, (row + 1) * from), row * slots);
    }
    return { latent, value };
  };
  return {
    ...setup,
    live: { ...live, slots },
    band: band && { ...band, slots },
    given: {
      ...given!,
      live: wider(given!.live, live.slots),
      band: given!.band && wider(given!.band, band!.slots),
    },
  };
}

/** A number that is not finite or too large, in one tensor: some operation must mark the step. */
function badStep(what: string, o: BranchDraw, name: string, value: number): Case {
  return {
    name: `bad step: ${what}`,
    run: async (engine) => {
      if (engine.real === "f64" && Number.isFinite(value))
        return { skipped: "float64 holds what overflows in float32" };
      const setup = drawBranches(o);
      const why = refusal(engine, setup);
      if (why !== undefined) return { skipped: why };
      const guarded = await GuardedStep.create(engine, setup);
      await guarded.set(name, guarded.get(name).fill(value));
      await guarded.whole();
      new Tally().same("bad", guarded.get("bad"), [1]);
      new Tally().same("counters", guarded.get("counters"), [0, 0, 1]);
      guarded.free();
      return { worst: 0 };
    },
  };
}

const BAD: readonly Case[] = [
  badStep("NaN in a skip connection", { ...SMALL, dOut: 9, untied: true, skip: true }, "skip", Number.NaN),
  badStep("a skip connection beyond float32", { ...SMALL, dOut: 9, untied: true, skip: true }, "skip", 3e38),
  badStep("NaN in the thresholds", { ...SMALL, penalty: "step" }, "threshold", Number.NaN),
  badStep("thresholds whose gradient is beyond float32", { ...SMALL, penalty: "step" }, "threshold", 1e30),
  badStep("a multiplier that is not finite", { ...SMALL, penalty: "tanh" }, "sparsity", Number.NaN),
  {
    name: "full: the update changes nothing, not even the counters",
    run: async (engine) => {
      const setup = drawBranches({ ...SMALL, ema: true, cut: true, hyper: { emaDecay: 0.9 } });
      const guarded = await GuardedStep.create(engine, setup);
      await guarded.whole();
      for (const bad of [FULL, FULL + 1]) {
        await guarded.set("bad", [bad]);
        await guarded.update();
      }
      guarded.free();
      return { worst: 0 };
    },
  },
];

export const BRANCH_CASES: readonly Case[] = [SAME_BITS, ...MATRYOSHKA, ...TRANSCODERS, ...JUMP, ...UPDATES, ...BAD];

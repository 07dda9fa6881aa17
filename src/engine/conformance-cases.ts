/**
 * The cases. Whole steps over shapes and states that have broken engines before; then what an
 * operation must do apart from the numbers.
 */

import { CORE_PARAMS } from "../sae/params.ts";
import { bytesOf, uint32Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { BRANCH_CASES } from "./conformance-branches.ts";
import { alone, type Case, EDGES, SMALL, shapes, steps } from "./conformance-case.ts";
import { type Draw, draw } from "./conformance-draw.ts";
import { FUSED } from "./conformance-fused.ts";
import { GuardedStep, type Setup } from "./conformance-guarded-step.ts";
import { COLUMNS, LOADS, NORMALIZED } from "./conformance-rows.ts";
import { SELECTIONS } from "./conformance-selection-cases.ts";
import { Tally } from "./conformance-tally.ts";
import { UPLOAD } from "./conformance-upload.ts";
import { WIDE_CASES } from "./conformance-wide.ts";
import { COUNTERS } from "./engine.ts";

const WHOLE_STEPS: readonly Case[] = [
  steps("skewed lists: one latent on in every one of 1500 rows", () =>
    [true, false].map((dense) => ({
      d: 17,
      n: 40,
      k: 4,
      auxk: 3,
      B: 1500,
      dense,
      bias: (j: number) => (j === 7 ? 12 : j === 9 ? 6 : undefined),
    })),
  ),
  steps("whole steps: sizes around SIMD widths", () => shapes(EDGES)),
  steps("whole steps: the same with dense gradients", () => shapes(EDGES, { dense: true, seed: 2 })),
  steps("whole steps: every width from 1 to 70", () =>
    Array.from({ length: 70 }, (_, i) => ({
      d: i + 1,
      n: 20 + ((i * 7) % 31),
      k: 1 + (i % 6),
      auxk: i % 5,
      B: 1 + (i % 10),
      dense: i % 2 === 0,
    })),
  ),
  steps(
    "whole steps: exact sums, so that ties abound and the lower latent must win",
    () => shapes(EDGES, { exact: true, seed: 3 }),
    {
      exact: true,
    },
  ),
  steps("whole steps: rows in f64", () => shapes(EDGES.slice(4, 8), { raw: "f64" })),
  steps("selection: all latents equal, the lowest win", () => [{ ...SMALL, exact: true, bias: () => 2 }], {
    exact: true,
    prepare: ({ params }) => params.encoder.fill(0),
  }),
  steps("selection: fewer latents above 0 than k", () => [
    { ...SMALL, k: 30, bias: (j) => (j % 9 === 0 ? undefined : -9), auxk: 20 },
  ]),
  steps("selection: none above 0", () => [
    { ...SMALL, bias: () => -40 },
    { ...SMALL, bias: () => -40, dense: true },
  ]),
  steps("dead latents: none, all, fewer than auxk, one", () => [
    { ...SMALL, age: () => 0 },
    { ...SMALL, age: () => 9999 },
    { ...SMALL, auxk: 30, age: (j) => (j % 5 === 0 ? 1001 : 1000) },
    { ...SMALL, age: (j) => (j === 36 ? 0xffff_ffff : 3) },
  ]),
  steps("dead latents: also live in the same step, both gradients add", () => [
    { ...SMALL, auxk: 3, age: (j) => (j < 2 ? 5000 : 0), bias: (j) => (j < 2 ? 9 : undefined), dense: true },
    { ...SMALL, k: 37, auxk: 37, age: () => 5000, dense: true },
  ]),
  steps("dead latents: a threshold above every age", () => [
    { ...SMALL, age: () => 0xffff_ffff, hyper: { deadAfter: 5e9 } },
  ]),
  steps("dead latents: a single row, whose target does not vary", () => [{ ...SMALL, B: 1, dense: true }]),
  steps(
    "update: several steps",
    () => [
      { ...SMALL, dense: true, ema: true, hyper: { emaDecay: 0.9, clip: 1 } },
      { ...SMALL, hyper: { emaDecay: 0.9 } },
    ],
    { steps: 5 },
  ),
  steps("update: clipped, not reached, off", () => [0.01, 1e6, 0].map((clip) => ({ ...SMALL, hyper: { clip } }))),
  steps("update: average on, off, never asked for", () => [
    { ...SMALL, ema: true, hyper: { emaDecay: 0.99 } },
    { ...SMALL, ema: true, hyper: { emaDecay: 0 } },
    { ...SMALL, ema: false, hyper: { emaDecay: 0.99 } },
  ]),
  steps(
    "update: latents that are never on take their step too",
    () => [{ ...SMALL, bias: (j) => (j < 20 ? -50 : undefined), age: () => 0 }],
    { steps: 3 },
  ),
  steps(
    "update: a decoder row of zeros is drawn anew, the same on every engine",
    () =>
      [true, false].map((dense) => ({
        ...SMALL,
        dense,
        bias: (j: number) => (j % 4 === 1 ? -50 : undefined),
        age: () => 0,
      })),
    { steps: 2, prepare: zeroColumns },
  ),
];

/** Rows of latents 1, 5, 9 .. of the decoder, and their moments. */
function zeroColumns({ params, m, v, dims: { dIn: d, n } }: Setup): void {
  for (let j = 1; j < n; j += 4) for (const { decoder } of [params, m, v]) decoder.fill(0, j * d, (j + 1) * d);
}

/**
 * Numbers that are not finite, put into one tensor: some operation up to the norm must mark the
 * step as bad, and the update then only counts it.
 */
function badStep(
  what: string,
  name: string,
  value: number,
  where: readonly number[],
  options: Partial<Draw> = {},
): Case {
  return alone(
    `bad step: ${what}`,
    () => draw({ ...SMALL, ema: true, ...options, hyper: { emaDecay: 0.9, ...options.hyper } }),
    async (guarded, engine) => {
      if (engine.real === "f64" && Number.isFinite(value))
        return { skipped: "float64 holds what overflows in float32" };
      const values = guarded.get(name);
      for (const at of where) values[at] = value;
      await guarded.set(name, values);
      await guarded.whole();
      if (guarded.get("bad")[0] === 0)
        throw new SaettaError(`${name} held ${value}, but the step was not marked as bad`);
      const counters = guarded.get("counters");
      const expected = COUNTERS.map((counter) => (counter === "skipped" ? 1 : 0));
      new Tally().same("counters", counters, expected);
      // The next step is judged anew.
      await guarded.load();
      if (name !== "raw") new Tally().same("bad after the next load", guarded.get("bad"), [0]);
      return undefined;
    },
  );
}

const row = (j: number) => Array.from({ length: SMALL.d }, (_, i) => j * SMALL.d + i);

const BAD_STEPS: readonly Case[] = [
  badStep("NaN in a row", "raw", Number.NaN, [3 * SMALL.d + 12]),
  badStep("infinity in a row", "raw", Number.NEGATIVE_INFINITY, [SMALL.d]),
  badStep("NaN in a row that is normalised", "raw", Number.NaN, [3 * SMALL.d + 12], {
    normalization: { kind: "unit", factor: 1 },
  }),
  badStep("infinity in a row that is normalised", "raw", Number.POSITIVE_INFINITY, [SMALL.d + 5], {
    normalization: { kind: "layer_norm", factor: 1 },
  }),
  badStep("NaN in the encoder, in a latent that is never selected", "encoder", Number.NaN, [36 * SMALL.d]),
  badStep("a bias of -infinity", "latentBias", Number.NEGATIVE_INFINITY, [36]),
  badStep("a bias of infinity", "latentBias", Number.POSITIVE_INFINITY, [17]),
  badStep("NaN in preBias", "preBias", Number.NaN, [0]),
  badStep("NaN in the decoder", "decoder", Number.NaN, row(2), { bias: (j) => (j === 2 ? 20 : undefined) }),
  badStep("a pre-activation beyond float32", "encoder", 3e38, row(5)),
  badStep("a reconstruction beyond float32", "decoder", 3e38, row(2), { bias: (j) => (j === 2 ? 20 : undefined) }),
  badStep("a gradient of the codes beyond float32", "decoder", 1e37, row(2), {
    bias: (j) => (j === 2 ? 20 : undefined),
  }),
];

const APART: readonly Case[] = [
  alone(
    "load: a row beyond float32 once it is scaled is bad",
    () => draw({ ...SMALL, normalization: { kind: "scale", factor: 2 } }),
    async (guarded, engine) => {
      if (engine.real === "f64") return { skipped: "float64 holds what overflows in float32" };
      await guarded.set("raw", guarded.get("raw").fill(3e38, SMALL.d + 4, SMALL.d + 5));
      await guarded.load();
      new Tally().same("bad", guarded.get("bad"), [1]);
      return undefined;
    },
  ),
  alone(
    "bad step: any mark is enough to change nothing but the counters",
    () => draw({ ...SMALL, ema: true, hyper: { emaDecay: 0.9 } }),
    async (guarded) => {
      await guarded.whole();
      await guarded.set("bad", [2]);
      await guarded.update();
      new Tally().same("counters", guarded.get("counters"), [1, 1, 1]);
      return undefined;
    },
  ),
  alone(
    "ages: saturate, and are 0 after a firing",
    () => draw({ ...SMALL, age: (j) => 0xffff_ffff - (j % 15) }),
    async (guarded) => {
      await guarded.whole();
      const fired = guarded.get("fired");
      const expected = Array.from(fired, (f, j) => (f ? 0 : Math.min(0xffff_ffff - (j % 15) + SMALL.B, 0xffff_ffff)));
      if (!fired.includes(1) || !fired.includes(0)) throw new SaettaError("the case is badly drawn");
      new Tally().same("age", guarded.get("age"), expected);
      return undefined;
    },
  ),
  alone(
    "fired: only above the threshold",
    () => draw({ ...SMALL, exact: true, hyper: { firedAbove: 2 }, age: () => 0 }),
    async (guarded) => {
      await guarded.load();
      await guarded.encode();
      const [latent, value] = [guarded.get("live.latent"), guarded.get("live.value")];
      const expected = new Float64Array(SMALL.n);
      latent.forEach((j, slot) => {
        if (value[slot] > 2) expected[j] = 1;
      });
      if (!value.some((v) => v > 0 && v <= 2)) throw new SaettaError("the case is badly drawn");
      new Tally().same("fired", guarded.get("fired"), expected);
      return undefined;
    },
  ),
  {
    name: "memory: zero-filled, written at an offset, read back as of the call",
    run: async (engine) => {
      const tensor = engine.alloc("u32", [5]);
      const before = engine.read(tensor);
      engine.write(tensor, bytesOf(Uint32Array.of(3, 4)), 8);
      const bytes = bytesOf(Uint32Array.of(7));
      engine.write(tensor, bytes);
      bytes.fill(0xff);
      new Tally().same("as allocated", uint32Of(await before), [0, 0, 0, 0, 0]);
      new Tally().same("as written", uint32Of(await engine.read(tensor)), [7, 0, 3, 4, 0]);
      engine.free(tensor);
      return { worst: 0 };
    },
  },
];

const SAME_BITS: Case = {
  name: "the same step twice gives the same bits",
  run: async (engine) => {
    for (const o of [
      SMALL,
      { ...SMALL, d: 65, n: 129, B: 100, dense: true },
      { d: 17, n: 40, k: 4, auxk: 3, B: 1500, bias: () => 3 },
    ]) {
      const [a, b] = [await GuardedStep.create(engine, draw(o)), await GuardedStep.create(engine, draw(o))];
      await a.whole();
      await b.whole();
      for (const name of a.names) new Tally().same(name, b.get(name), a.get(name));
      a.free();
      b.free();
    }
    return { worst: 0 };
  },
};

const DENSE_OR_NOT: Case = {
  name: "update: with and without dense gradients",
  run: async (engine) => {
    const tally = new Tally();
    const setup = draw({ ...SMALL, B: 40, hyper: { clip: 0.5 } });
    const [lazy, dense] = [
      await GuardedStep.create(engine, setup, false),
      await GuardedStep.create(engine, setup, true),
    ];
    await lazy.whole();
    await dense.whole();
    const eps = engine.real === "f32" ? 2 ** -24 : 2 ** -53;
    for (const name of CORE_PARAMS) {
      const [a, b] = [lazy.get(`m.${name}`), dense.get(`m.${name}`)];
      const largest = b.reduce((high, value) => Math.max(high, Math.abs(value)), 0);
      tally.compare(`m.${name}`, a, b, () => 64 * eps * largest);
    }
    lazy.free();
    dense.free();
    return { worst: tally.worst };
  },
};

export const CASES: readonly Case[] = [
  SAME_BITS,
  FUSED,
  UPLOAD,
  ...BRANCH_CASES,
  ...WIDE_CASES,
  ...LOADS,
  ...COLUMNS,
  ...NORMALIZED,
  ...SELECTIONS,
  ...WHOLE_STEPS,
  DENSE_OR_NOT,
  ...BAD_STEPS,
  ...APART,
];

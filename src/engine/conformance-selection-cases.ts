/**
 * The cases of selection rules other than the plain top k: what they select, what becomes of rows
 * that need more slots than there are, and that nothing depends on how many there are.
 */

import { SaettaError } from "../util/errors.ts";
import { alone, type Case, EDGES, SMALL, shapes, steps, within } from "./conformance-case.ts";
import { type Draw, draw, selectionsOf } from "./conformance-draw.ts";
import { GuardedStep } from "./conformance-guarded-step.ts";
import { Tally } from "./conformance-tally.ts";
import { FULL, NONE } from "./engine.ts";

const BATCH = { rule: "batchtopk" } as const;
const CUT = { rule: "cut" } as const;
const JUMP = { rule: "threshold" } as const;

/** `draw` with a slot of a band for each latent. */
const withBand = (o: Draw, bandwidth: number): Draw => ({ ...o, band: o.n, hyper: { ...o.hyper, bandwidth } });

function* banded(draws: Iterable<Draw>, bandwidth: number): Generator<Draw> {
  for (const o of draws) yield withBand(o, bandwidth);
}

const CODES_ONLY = { until: "selection" } as const;
const EXACT = { exact: true, until: "selection" } as const;

const BATCHTOPK: readonly Case[] = [
  steps("batchtopk: sizes around SIMD widths", () => shapes(EDGES, { ...BATCH, seed: 4 }), CODES_ONLY),
  steps(
    "batchtopk: exact sums, so that ties over rows and latents abound",
    () => shapes(EDGES, { ...BATCH, exact: true, seed: 5 }),
    EXACT,
  ),
  steps(
    "batchtopk: a fraction of a latent per row",
    () => [0.1, 0.5, 2.75].map((k) => ({ ...SMALL, ...BATCH, k })),
    CODES_ONLY,
  ),
  steps(
    "batchtopk: none kept, one, one less than there are, more than there are",
    () =>
      [0, 1, SMALL.B * SMALL.n - 1, SMALL.B * SMALL.n, 1e9].map((kept) => ({ ...SMALL, ...BATCH, hyper: { kept } })),
    CODES_ONLY,
  ),
  steps("batchtopk: none above 0", () => [{ ...SMALL, ...BATCH, bias: () => -40 }], CODES_ONLY),
  steps(
    "batchtopk: all values equal, the lower rows win, then the lower latents",
    () =>
      [1, 5, 37, 40, 37 * 11 - 1].map((kept) => ({ ...SMALL, ...BATCH, exact: true, bias: () => 2, hyper: { kept } })),
    { ...EXACT, prepare: ({ params }) => params.encoder.fill(0) },
  ),
  steps("batchtopk: one row has nearly everything", () => [{ ...SMALL, ...BATCH, exact: true, hyper: { kept: 20 } }], {
    ...EXACT,
    prepare: loudRow,
  }),
  steps("batchtopk: two steps", () => [{ ...SMALL, ...BATCH, auxk: 3 }], { ...CODES_ONLY, steps: 2 }),
  steps("batchtopk: many rows", () => [{ d: 17, n: 40, k: 3.5, auxk: 3, B: 1500, ...BATCH }], CODES_ONLY),
  steps(
    "batchtopk: a row that has all its slots after the cut is full, but not where they are all latents",
    () =>
      [1, 2, 4, SMALL.n].flatMap((slots) =>
        [3, 40, 1e9].map((kept) => ({ ...SMALL, ...BATCH, slots, hyper: { kept } })),
      ),
    CODES_ONLY,
  ),
  steps("batchtopk: whole steps", () => [
    { ...SMALL, ...BATCH, ema: true, hyper: { cutDecay: 0.9, emaDecay: 0.9, clip: 1 } },
    { ...SMALL, ...BATCH, dense: true, slots: 20, hyper: { cutDecay: 0.5 } },
    { ...SMALL, ...BATCH, hyper: { kept: 0, cutDecay: 0.5 } },
    { d: 65, n: 129, k: 9, auxk: 31, B: 40, ...BATCH, hyper: { cutDecay: 0.99 } },
  ]),
];

/** Of itself, without the reference: as many codes as were asked for, the highest of the batch. */
const EXACTLY_KEPT: readonly Case[] = [0, 1, 30, 200, 1e9].map((kept) =>
  alone(
    `batchtopk: the ${kept} highest of the batch, or all that are above 0`,
    () => draw({ ...SMALL, ...BATCH, exact: true, hyper: { kept } }),
    async (guarded) => {
      await guarded.load();
      await guarded.encode();
      const before = guarded.get("live.value").filter((value) => value > 0);
      await guarded.reconcile("live");
      const highest = before.sort().reverse().slice(0, kept);
      const values = guarded.get("live.value").filter((value) => value > 0);
      new Tally().same("values", values.sort().reverse(), highest);
      new Tally().same("cut", guarded.get("cut of the step"), [highest.at(-1) ?? 0]);
      return undefined;
    },
  ),
);

/** Row 2 of raw, which is some row of the batch, is far from all others. */
function loudRow({ raw, dims: { dIn } }: ReturnType<typeof draw>): void {
  new Float32Array(raw.bytes.buffer, raw.bytes.byteOffset).fill(60, 2 * dIn, 3 * dIn);
}

const THRESHOLDS: readonly Case[] = [
  ...(
    [
      ["threshold", JUMP],
      ["cut", CUT],
    ] as const
  ).flatMap(([name, rule]) => [
    steps(`${name}: sizes around SIMD widths`, () => shapes(EDGES, { ...rule, seed: 6 }), CODES_ONLY),
    steps(
      `${name}: exact sums: a value at its threshold is off`,
      () => shapes(EDGES, { ...rule, exact: true, seed: 7 }),
      EXACT,
    ),
    steps(
      `${name}: below 0, which is off all the same, at 0, above everything`,
      () => [-9, 0, 99].map((threshold) => ({ ...SMALL, ...rule, threshold: () => threshold })),
      CODES_ONLY,
    ),
    steps(
      `${name}: a row that needs one slot more than there are is full`,
      () => [SMALL.n - 1, SMALL.n].map((slots) => ({ ...SMALL, ...rule, slots, bias: () => 40, threshold: () => 1 })),
      CODES_ONLY,
    ),
    steps(
      `${name}: one slot`,
      () => [
        { ...SMALL, ...rule, slots: 1, threshold: () => 0.1 },
        { ...SMALL, ...rule, slots: 1, bias: (j: number) => (j === 20 ? 30 : -30), threshold: () => 0.1 },
      ],
      CODES_ONLY,
    ),
    steps(`${name}: many rows`, () => [{ d: 17, n: 40, k: 4, auxk: 3, B: 1500, ...rule }], CODES_ONLY),
    // What the step before has found is not added to.
    steps(`${name}: two steps`, () => [{ ...SMALL, ...rule, auxk: 3 }], { ...CODES_ONLY, steps: 2 }),
  ]),
];

const BAND: readonly Case[] = [
  steps("band: sizes around SIMD widths", () => banded(shapes(EDGES, { ...JUMP, seed: 8 }), 0.7), CODES_ONLY),
  steps(
    "band: exact sums: a value at the edge is outside",
    () => banded(shapes(EDGES, { ...JUMP, exact: true, seed: 9 }), 0.5),
    EXACT,
  ),
  steps(
    "band: around 0, below it, narrower than anything, wider than everything",
    () => [
      withBand({ ...SMALL, ...JUMP, threshold: () => 0.001 }, 0.5),
      withBand({ ...SMALL, ...JUMP, threshold: () => -0.8 }, 0.5),
      withBand({ ...SMALL, ...JUMP }, 0),
      withBand({ ...SMALL, ...JUMP }, 1e-12),
      withBand({ ...SMALL, ...JUMP }, 99),
    ],
    CODES_ONLY,
  ),
  steps(
    "band: a row that needs more slots is full, whatever fits the live codes",
    () => [3, SMALL.n - 1].map((band) => ({ ...withBand({ ...SMALL, ...JUMP }, 99), band })),
    CODES_ONLY,
  ),
];

const TOPK: readonly Case[] = [
  steps(
    "topk: fewer per row than there are slots",
    () => [1, 3, 30].map((rowK) => ({ ...SMALL, k: 30, auxk: 20, hyper: { rowK } })),
    CODES_ONLY,
  ),
  steps(
    "topk: fewer per row than there are slots, exact sums",
    () => shapes(EDGES, { exact: true, seed: 10, hyper: { rowK: 3 } }),
    EXACT,
  ),
];

/** A row of SMALL has more than two latents above 0. */
const FULL_DRAWS: readonly Draw[] = [
  { ...SMALL, ...BATCH, slots: 2, ema: true, hyper: { kept: 1e6, emaDecay: 0.9 } },
  { ...SMALL, ...CUT, slots: 2, threshold: () => 0, ema: true, hyper: { emaDecay: 0.9 } },
  { ...SMALL, ...JUMP, slots: 2, threshold: () => 0, ema: true, hyper: { emaDecay: 0.9 } },
  { ...withBand({ ...SMALL, ...JUMP, ema: true }, 99), band: 2 },
];

const FULLS: readonly Case[] = FULL_DRAWS.map((o) =>
  alone(
    `full: load and update change nothing, ${o.rule}${o.band ? " and band" : ""}`,
    () => draw(o),
    async (guarded) => {
      await guarded.load();
      await guarded.set("bad", [1]);
      await guarded.select();
      new Tally().same("bad, where a row needed more slots than there are", guarded.get("bad"), [FULL | 1]);
      // What is not finite besides does not count the step as skipped.
      await guarded.afterSelection();
      await guarded.load();
      await guarded.set("bad", [0]);
      await guarded.load();
      return undefined;
    },
  ),
);

/** The pairs of each row that are on. */
function pairsOf(guarded: GuardedStep, name: string, slots: number): string {
  const [latent, value] = [guarded.get(`${name}.latent`), guarded.get(`${name}.value`)];
  const rows = Array.from({ length: latent.length / slots }, (_, row) =>
    Array.from({ length: slots }, (_, i) => row * slots + i)
      .filter((slot) => latent[slot] !== NONE)
      .map((slot) => [latent[slot], value[slot]]),
  );
  return JSON.stringify(rows);
}

const ANY_CAPACITY: readonly Case[] = [
  { ...SMALL, ...BATCH, k: 2 },
  { ...SMALL, ...CUT, threshold: () => 0.5 },
  { ...withBand({ ...SMALL, ...JUMP, threshold: () => 0.8 }, 0.3) },
  { d: 24, n: 400, k: 5, auxk: 30, B: 50, ...BATCH },
  { ...SMALL, k: 20, hyper: { rowK: 4 } },
].map((o: Draw) => ({
  name: `capacity: more slots than are needed change nothing, ${o.rule ?? "topk"} of ${o.n}`,
  run: async (engine) => {
    const { n } = o;
    const why = engine.refuses({ dIn: o.d, dOut: o.d, n }, selectionsOf(o));
    if (why !== undefined) return { skipped: why };
    const all = await GuardedStep.create(engine, draw({ ...o, slots: n }));
    await all.load();
    await all.select();
    const most = (name: string) => {
      const latent = all.get(`${name}.latent`);
      const rows = Array.from({ length: o.B }, (_, row) => latent.subarray(row * n, (row + 1) * n));
      return Math.max(1, ...rows.map((row) => row.filter((j) => j !== NONE).length));
    };
    for (const more of [1, 3]) {
      const slots = Math.min(n, most("live") + more);
      const band = o.band && Math.min(n, most("band") + more);
      const fewer = await GuardedStep.create(engine, { ...draw({ ...o, slots: n }), ...plans({ ...o, slots, band }) });
      await fewer.load();
      await fewer.select();
      await within(`${slots} slots`, async () => {
        if (pairsOf(fewer, "live", slots) !== pairsOf(all, "live", n)) throw new SaettaError("other live codes");
        if (band && pairsOf(fewer, "band", band) !== pairsOf(all, "band", n)) throw new SaettaError("other band codes");
        for (const name of ["fired", "sums", "bad", "active", "cut of the step"])
          new Tally().same(name, fewer.get(name), all.get(name));
      });
      fewer.free();
    }
    all.free();
    return { worst: 0 };
  },
}));

/** The plans of a setup in place of those that it was drawn with. */
function plans(o: Draw) {
  const selections = selectionsOf(o);
  return { live: selections[0]!, band: selections.find(({ rule }) => rule.kind === "band") };
}

export const SELECTIONS: readonly Case[] = [
  ...[TOPK, BATCHTOPK, EXACTLY_KEPT, THRESHOLDS, BAND],
  ...[FULLS, ANY_CAPACITY],
].flat();

/**
 * What an engine must do as one rank of a grid: cases that every rank runs at once, each comparing
 * what it gets with what plain loops make of everybody's numbers, which all can draw. Comparisons
 * come last: a rank that stopped before would leave the others waiting. test/grid runs them under
 * Open MPI.
 */

import { type Collective, groupOf, OVERS } from "../collective/collective.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { BYTES, bytesOf, float32Of, float64Of, uint32Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { Rng } from "../util/rng.ts";
import { allocStep, freeStep, writeHyper } from "./allocate.ts";
import { HYPERS } from "./conformance-draw.ts";
import { Tally } from "./conformance-tally.ts";
import { type Codes, type Engine, FULL, NONE, type Over, type ReduceOp, type Tensor } from "./engine.ts";
import { allocNumbers, readNumbers, writeNumbers } from "./numbers.ts";

export interface GridCase {
  readonly name: string;
  readonly run: (engine: Engine, collective: Collective) => Promise<void>;
}

type Numbers = Float64Array | Float32Array | Uint32Array;

/** Whole numbers as the dtype holds them. */
function held(values: readonly number[], dtype: string): Numbers {
  return dtype === "f64"
    ? Float64Array.from(values)
    : dtype === "f32"
      ? Float32Array.from(values)
      : Uint32Array.from(values);
}

async function readHeld(engine: Engine, t: Tensor): Promise<Numbers> {
  const bytes = await engine.read(t);
  return t.dtype === "f64" ? float64Of(bytes) : t.dtype === "f32" ? float32Of(bytes) : uint32Of(bytes);
}

const REDUCE: Readonly<Record<ReduceOp, (a: number, b: number) => number>> = {
  sum: (a, b) => a + b,
  max: Math.max,
  min: Math.min,
};

/** Ranks of the group that `rank` belongs to. */
function members({ grid }: Collective, over: Over): number[] {
  const { shards, replicas, shard, replica } = grid;
  if (over === "shards") return Array.from({ length: shards }, (_, s) => replica * shards + s);
  return over === "replicas"
    ? Array.from({ length: replicas }, (_, r) => r * shards + shard)
    : Array.from({ length: grid.size }, (_, r) => r);
}

/** Small whole numbers: any order of summation gives the same. */
const drawn = (rank: number, seed: number, count: number): number[] => {
  const rng = new Rng(seed, rank, count);
  return Array.from({ length: count }, () => rng.below(1000));
};

const REDUCTIONS: GridCase = {
  name: "allReduce: every type, operation and group, one after the other and many at once",
  run: async (engine, collective) => {
    const tally = new Tally();
    const { rank } = collective.grid;
    const checks: (() => Promise<void>)[] = [];
    let seed = 0;
    for (const count of [1, 700, 5003]) {
      for (const dtype of new Set([engine.real, engine.numbers, "u32"] as const)) {
        for (const over of OVERS) {
          for (const op of ["sum", "max", "min"] as const) {
            const mine = ++seed;
            const t = engine.alloc(dtype, [count]);
            engine.write(t, bytesOf(held(drawn(rank, mine, count), dtype)));
            engine.allReduce(t, op, over);
            const expected = members(collective, over)
              .map((each) => drawn(each, mine, count))
              .reduce((a, b) => a.map((value, i) => REDUCE[op](value, b[i]!)));
            const found = readHeld(engine, t);
            engine.free(t);
            checks.push(async () => tally.same(`${op} of ${count} ${dtype} over ${over}`, await found, expected));
            if (mine % 5 === 0) await found;
          }
        }
      }
    }
    for (const check of checks) await check();
  },
};

const IN_ORDER: GridCase = {
  name: "allReduce: in the order of the operations: what is written after it stands, what was written before it is summed",
  run: async (engine, collective) => {
    const { size } = groupOf(collective.grid, "all");
    const t = allocNumbers(engine, 3);
    const checks: (() => Promise<void>)[] = [];
    const of = (...values: number[]) => bytesOf(held(values, engine.numbers));
    for (let turn = 1; turn <= 20; turn++) {
      engine.write(t, of(turn, turn, turn));
      engine.allReduce(t, "sum", "all");
      const summed = readNumbers(engine, t);
      engine.write(t, of(-turn), BYTES[engine.numbers]);
      engine.allReduce(t, "max", "all");
      const written = readNumbers(engine, t);
      checks.push(async () => {
        new Tally().same(`turn ${turn}`, await summed, [turn * size, turn * size, turn * size]);
        new Tally().same(`turn ${turn}, written after`, await written, [turn * size, -turn, turn * size]);
      });
    }
    engine.free(t);
    for (const check of checks) await check();
  },
};

const SAME_BITS: GridCase = {
  name: "allReduce: the same bits on all ranks, each time",
  run: async (engine, collective) => {
    const rng = new Rng(5, collective.grid.rank);
    const count = 4099;
    const values = Array.from({ length: count }, () => rng.normal() * 2 ** (rng.below(40) - 20));
    const t = allocNumbers(engine, count);
    const sums: string[] = [];
    for (let turn = 0; turn < 3; turn++) {
      writeNumbers(engine, t, values);
      engine.allReduce(t, "sum", "all");
      sums.push(Buffer.from(await engine.read(t)).toString("base64"));
    }
    engine.free(t);
    const all = new Set((await collective.exchange(sums)).flat());
    if (all.size !== 1) throw new SaettaError(`${all.size} different sums`);
  },
};

interface Drawn {
  readonly B: number;
  /** Slots of a shard, and what all shards together keep. */
  readonly slots: number;
  readonly k: number;
  readonly n: number;
  /** Values a row: how many, and from how many different ones they are drawn. */
  readonly most: number;
  readonly kinds: number;
}

/**
 * The codes of one shard: [B][at most slots] pairs, highest first. Values are small multiples of
 * 1/8, so ties abound.
 */
function codesOf(
  shard: number,
  seed: number,
  { B, slots, n, most, kinds }: Drawn,
): { latent: number; value: number }[][] {
  const rng = new Rng(seed, shard);
  return Array.from({ length: B }, () => {
    const on = Math.min(rng.below(most + 1), slots);
    const latents = Array.from(rng.shuffle(Uint32Array.from({ length: n }, (_, j) => j)).subarray(0, on));
    const pairs = latents.map((latent) => ({ latent, value: (1 + rng.below(kinds)) / 8 }));
    return pairs.sort((a, b) => b.value - a.value || a.latent - b.latent);
  });
}

const RECONCILED: readonly Drawn[] = [
  { B: 1, slots: 1, k: 1, n: 4, most: 1, kinds: 3 },
  { B: 40, slots: 4, k: 4, n: 9, most: 4, kinds: 3 },
  { B: 200, slots: 8, k: 8, n: 40, most: 8, kinds: 1000 },
  { B: 65, slots: 5, k: 7, n: 20, most: 5, kinds: 2 }, // a capacity factor: a shard has fewer slots than all keep
  { B: 30, slots: 16, k: 16, n: 16, most: 3, kinds: 9 }, // fewer on than k
  { B: 9, slots: 6, k: 6, n: 12, most: 0, kinds: 9 }, // none on
];

type Pairs = readonly (readonly { readonly latent: number; readonly value: number }[])[];

/** The pairs of each row as codes hold them: latents, values, gradients. */
function spelled(rows: Pairs, slots: number): readonly [number[], number[], number[]] {
  const each = <T>(of: (row: number, slot: number) => T) =>
    Array.from({ length: rows.length * slots }, (_, e) => of(Math.floor(e / slots), e % slots));
  return [
    each((row, slot) => rows[row]![slot]?.latent ?? NONE),
    each((row, slot) => rows[row]![slot]?.value ?? 0),
    each(() => 0),
  ];
}

function writePairs(engine: Engine, z: Codes, rows: Pairs): void {
  const { latent, value, grad } = engine.pairs(z);
  const values = spelled(rows, z.capacity);
  [latent, value, grad].forEach((tensor, i) => {
    engine.write(tensor, bytesOf(held(values[i]!, tensor.dtype)));
  });
}

/** [n], 1 for what the pairs fire. */
function firedBy(rows: Pairs, above: number, n: number): Float64Array {
  const fired = new Float64Array(n);
  for (const { latent, value } of rows.flat()) if (value > above) fired[latent] = 1;
  return fired;
}

const FIRED_ABOVE = 0.25;

const RECONCILE: readonly GridCase[] = RECONCILED.map((draw, i) => ({
  name: `reconcile: ${JSON.stringify(draw)}`,
  run: async (engine, collective) => {
    const { shards, shard, replica } = collective.grid;
    const { B, slots, k, n } = draw;
    const all = Array.from({ length: shards }, (_, s) => codesOf(s, 100 * i + replica, draw));
    const t = allocStep(engine, autoencoderDims(1, n));
    const z = engine.codes(B, slots);
    const { latent, value, grad } = engine.pairs(z);
    const checks: (() => Promise<void>)[] = [];
    for (const [live, rowK] of [
      [true, k + 1],
      [true, Math.ceil(k / 2)],
      [false, 1],
    ] as const) {
      writeHyper(engine, t, { ...HYPERS, firedAbove: FIRED_ABOVE, rowK });
      writePairs(engine, z, all[shard]!);
      engine.write(t.fired, bytesOf(new Uint32Array(n).fill(1)));
      engine.reconcile({ kind: "topk", k }, z, t, live);

      // By value, then the lower shard, then the lower latent.
      const most = shards === 1 ? slots : live ? Math.min(k, rowK) : k;
      const kept = Array.from({ length: B }, (_, row) => {
        const pairs = all.flatMap((codes, s) => codes[row]!.map((pair) => ({ ...pair, s })));
        pairs.sort((a, b) => b.value - a.value || a.s - b.s || a.latent - b.latent);
        return pairs.slice(0, most).filter(({ s }) => s === shard);
      });
      // With one shard the encode before has said what fired.
      const fired = live && shards > 1 ? firedBy(kept, FIRED_ABOVE, n) : new Float64Array(n).fill(1);
      const expected = [...spelled(kept, slots), fired];
      const found = Promise.all([latent, value, grad, t.fired].map((tensor) => readHeld(engine, tensor)));
      checks.push(async () => {
        for (const [i, values] of (await found).entries())
          new Tally().same(["latent", "value", "grad", "fired"][i]!, values, expected[i]!);
      });
    }
    engine.free(z);
    freeStep(engine, t);
    for (const check of checks) await check();
  },
}));

interface DrawnBatch extends Omit<Drawn, "k"> {
  /** Of all ranks. */
  readonly kept: number;
}

/** Later replicas have more rows. */
const CUT: readonly DrawnBatch[] = [
  { B: 1, slots: 1, n: 4, most: 1, kinds: 3, kept: 1 },
  { B: 40, slots: 9, n: 9, most: 9, kinds: 3, kept: 60 },
  { B: 200, slots: 40, n: 40, most: 8, kinds: 1000, kept: 700 },
  { B: 50, slots: 20, n: 20, most: 20, kinds: 1, kept: 333 }, // all equal
  { B: 50, slots: 20, n: 20, most: 20, kinds: 1, kept: 1111 },
  { B: 30, slots: 16, n: 16, most: 3, kinds: 9, kept: 1e6 }, // fewer on than are kept
  { B: 9, slots: 6, n: 12, most: 0, kinds: 9, kept: 5 }, // none on
  { B: 9, slots: 12, n: 12, most: 12, kinds: 9, kept: 0 },
  { B: 25, slots: 3, n: 12, most: 9, kinds: 2, kept: 50 }, // rows that have all their slots are full
];

const CUT_BATCH: readonly GridCase[] = CUT.map((draw, i) => ({
  name: `reconcile by batch: ${JSON.stringify(draw)}`,
  run: async (engine, collective) => {
    const { shards, shard, replica, replicas } = collective.grid;
    const { slots, n, kept } = draw;
    const dims = autoencoderDims(1, n);
    const rule = { kind: "batchtopk", k: 1 } as const;
    if (engine.refuses(dims, [{ rule, among: "all", slots }]) !== undefined) return;
    const all = Array.from({ length: replicas }, (_, r) =>
      Array.from({ length: shards }, (_, s) => codesOf(s, 1000 + 100 * i + r, { ...draw, B: draw.B + 3 * r, k: 1 })),
    );
    const t = allocStep(engine, dims);
    writeHyper(engine, t, { ...HYPERS, firedAbove: FIRED_ABOVE, kept });
    engine.write(t.fired, bytesOf(new Uint32Array(n).fill(1)));
    const z = engine.codes(all[replica]![shard]!.length, slots);
    writePairs(engine, z, all[replica]![shard]!);
    engine.reconcile(rule, z, t, true);

    // By value, then the lower replica, row, shard and latent.
    const pairs = all.flatMap((ofReplica, r) =>
      ofReplica.flatMap((codes, s) => codes.flatMap((row, b) => row.map((pair) => ({ ...pair, r, b, s })))),
    );
    pairs.sort((x, y) => y.value - x.value || x.r - y.r || x.b - y.b || x.s - y.s || x.latent - y.latent);
    const highest = pairs.slice(0, kept);
    const own = all[replica]![shard]!.map((_, row) =>
      highest.filter(({ r, b, s }) => r === replica && b === row && s === shard),
    );
    const { latent, value, grad } = engine.pairs(z);
    const found = Promise.all([latent, value, grad, t.fired, t.cut, t.bad].map((tensor) => readHeld(engine, tensor)));
    const full = slots < n && own.some((row) => row.length === slots);
    const expected = [
      ...spelled(own, slots),
      ...[firedBy(own, FIRED_ABOVE, n), [highest.at(-1)?.value ?? 0], [full ? FULL : 0]],
    ];
    engine.free(z);
    freeStep(engine, t);
    for (const [i, values] of (await found).entries())
      new Tally().same(["latent", "value", "grad", "fired", "cut", "bad"][i]!, values, expected[i]!);
  },
}));

export const GRID_CASES: readonly GridCase[] = [REDUCTIONS, IN_ORDER, SAME_BITS, ...RECONCILE, ...CUT_BATCH];

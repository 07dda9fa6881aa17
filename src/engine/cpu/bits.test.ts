/**
 * The same bits for any number of threads, and for the product in float32 and in bfloat16, over a
 * run that is long enough for a difference of one bit to spread; and the screen of the bf16 product
 * (kernels/encode_bf16.cc) where its bounds are reached or tell nothing apart.
 */

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { dimsOf, newParams, newState, newStep, selectTopk, type TopkSizes } from "../../../test/topk.ts";
import { paramEntries } from "../../sae/params.ts";
import { startParams } from "../../train/state.ts";
import { bytesOf, uint32Of } from "../../util/bytes.ts";
import { Rng } from "../../util/rng.ts";
import { allocStep, writeHyper } from "../allocate.ts";
import { HYPERS } from "../conformance-draw.ts";
import { type Codes, type Engine, NONE, type Params, SUMS } from "../engine.ts";
import { cpuPaths, createCpuEngine, type InstructionSet } from "./index.ts";

// Without a compiler these tests have nothing to run on; conformance.test.ts says so.
const paths = await cpuPaths().catch(() => []);
const wide = paths.filter((path) => path.startsWith("avx512") || path === "amx");
/** Instruction sets that give the same bits; the first has the product in float32. */
const alike = wide.length > 0 ? wide : paths.slice(-1);
const screened = alike.slice(1);

interface Run {
  readonly hash: string;
  /** Of the last step. */
  readonly longest: number;
  readonly dead: number;
  readonly deadSlots: number;
}

/**
 * Weights, moments and average after 200 steps of skewed rows: nineteen of twenty have much in
 * common, so that some latents are on in nearly all, and others die.
 */
async function train(path: InstructionSet, threads: number): Promise<Run> {
  const shape: TopkSizes = { d: 21, n: 193, k: 5, auxk: 9 };
  const [B, rows] = [289, 1000];
  await using engine = await createCpuEngine({ path, threads });
  const state = newState(engine, shape, true);
  startParams(engine, state.params, dimsOf(shape), 1, new Float64Array(shape.d));
  const rng = new Rng(2);
  const common = Float32Array.from({ length: shape.d }, () => rng.normal());
  const raw = engine.alloc("f32", [rows, shape.d]);
  const values = Float32Array.from(
    { length: rows * shape.d },
    (_, i) => rng.normal() + (i % (20 * shape.d) < shape.d ? 0 : 2 * common[i % shape.d]!),
  );
  engine.write(raw, bytesOf(values));
  const step = newStep(engine, shape, B);
  const hyper = { ...HYPERS, clip: 0.5, emaDecay: 0.99, rows: B, deadAfter: 3 * B };
  for (let t = 0; t < 200; t++) {
    step.run(
      state,
      raw,
      Uint32Array.from({ length: B }, (_, b) => (b * 7 + t * 13) % rows),
      hyper,
      true,
    );
  }
  const hash = createHash("sha256");
  for (const group of [state.params, state.m, state.v, state.ema!]) {
    for (const [, , tensor] of paramEntries(group)) hash.update(await engine.read(tensor));
  }
  expect(uint32Of(await engine.read(step.step.bad))[0]).toBe(0);
  const counts = new Uint32Array(shape.n);
  for (const latent of uint32Of(await engine.read(engine.pairs(step.live.codes).latent)))
    if (latent !== NONE) counts[latent]!++;
  const deadLatents = uint32Of(await engine.read(engine.pairs(step.dead!.codes).latent));
  const sums = new Float64Array((await engine.read(step.step.sums)).buffer);
  return {
    hash: hash.digest("hex"),
    longest: Math.max(...counts),
    dead: sums[SUMS.indexOf("dead")]!,
    deadSlots: deadLatents.filter((latent) => latent !== NONE).length,
  };
}

describe.skipIf(paths.length === 0)("200 steps", () => {
  it("have the same bits on 1, 2, 3 and 5 threads, with the product in float32 and in bfloat16", async () => {
    const first = await train(alike[0]!, 1);
    // A list is split where it is longer than 256.
    expect(first.longest).toBeGreaterThan(256);
    expect(first.dead).toBeGreaterThan(10);
    expect(first.deadSlots).toBeGreaterThan(100);
    for (const path of alike) {
      for (const threads of [1, 2, 3, 5])
        expect(await train(path, threads), `${path}, ${threads} threads`).toEqual(first);
    }
  });
});

/** x [B,d], encoder [n,d], latentBias [n]. */
interface Input {
  readonly d: number;
  readonly n: number;
  readonly x: Float32Array;
  readonly encoder: Float32Array;
  readonly latentBias?: Float32Array;
}

const SHAPE = { k: 32, auxk: 64 } as const;

/**
 * Live and dead codes of the input, the bits of latents and values, and whether anything was found
 * bad. `isDead`: which latents are.
 */
async function encode(
  path: InstructionSet,
  { d, n, x, encoder, latentBias }: Input,
  isDead: (j: number) => boolean,
): Promise<Uint32Array[]> {
  await using engine = await createCpuEngine({ path, threads: 2 });
  const B = x.length / d;
  const p: Params = newParams(engine, { d, n });
  engine.write(p.encoder, bytesOf(encoder));
  if (latentBias !== undefined) engine.write(p.latentBias, bytesOf(latentBias));
  const rows = engine.alloc("f32", [B, d]);
  engine.write(rows, bytesOf(x));
  const age = engine.alloc("u32", [n]);
  engine.write(age, bytesOf(Uint32Array.from({ length: n }, (_, j) => (isDead(j) ? 2 * HYPERS.deadAfter : 0))));
  const t = allocStep(engine, dimsOf({ d, n }));
  writeHyper(engine, t, { ...HYPERS, rows: B });
  const [live, dead] = [engine.codes(B, SHAPE.k), engine.codes(B, SHAPE.auxk)];
  engine.encode(p, rows, t, selectTopk(SHAPE, live, dead), age);
  return Promise.all([
    ...(await bitsOf(engine, live)),
    ...(await bitsOf(engine, dead)),
    uint32Of(await engine.read(t.bad)),
  ]);
}

async function bitsOf(engine: Engine, codes: Codes): Promise<Uint32Array[]> {
  const { latent, value } = engine.pairs(codes);
  return [uint32Of(await engine.read(latent)), uint32Of(await engine.read(value))];
}

const ODD_ROWS = 19;

/** Rows of all sizes, one of zeros, one with a single element. */
function someRows(d: number, scale: number): Float32Array {
  const rng = new Rng(3, d);
  const x = Float32Array.from({ length: ODD_ROWS * d }, (_, i) => scale * (i < d ? 1 : rng.normal()));
  x.fill(0, 5 * d, 7 * d);
  x[6 * d + 3] = scale;
  return x;
}

/**
 * Each latent is `row` times what `factor` says, so that a row of x is ordered as the factors are.
 */
function multiples(n: number, d: number, factor: (j: number) => number): Input {
  const rng = new Rng(4, n, d);
  const row = Float32Array.from({ length: d }, () => rng.normal());
  const encoder = Float32Array.from({ length: n * d }, (_, i) => row[i % d]! * factor(Math.floor(i / d)));
  return { d, n, x: someRows(d, 1), encoder };
}

/** Half an ulp of bfloat16 between 1 and 2. */
const HALF = 2 ** -8;

/**
 * The encoder's rounding at its bound: 40 latents are rounded down everywhere, by just under HALF.
 * The 100 others are smaller, by a twentieth of that in the mean, but rounded up everywhere. With x
 * all ones the screen is off by all that Cauchy-Schwarz allows.
 */
function encoderAtItsBound(first: boolean): Input {
  const [d, n] = [1000, 140];
  const isTop = (j: number) => (first ? j < 40 : j >= 100);
  const element = (j: number, i: number) => 1.5 + HALF * (isTop(j) ? 0.999 : i % 20 === 0 ? -0.999 : 1.001);
  const encoder = Float32Array.from({ length: n * d }, (_, at) => element(Math.floor(at / d), at % d));
  return { d, n, x: new Float32Array(3 * d).fill(1), encoder };
}

/**
 * The rows' rounding at its bound: it is a multiple of the 40 highest latents, and of the opposite
 * of the 100 others but for five elements.
 */
function rowsAtTheirBound(first: boolean): Input {
  const [d, n] = [2048, 140];
  const isTop = (j: number) => (first ? j < 40 : j >= 100);
  const sign = (i: number) => (i % 2 === 0 ? 1 : -1);
  const element = (j: number, i: number) =>
    isTop(j) ? sign(i) : i % 2 === 0 && (i < 8 || i === 8 + 2 * j) ? 1 : -sign(i);
  const encoder = Float32Array.from({ length: n * d }, (_, at) => element(Math.floor(at / d), at % d));
  return { d, n, x: Float32Array.from({ length: 3 * d }, (_, at) => 1.5 + sign(at % d) * 0.999 * HALF), encoder };
}

const inputs: Readonly<Record<string, () => Input>> = {
  "equal up to 1e-4": () => {
    const rng = new Rng(5);
    return multiples(4096, 77, () => 1 + 1e-4 * rng.uniform());
  },
  "all equal": () => multiples(4096, 77, () => 1),
  "all equal but one": () => multiples(4096, 77, (j) => (j === 4001 ? 1.0001 : 1)),
  "all equal but the last, lower": () => multiples(4096, 77, (j) => (j === 4095 ? 0.9999 : 1)),
  "an ulp of bfloat16 apart, rising": () => multiples(4096, 77, (j) => 1 + (j % 512) * HALF),
  "an ulp of bfloat16 apart, falling": () => multiples(4096, 77, (j) => 1 - j * HALF * HALF),
  "only biases": () => ({
    ...multiples(4096, 8, () => 0),
    latentBias: Float32Array.from({ length: 4096 }, (_, j) => 1 + (j % 97) * 2 ** -23),
  }),
  "biases far above the products": () => {
    const rng = new Rng(6);
    return {
      ...multiples(4096, 77, () => 1e-5 * rng.normal()),
      latentBias: Float32Array.from({ length: 4096 }, () => 100 + 1e-4 * rng.normal()),
    };
  },
  tiny: () => ({ ...multiples(4096, 33, (j) => 1e-25 * (1 + (j % 50) * 1e-3)), x: someRows(33, 1e-8) }),
  "so small that products vanish": () => ({
    ...multiples(4096, 33, (j) => 1e-25 * (1 + (j % 50) * 1e-3)),
    x: someRows(33, 1e-15),
  }),
  huge: () => ({ ...multiples(4096, 33, (j) => 1e15 * (1 + (j % 50) * 1e-3)), x: someRows(33, 1e15) }),
  "of all magnitudes": () => {
    const rng = new Rng(7);
    const encoder = Float32Array.from({ length: 4096 * 65 }, () => rng.normal() * 10 ** (40 * rng.uniform() - 25));
    return { d: 65, n: 4096, x: someRows(65, 1e-3), encoder };
  },
  cancelling: () => {
    const rng = new Rng(8);
    const encoder = Float32Array.from({ length: 4096 * 64 }, (_, i) => (i % 2 === 0 ? 1000 : -1000) + rng.normal());
    return {
      d: 64,
      n: 4096,
      x: new Float32Array(ODD_ROWS * 64).fill(1).map((one, i) => one + (i < 640 ? 0 : 0.01 * rng.normal())),
      encoder,
    };
  },
  // Of 1101 inputs a stretch of latents that stays in the cache holds a few hundred: the dead take
  // several, and an odd end.
  "of more rows than a cache holds": () => {
    const rng = new Rng(9);
    const encoder = Float32Array.from({ length: 1400 * 1101 }, () => rng.normal());
    return { d: 1101, n: 1400, x: someRows(1101, 1), encoder };
  },
  "the encoder's rounding at its bound, the highest first": () => encoderAtItsBound(true),
  "the encoder's rounding at its bound, the highest last": () => encoderAtItsBound(false),
  "the rows' rounding at its bound, the highest first": () => rowsAtTheirBound(true),
  "the rows' rounding at its bound, the highest last": () => rowsAtTheirBound(false),
};

describe.skipIf(screened.length === 0)(
  "the screen in bfloat16 gives the codes of float32, bit for bit, with latents",
  () => {
    it.each(Object.keys(inputs))("%s", async (name) => {
      const input = inputs[name]!();
      for (const isDead of [() => true, (j: number) => j % 3 === 0]) {
        const exact = await encode(alike[0]!, input, isDead);
        for (const path of screened) expect(await encode(path, input, isDead), path).toEqual(exact);
      }
    });
  },
);

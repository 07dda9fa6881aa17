/**
 * What the cuda engine must show as a whole, apart from the conformance cases: run on a card by
 * gpu.test.ts or run.ts, and over the stand-in of test/cuda by host.test.ts. A check throws when it
 * fails, and returns what it found in words.
 */

import { createHash } from "node:crypto";
import type { CudaOptions } from "../../src/engine/cuda/index.ts";
import {
  COUNTERS,
  type DType,
  type Engine,
  type Hyper,
  type State,
  SUMS,
  type Tensor,
} from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { CORE_PARAMS } from "../../src/sae/params.ts";
import type { createTrainStep } from "../../src/train/step.ts";
import { BYTES, bytesOf, float32Of, float64Of } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { newParams, newStep, type TopkSizes } from "../topk.ts";

export type Make = (options: CudaOptions) => Promise<Engine>;

export interface Check {
  readonly name: string;
  readonly run: (make: Make, dtype: NonNullable<CudaOptions["dtype"]>) => Promise<string>;
}

const HYPER: Hyper = {
  lr: 1e-3,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  clip: 0,
  emaDecay: 0,
  mseScale: 1,
  auxCoef: 1 / 32,
  rows: 0,
  deadAfter: 2000,
  firedAbove: 0,
};

interface Run {
  readonly shape: TopkSizes;
  readonly B: number;
  readonly steps: number;
  readonly hyper: Hyper;
  /** Rows [m,d] that batches are taken from. */
  readonly rows: Float32Array;
  readonly ema: boolean;
  /** latentBias to begin with. */
  readonly bias: (j: number) => number;
  /** Ages to begin with. */
  readonly ages: (j: number) => number;
  /** Whether the norm of this step is asked for. */
  readonly norm: (step: number) => boolean;
  /** State is read, as a checkpoint does, after this many steps. */
  readonly saveAt?: number;
}

/**
 * Rows made of a few directions each, one of which is in half of them, so that a latent is on in
 * many.
 */
function rowsOf(d: number, m: number, seed: number): Float32Array {
  const rng = new Rng(seed, 1);
  const directions = Array.from({ length: 4 * d }, () =>
    Float64Array.from({ length: d }, () => rng.normal() / Math.sqrt(d)),
  );
  const rows = new Float32Array(m * d);
  for (let row = 0; row < m; row++) {
    const parts = [...Array.from({ length: 4 }, () => rng.below(directions.length)), ...(row % 2 === 0 ? [0] : [])];
    for (const part of parts) {
      const size = 1 + rng.below(1000) / 500;
      for (let i = 0; i < d; i++) rows[row * d + i]! += size * directions[part]![i]!;
    }
  }
  return rows;
}

const SMALL: Run = {
  shape: { d: 32, n: 600, k: 8, auxk: 24 },
  B: 300,
  steps: 14,
  hyper: { ...HYPER, deadAfter: 4000, clip: 1, emaDecay: 0.9, rows: 300 },
  rows: rowsOf(32, 1000, 1),
  ema: true,
  // A tenth of the latents is on all the time. Most of the others are dead; the rest dies, so that
  // the room for the dead changes on the way: it is counted after step 4.
  bias: (j) => (j % 10 === 0 ? 5 : 0),
  ages: (j) => (j % 10 === 0 ? 0 : j % 12 === 1 ? 1400 : 5000),
  norm: (step) => step % 3 === 0,
};

/** A batch's rows: any, some of them twice. */
function batchOf({ B, rows, shape }: Run, step: number): Uint32Array {
  const m = rows.length / shape.d;
  const rng = new Rng(7, step);
  return Uint32Array.from({ length: B }, () => rng.below(m));
}

class Trainer {
  readonly engine: Engine;
  readonly run: Run;
  readonly state: State;
  readonly #raw: Tensor;
  readonly #step: ReturnType<typeof createTrainStep>;
  #done = 0;

  constructor(engine: Engine, run: Run) {
    this.engine = engine;
    this.run = run;
    const { shape, B, rows, ema, ages } = run;
    this.state = {
      params: newParams(engine, shape),
      m: newParams(engine, shape),
      v: newParams(engine, shape),
      ...(ema ? { ema: newParams(engine, shape) } : {}),
      age: engine.alloc("u32", [shape.n]),
      counters: engine.alloc("f64", [COUNTERS.length]),
    };
    const rng = new Rng(3, 2);
    const unit = Float64Array.from({ length: shape.n * shape.d }, () => rng.normal());
    for (let j = 0; j < shape.n; j++) {
      const row = unit.subarray(j * shape.d, (j + 1) * shape.d);
      const length = Math.hypot(...row);
      for (let i = 0; i < shape.d; i++) row[i]! /= length;
    }
    for (const name of ["encoder", "decoder"] as const) this.#put(this.state.params[name], unit);
    this.#put(
      this.state.params.latentBias,
      Float64Array.from({ length: shape.n }, (_, j) => run.bias(j)),
    );
    engine.write(this.state.age, bytesOf(Uint32Array.from({ length: shape.n }, (_, j) => ages(j))));
    this.#raw = engine.alloc("f32", [rows.length / shape.d, shape.d]);
    engine.write(this.#raw, bytesOf(rows));
    this.#step = newStep(engine, shape, B);
  }

  /**
   * One step; also writes a row of the data again, as the loop does, which must not reach the steps
   * before.
   */
  step(): void {
    const { run, engine } = this;
    const at = this.#done++;
    const { d } = run.shape;
    const row = at % (run.rows.length / d);
    const changed = run.rows.slice(row * d, (row + 1) * d).map((value) => value * (at % 2 === 0 ? 2 : 1));
    engine.write(this.#raw, bytesOf(changed), row * d * BYTES.f32);
    this.#step.run(this.state, this.#raw, batchOf(run, at), run.hyper, run.norm(at));
  }

  async sums(): Promise<Float64Array> {
    return float64Of(await this.engine.read(this.#step.step.sums));
  }

  get tensors(): readonly Tensor[] {
    const { params, m, v, ema, age, counters } = this.state;
    const groups = [params, m, v, ...(ema === undefined ? [] : [ema])];
    return [...groups.flatMap((group) => CORE_PARAMS.map((name) => group[name])), age, counters];
  }

  save(): Promise<Uint8Array[]> {
    return Promise.all(this.tensors.map((tensor) => this.engine.read(tensor)));
  }

  /** Takes over what another has saved after `done` steps. */
  load(saved: readonly Uint8Array[], done: number, other: Trainer): void {
    this.tensors.forEach((tensor, i) => {
      this.engine.write(tensor, saved[i]!);
    });
    this.#done = done;
    // The rows as they have become there.
    const { d } = this.run.shape;
    for (let at = 0; at < done; at++) {
      const row = at % (other.run.rows.length / d);
      const changed = other.run.rows.slice(row * d, (row + 1) * d).map((value) => value * (at % 2 === 0 ? 2 : 1));
      this.engine.write(this.#raw, bytesOf(changed), row * d * BYTES.f32);
    }
  }

  #put(tensor: Tensor, values: Float64Array): void {
    const make: Partial<Record<DType, (v: Float64Array) => ArrayBufferView>> = {
      f32: (v) => Float32Array.from(v),
      f64: (v) => v,
    };
    this.engine.write(tensor, bytesOf(make[tensor.dtype]!(values)));
  }
}

/** SHA-256 of the state after the run. */
async function hashOf(engine: Engine, run: Run): Promise<string> {
  const trainer = new Trainer(engine, run);
  for (let step = 0; step < run.steps; step++) {
    trainer.step();
    if (step + 1 === run.saveAt) await trainer.save();
  }
  return hash(await trainer.save());
}

function hash(all: readonly Uint8Array[]): string {
  const sum = createHash("sha256");
  for (const bytes of all) sum.update(bytes);
  return sum.digest("hex").slice(0, 16);
}

function same(what: string, a: string, b: string): void {
  if (a !== b) throw new Error(`${what}: ${a} and ${b}`);
}

/** The engine, its steps not recorded. */
function plain(engine: Engine): Engine {
  return new Proxy(engine, {
    get(target, name) {
      if (name === "record") return (step: () => void) => step;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
}

const VARIANTS: Readonly<Record<string, Run>> = {
  "dead latents by products": SMALL,
  "dead latents by lists": { ...SMALL, shape: { ...SMALL.shape, auxk: 3 } },
  "no auxiliary loss": { ...SMALL, shape: { ...SMALL.shape, auxk: 0 } },
  "rows of odd length": { ...SMALL, shape: { d: 29, n: 133, k: 5, auxk: 20 }, rows: rowsOf(29, 700, 2), steps: 9 },
};

export const CHECKS: readonly Check[] = [
  ...Object.entries(VARIANTS).map(
    ([name, run]): Check => ({
      name: `two runs, one hash, recorded or not: ${name}`,
      run: async (make, dtype) => {
        await using first = await make({ dtype });
        await using second = await make({ dtype });
        const recorded = await hashOf(first, run);
        same("two runs", await hashOf(second, run), recorded);
        same("not recorded", await hashOf(plain(second), run), recorded);
        return recorded;
      },
    }),
  ),
  {
    name: "a run that goes on from what was saved has the bits of one that was not stopped",
    run: async (make, dtype) => {
      await using engine = await make({ dtype });
      const run = { ...SMALL, saveAt: 6 };
      const whole = await hashOf(engine, run);
      const [a, b] = [new Trainer(engine, run), new Trainer(engine, run)];
      for (let step = 0; step < run.saveAt; step++) a.step();
      b.load(await a.save(), run.saveAt, a);
      for (let step = run.saveAt; step < run.steps; step++) b.step();
      same("whole and in two parts", hash(await b.save()), whole);
      return whole;
    },
  },
  {
    name: "working memory that grows between recorded steps",
    run: async (make, dtype) => {
      await using engine = await make({ dtype });
      const results: string[] = [];
      for (const by of [engine, plain(engine)]) {
        const trainer = new Trainer(by, SMALL);
        for (let step = 0; step < 12; step++) {
          trainer.step();
          // More rows than ever before.
          if (step === 5) new Trainer(by, { ...SMALL, B: by === engine ? 1500 : 2100 }).step();
        }
        results.push(hash(await trainer.save()));
      }
      same("recorded and not", results[0]!, results[1]!);
      return results[0]!;
    },
  },
  {
    name: "weights that are written between recorded steps are used",
    run: async (make, dtype) => {
      await using engine = await make({ dtype });
      const results: string[] = [];
      for (const by of [engine, plain(engine)]) {
        const trainer = new Trainer(by, SMALL);
        for (let step = 0; step < 6; step++) trainer.step();
        const encoder = float32Of(await by.read(trainer.state.params.encoder));
        by.write(trainer.state.params.encoder, bytesOf(encoder.reverse()));
        for (let step = 0; step < 3; step++) trainer.step();
        results.push(hash(await trainer.save()));
      }
      same("recorded and not", results[0]!, results[1]!);
      return results[0]!;
    },
  },
  {
    name: "200 steps beside the reference engine",
    run: async (make, dtype) => {
      const run: Run = {
        ...SMALL,
        shape: { d: 16, n: 96, k: 6, auxk: 12 },
        B: 64,
        steps: 200,
        hyper: { ...HYPER, rows: 64 },
        rows: rowsOf(16, 640, 4),
        ema: false,
        bias: () => 0,
        ages: () => 0,
        norm: () => false,
      };
      const rounding = { f32: 2 ** -24, bf16: 2 ** -8, fp16: 2 ** -11 }[dtype];
      const reference = await ending(createReferenceEngine(), run);
      // How far runs drift apart whose rows are rounded so on the way in, and whose weights are off
      // by what sums in f32 are off by, after each step.
      let spread = 0;
      for (let seed = 1; seed <= 5; seed++) {
        const rng = new Rng(11, seed);
        const rows = run.rows.map((value) => value * (1 + rounding * (2 * (rng.below(2 ** 20) / 2 ** 20) - 1)));
        spread = Math.max(spread, Math.abs((await ending(createReferenceEngine(), { ...run, rows }, rng)) - reference));
      }
      await using engine = await make({ dtype });
      const own = await ending(engine, run);
      const off = Math.abs(own - reference);
      const found = `${own.toPrecision(6)}, reference ${reference.toPrecision(6)}, off by ${off.toExponential(1)}, spread ${spread.toExponential(1)}`;
      if (!(off <= 3 * spread)) throw new Error(found);
      return found;
    },
  },
];

/** What a sum of d products in f32 is off by: about the root of d roundings. */
const sumRounding = (d: number) => Math.sqrt(d) * 2 ** -24;

/**
 * Squared error a row over the last 20 steps. `noise`: weights are off by the rounding of sums in
 * f32 after each step.
 */
async function ending(engine: Engine, run: Run, noise?: Rng): Promise<number> {
  const trainer = new Trainer(engine, run);
  let total = 0;
  for (let step = 0; step < run.steps; step++) {
    trainer.step();
    for (const name of noise === undefined ? [] : CORE_PARAMS) {
      const tensor = trainer.state.params[name];
      const values = float64Of(await engine.read(tensor));
      engine.write(
        tensor,
        bytesOf(values.map((value) => value * (1 + sumRounding(run.shape.d) * (noise!.below(3) - 1)))),
      );
    }
    if (step >= run.steps - 20) total += (await trainer.sums())[SUMS.indexOf("err2")]!;
  }
  return total / (20 * run.B);
}

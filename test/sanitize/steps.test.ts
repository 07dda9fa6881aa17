/**
 * Whole training steps of the cpu engine on four threads, queued without a wait, while other memory
 * is taken, written, read and given back: what a thread does at the wrong time changes a bit, and
 * under scripts/sanitize.mjs it is named.
 */

import { describe, expect, it } from "vitest";
import { HYPERS } from "../../src/engine/conformance-draw.ts";
import { cpuPaths, createCpuEngine, type InstructionSet } from "../../src/engine/cpu/index.ts";
import type { Engine, Hyper, Normalization } from "../../src/engine/engine.ts";
import { CORE_PARAMS } from "../../src/sae/params.ts";
import { freeState, startParams, writeReals } from "../../src/train/state.ts";
import { bytesOf, float64Of, uint32Of } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { dimsOf, newState, newStep, type TopkSizes } from "../topk.ts";

interface Job {
  readonly shape: TopkSizes;
  readonly B: number;
  /** Half of the rows turn on the same few latents, whose lists are then long. */
  readonly skewed: boolean;
  readonly dense: boolean;
  readonly ema: boolean;
  /** Share of latents that are dead as the first step begins. */
  readonly dead: number;
  readonly hyper: Partial<Hyper>;
  readonly normalization?: Normalization;
}

const PLAIN = { skewed: false, dense: false, ema: false, dead: 0, hyper: {} } as const;
const LAYER_NORM = { kind: "layer_norm", factor: 1 } as const;
const JOBS: Readonly<Record<string, Job>> = {
  "whole vectors, nothing besides": { ...PLAIN, shape: { d: 64, n: 512, k: 8, auxk: 0 }, B: 96 },
  "skewed, clipped, averaged, normalised, a third dead": {
    shape: { d: 37, n: 601, k: 9, auxk: 13 },
    B: 700,
    skewed: true,
    dense: false,
    ema: true,
    dead: 1 / 3,
    hyper: { clip: 0.01, emaDecay: 0.9 },
    normalization: LAYER_NORM,
  },
  "skewed, dense gradients, all dead": {
    ...PLAIN,
    shape: { d: 131, n: 97, k: 5, auxk: 40 },
    B: 531,
    skewed: true,
    dense: true,
    dead: 1,
  },
  "AuxK with none dead": { ...PLAIN, shape: { d: 19, n: 300, k: 33, auxk: 20 }, B: 65, hyper: { clip: 1e6 } },
  "fewer rows and latents than threads": {
    ...PLAIN,
    shape: { d: 3, n: 3, k: 3, auxk: 2 },
    B: 1,
    ema: true,
    dead: 1,
    hyper: { emaDecay: 0.5 },
  },
};
const STEPS = 3;
/** The latents that skewed rows turn on. */
const COMMON = 4;

interface Trained {
  /** All that training changed, and what was read meanwhile. */
  readonly bytes: readonly Uint8Array[];
  /** Marks of the steps, and Adam's t. */
  readonly bad: number;
  readonly updates: number;
  /** Entries in the longest list of a latent. */
  readonly longest: number;
}

async function train(engine: Engine, job: Job): Promise<Trained> {
  const { shape, B } = job;
  const { d, n } = shape;
  const rng = new Rng(41, d, n, B);
  const state = newState(engine, shape, job.ema);
  startParams(
    engine,
    state.params,
    dimsOf(shape),
    1,
    Float64Array.from({ length: d }, () => 0.1 * rng.normal()),
  );
  writeReals(
    engine,
    state.params.latentBias,
    Float64Array.from({ length: n }, () => 0.1 * rng.normal()),
  );
  engine.write(state.age, bytesOf(Uint32Array.from({ length: n }, (_, j) => (j < job.dead * n ? 5000 : 0))));

  const m = B + 7;
  const x = Float32Array.from({ length: m * d }, () => rng.normal());
  if (job.skewed) {
    const weights = Float64Array.from({ length: d }, () => rng.normal());
    const encoder = Float32Array.from({ length: COMMON * d }, (_, i) => weights[i % d] * (1 + Math.floor(i / d) / 8));
    engine.write(state.params.encoder, bytesOf(encoder));
    for (let i = 0; i < x.length; i++) if (Math.floor(i / d) % 2 === 0) x[i] += 3 * weights[i % d];
  }
  const raw = engine.alloc("f32", [m, d]);
  engine.write(raw, bytesOf(x));

  const step = newStep(engine, shape, B, { dense: job.dense, normalization: job.normalization });
  const hyper = { ...HYPERS, rows: B, ...job.hyper };
  const reads: Promise<Uint8Array>[] = [];
  for (let t = 0; t < STEPS; t++) {
    step.run(
      state,
      raw,
      Uint32Array.from({ length: B }, () => rng.below(m)),
      hyper,
      t === 1,
    );
    const other = engine.alloc("f32", [n, d]);
    engine.write(other, bytesOf(Float32Array.from({ length: n * d }, (_, i) => i + t)));
    reads.push(engine.read(state.params.decoder), engine.read(other), engine.read(step.step.bad));
    engine.free(other);
  }
  for (const group of [state.params, state.m, state.v, state.ema]) {
    if (group !== undefined) reads.push(...CORE_PARAMS.map((name) => engine.read(group[name])));
  }
  reads.push(engine.read(engine.pairs(step.live.codes).latent), engine.read(state.age), engine.read(state.counters));
  step.close();
  freeState(engine, state);
  engine.free(raw);
  const bytes = await Promise.all(reads);
  const bad = Array.from({ length: STEPS }, (_, t) => uint32Of(bytes[3 * t + 2])[0]).reduce((a, b) => a + b, 0);
  const lengths = new Uint32Array(n);
  for (const latent of uint32Of(bytes[bytes.length - 3])) if (latent < n) lengths[latent]++;
  return { bytes, bad, updates: float64Of(bytes[bytes.length - 1])[0], longest: Math.max(...lengths) };
}

// Without a compiler these tests have nothing to run on; conformance.test.ts says so.
const paths: readonly InstructionSet[] = await cpuPaths().catch(() => []);

describe.skipIf(paths.length === 0)("steps in flight on four threads", () => {
  for (const path of paths) {
    it.each(Object.entries(JOBS))(`${path}: %s`, async (_, job) => {
      await using one = await createCpuEngine({ threads: 1, path });
      await using four = await createCpuEngine({ threads: 4, path });
      const [expected, actual] = [await train(one, job), await train(four, job)];
      expect({ bad: actual.bad, updates: actual.updates }).toEqual({ bad: 0, updates: STEPS });
      if (job.skewed) expect(actual.longest).toBeGreaterThan(256);
      expect(actual.bytes.length).toBe(expected.bytes.length);
      for (const [i, bytes] of actual.bytes.entries())
        expect(Buffer.compare(bytes, expected.bytes[i]), `read ${i}`).toBe(0);
    });
  }
});

/**
 * One step from each of twenty states of a PyTorch run in float64: how far the cpu engine is off,
 * beside how far PyTorch in float32 is off from the same states on the same rows. The truth is the
 * reference engine's step, which is checked here against PyTorch's in float64.
 */

import { describe, expect, it } from "vitest";
import type { Engine, Params, Tensor } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { namedSums } from "../../src/engine/sums.ts";
import { losses, squares } from "../../src/sae/math.ts";
import { CORE_PARAMS } from "../../src/sae/params.ts";
import { readReals, writeReals } from "../../src/train/state.ts";
import { bytesOf, float64Of } from "../../src/util/bytes.ts";
import { cpuEngine, whyNoCpu } from "../support/engines.ts";
import { newState, newStep, paramShapes } from "../topk.ts";
import { fixture, hyperOf, KINDS, near, precision, runs, shape, states } from "./fixtures.ts";

interface StepRecord {
  readonly loss: number;
  /** "kind/parameter". */
  readonly arrays: ReadonlyMap<string, Float32Array | Float64Array>;
}

const { d, n, B } = shape;
const { config } = runs[precision.run];
const sae = { d, n, k: config.k, auxk: config.auxk };
const QUANTITIES = KINDS.flatMap((kind) => CORE_PARAMS.map((name) => `${kind}/${name}`));

/** One step from each state. */
async function steps(engine: Engine): Promise<StepRecord[]> {
  const state = newState(engine, sae, false);
  const step = newStep(engine, sae, B, { dense: true });
  const data = Float32Array.from(fixture("data"));
  const raw = engine.alloc("f32", [data.length / d, d]);
  engine.write(raw, bytesOf(data));
  const { encoder, decoder, latentBias, preBias } = step.grads;
  if (encoder === undefined || decoder === undefined) throw new Error("dense gradients were asked for");
  const groups: Readonly<Record<(typeof KINDS)[number], Params>> = {
    gradient: { encoder, decoder, latentBias, preBias },
    weights: state.params,
    m: state.m,
    v: state.v,
  };
  const tensors: [string, Tensor][] = KINDS.flatMap((kind) =>
    CORE_PARAMS.map((name): [string, Tensor] => [`${kind}/${name}`, groups[kind][name]]),
  );
  const found: StepRecord[] = [];
  let at = 0;
  for (const [i, { age, updates }] of precision.states.entries()) {
    for (const kind of ["weights", "m", "v"] as const) {
      for (const name of CORE_PARAMS) {
        const length = paramShapes(sae)[name].reduce((a, b) => a * b, 1);
        writeReals(engine, groups[kind][name], states.subarray(at, at + length));
        at += length;
      }
    }
    engine.write(state.age, bytesOf(Uint32Array.from(age)));
    engine.write(state.counters, bytesOf(Float64Array.of(updates, 0, 0)));
    step.run(
      state,
      raw,
      Uint32Array.from({ length: B }, (_, row) => i * B + row),
      hyperOf(config),
      true,
    );
    const sums = namedSums(float64Of(await engine.read(step.step.sums)));
    const arrays = new Map<string, Float32Array | Float64Array>();
    for (const [name, tensor] of tensors) arrays.set(name, await readReals(engine, tensor));
    found.push({ loss: losses(sums, B, shape.mseScale, shape.auxCoef).loss, arrays });
  }
  expect(at).toBe(states.length);
  await engine[Symbol.asyncDispose]();
  return found;
}

const middle = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

/** The median error of the elements whose truth is not 0, as make_fixtures.py has it. */
function errorOf(name: string, found: StepRecord, truth: StepRecord): number {
  if (name === "loss") return Math.abs(found.loss - truth.loss);
  const expected = truth.arrays.get(name) ?? [];
  const actual = found.arrays.get(name) ?? [];
  return middle(
    Array.from(expected, (value, i) => (value === 0 ? Number.NaN : Math.abs(actual[i] - value))).filter(
      (off) => !Number.isNaN(off),
    ),
  );
}

describe("one step from each of 20 states", () => {
  const truth = steps(createReferenceEngine());

  it("is PyTorch's in float64, on the reference engine", async () => {
    const found = await truth;
    expect(found.length).toBe(20);
    for (const [i, { loss, squares: sums }] of precision.states.entries()) {
      near(`state ${i}: loss`, [found[i].loss], [loss], 1e-9);
      for (const name of QUANTITIES)
        near(
          `state ${i}: squares of ${name}`,
          [squares(Float64Array.from(found[i].arrays.get(name) ?? []))],
          [sums[name]],
          1e-9,
        );
    }
  });

  const noCpu = whyNoCpu();
  if (noCpu !== undefined) it.skip(`cpu: ${noCpu}`, () => undefined);
  it.skipIf(noCpu !== undefined)("errs on the cpu engine at most twice as much as in PyTorch's float32", async () => {
    const expected = await truth;
    const found = await steps(await cpuEngine());
    const lines = ["loss", ...QUANTITIES].map((name) => {
      const ours = middle(found.map((each, i) => errorOf(name, each, expected[i])));
      const theirs = middle(precision.states.map(({ errors }) => errors[name]));
      return { name, ours, theirs, times: ours / theirs };
    });
    for (const { name, ours, theirs, times } of lines) {
      console.log(
        `${name.padEnd(20)} cpu ${ours.toExponential(1)}, PyTorch f32 ${theirs.toExponential(1)}: ${times.toFixed(2)} times`,
      );
    }
    for (const { name, ours, theirs } of lines) {
      expect(theirs, name).toBeGreaterThan(0);
      expect(ours / theirs, name).toBeLessThanOrEqual(2);
    }
  });
});

/**
 * Numbers too large for the arithmetic, in rows, weights, learning rates and factors: a step either
 * leaves everything finite, or says that it did not and has changed nothing but the count of such
 * steps.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { COUNTERS, type Engine, type State } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { freeState, startParams, writeReals } from "../../src/train/state.ts";
import { bytesOf, float64Of, uint32Of } from "../../src/util/bytes.ts";
import { firstNonFinite } from "../../src/util/float16.ts";
import type { Rng } from "../../src/util/rng.ts";
import { cpuEngine, whyNoCpu } from "../support/engines.ts";
import { dimsOf, newState, newStep } from "../topk.ts";
import { cases, LONG } from "./harness.ts";

const shape = { d: 5, n: 24, k: 3, auxk: 4 };
const ROWS = 7;
const STEPS = 6;

type Group = State["params"];
const tensorsOf = ({ params, m, v, ema }: State) =>
  [params, m, v, ema!].flatMap((p: Group) => [p.encoder, p.latentBias, p.decoder, p.preBias]);

/** Everything of a state but the number of skipped steps. */
async function contentsOf(
  engine: Engine,
  state: State,
): Promise<{ readonly all: string; readonly skipped: number; readonly finite: boolean }> {
  const tensors = await Promise.all(tensorsOf(state).map((tensor) => engine.read(tensor)));
  const finite = tensors.every(
    (bytes) => firstNonFinite(bytes, engine.real, 0, bytes.byteLength / (engine.real === "f64" ? 8 : 4)) < 0,
  );
  const counters = float64Of(await engine.read(state.counters)).slice();
  const at = COUNTERS.indexOf("skipped");
  const skipped = counters[at]!;
  counters[at] = 0;
  const rest = [...tensors, await engine.read(state.age), bytesOf(counters)];
  return { all: Buffer.concat(rest).toString("base64"), skipped, finite };
}

/** 10^x with x uniform, often near 1. */
const magnitude = (rng: Rng, least: number, most: number): number =>
  rng.below(2) === 0 ? 1 : 10 ** (least + (most - least) * rng.uniform());

async function torment(engine: Engine, rng: Rng, tally: { bad: number; good: number }): Promise<void> {
  const { d, n } = shape;
  const state = newState(engine, shape, true);
  startParams(engine, state.params, dimsOf(shape), rng.below(1000), new Float64Array(d));
  const scale = magnitude(rng, -30, 38);
  writeReals(
    engine,
    state.params.encoder,
    Float64Array.from({ length: n * d }, () => scale * rng.normal()),
  );
  const spread = magnitude(rng, -30, 38);
  const values = Float32Array.from({ length: ROWS * d }, () => Math.max(-3e38, Math.min(3e38, spread * rng.normal())));
  if (rng.below(4) === 0)
    values[rng.below(values.length)] = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY][rng.below(3)]!;
  const raw = engine.alloc("f32", [ROWS, d]);
  engine.write(raw, bytesOf(values));
  const step = newStep(engine, shape, ROWS);
  const hyper = {
    lr: magnitude(rng, -6, 6),
    rows: ROWS,
    beta1: 0.9,
    beta2: 0.999,
    eps: magnitude(rng, -30, 0),
    clip: rng.below(2) === 0 ? 0 : magnitude(rng, -6, 6),
    emaDecay: 0.9,
    mseScale: magnitude(rng, -20, 30),
    auxCoef: magnitude(rng, -6, 6),
    deadAfter: 3,
    firedAbove: 0,
  };
  const index = Uint32Array.from({ length: ROWS }, (_, row) => row);
  let before = await contentsOf(engine, state);
  for (let i = 0; i < STEPS; i++) {
    step.run(state, raw, index, hyper, rng.below(2) === 0);
    const bad = uint32Of(await engine.read(step.step.bad))[0] !== 0;
    const after = await contentsOf(engine, state);
    tally[bad ? "bad" : "good"]++;
    if (bad) expect(after, `step ${i}`).toEqual({ ...before, skipped: before.skipped + 1 });
    else expect(after, `step ${i}`).toMatchObject({ finite: true, skipped: before.skipped });
    before = after;
  }
  step.close();
  freeState(engine, state);
  engine.free(raw);
}

describe.each(["reference", "cpu"] as const)("on the %s engine", (name) => {
  let engine: Engine | undefined;
  beforeAll(async () => {
    engine = name === "reference" ? createReferenceEngine() : whyNoCpu() === undefined ? await cpuEngine() : undefined;
  });
  afterAll(() => engine?.close());

  it("a step that is not finite is found before anything is changed", async (context) => {
    if (engine === undefined) return context.skip(whyNoCpu());
    const tally = { bad: 0, good: 0 };
    await cases(`non-finite-${name}`, { short: 200, long: 20_000 }, (rng) => torment(engine!, rng, tally));
    expect(Math.min(tally.bad, tally.good)).toBeGreaterThan(LONG ? -1 : 100);
  });
});

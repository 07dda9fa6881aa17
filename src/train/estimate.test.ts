import { describe, expect, it } from "vitest";
import { learnableRows } from "../../test/support/memory-source.ts";
import { dimsOf, newState, shardOf } from "../../test/topk.ts";
import type { Engine, State } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { secondsFor, timeSteps } from "./estimate.ts";
import { startParams } from "./state.ts";

const shape = { d: 6, n: 24, k: 3, auxk: 4 };
const hyper = {
  ...{ lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, clip: 0, emaDecay: 0.9, mseScale: 1, auxCoef: 1 / 32 },
  ...{ deadAfter: 1, firedAbove: 1e-3 },
};

async function bits(engine: Engine, state: State): Promise<Uint8Array[]> {
  const groups = [state.params, state.m, state.v, ...(state.ema === undefined ? [] : [state.ema])];
  const tensors = [...groups.flatMap((group) => CORE_PARAMS.map((name) => group[name])), state.age, state.counters];
  return Promise.all(tensors.map((tensor) => engine.read(tensor)));
}

describe("timing steps before a run", () => {
  it.each([16, 2000])("leaves the state bit by bit as it was (batches of %i rows)", async (batch) => {
    const engine = createReferenceEngine();
    const state = newState(engine, shape, true);
    startParams(engine, state.params, dimsOf(shape), 1, new Float64Array(6).fill(0.5));
    const before = await bits(engine, state);
    const sample = learnableRows(64, 6, 12);
    const pace = await timeSteps(engine, shardOf(shape), state, sample, batch, hyper);
    expect(await bits(engine, state)).toEqual(before);
    expect(pace.step).toBeGreaterThan(0);
    expect(pace.forward).toBeGreaterThan(0);
  });

  it("adds up steps and evaluations", () => {
    expect(secondsFor({ step: 0.25, forward: 0.125 }, 100, 64, 8, 128)).toBe(25 + 8 * 2 * 0.125);
  });
});

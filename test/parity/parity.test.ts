/**
 * Twenty steps of the reference's two recipes, from the same start on the same rows, against plain
 * PyTorch in float64 (make_fixtures.py): losses, gradient norms, dead latents and ages of every
 * step, and all weights and averages of some.
 */

import { describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { namedSums } from "../../src/engine/sums.ts";
import { losses, squares } from "../../src/sae/math.ts";
import { CORE_PARAMS } from "../../src/sae/params.ts";
import { readReals, writeReals } from "../../src/train/state.ts";
import { bytesOf, float64Of, uint32Of } from "../../src/util/bytes.ts";
import { cpuEngine, whyNoCpu } from "../support/engines.ts";
import { newState, newStep } from "../topk.ts";
import { fixture, hyperOf, near, type Run, runs, shape } from "./fixtures.ts";

/**
 * Repeats a run; `check` sees the state after each step. Returns the worst relative error of the
 * losses, and of everything.
 */
async function repeat(
  engine: Engine,
  title: string,
  run: Run,
  tolerance: { readonly losses: number; readonly weights: number },
) {
  const { d, n, B } = shape;
  const { k, auxk, ema } = run.config;
  const sae = { d, n, k, auxk };
  const hyper = hyperOf(run.config);
  const state = newState(engine, sae, ema !== null);
  for (const name of CORE_PARAMS) writeReals(engine, state.params[name], fixture(`start/${name}`));
  const data = fixture("data");
  const raw = engine.alloc("f64", [data.length / d, d]);
  engine.write(raw, bytesOf(data));
  const step = newStep(engine, sae, B);
  let worst = 0;
  for (const [i, expected] of run.steps.entries()) {
    const where = `${title}, step ${i + 1}`;
    const index = Uint32Array.from({ length: B }, (_, row) => i * B + row);
    step.run(state, raw, index, hyper, true);
    const sums = namedSums(float64Of(await engine.read(step.step.sums)));
    const found = losses(sums, B, shape.mseScale, shape.auxCoef);
    const gradNorm = Math.sqrt(float64Of(await engine.read(step.step.sq))[0]);
    for (const name of ["mse", "auxkLoss", "loss", "fvu"] as const) {
      worst = Math.max(worst, near(`${where}: ${name}`, [found[name]], [expected[name]], tolerance.losses));
    }
    near(`${where}: gradient norm`, [gradNorm], [expected.gradNorm], tolerance.weights);
    expect(found.l0, where).toBe(expected.l0);
    expect(sums.dead, where).toBe(expected.dead);
    expect([...uint32Of(await engine.read(state.age))], where).toEqual(expected.age);
    for (const name of CORE_PARAMS) {
      const weights = await readReals(engine, state.params[name]);
      near(
        `${where}: squares of ${name}`,
        [squares(Float64Array.from(weights))],
        [expected.squares[name]],
        tolerance.weights,
      );
      if (!shape.fullAt.includes(i + 1)) continue;
      near(`${where}: ${name}`, weights, fixture(`${title}/${i + 1}/${name}`), tolerance.weights);
      if (state.ema === undefined) continue;
      near(
        `${where}: average of ${name}`,
        await readReals(engine, state.ema[name]),
        fixture(`${title}/${i + 1}/ema.${name}`),
        tolerance.weights,
      );
    }
  }
  return worst;
}

describe("parity with PyTorch", () => {
  it("has runs with and without dead latents, clipping and averages", () => {
    const all = Object.values(runs);
    expect(all.some(({ steps }) => steps.some(({ dead }) => dead > 5))).toBe(true);
    expect(all.some(({ steps }) => steps.every(({ dead }) => dead === 0))).toBe(true);
    expect(
      all.some(
        ({ config, steps }) => config.clip !== null && steps.some(({ gradNorm }) => gradNorm > (config.clip ?? 0)),
      ),
    ).toBe(true);
    expect(all.some(({ config }) => config.ema !== null)).toBe(true);
  });

  it.each(Object.entries(runs))("reference: %s", async (title, run) => {
    const worst = await repeat(createReferenceEngine(), title, run, { losses: 1e-9, weights: 1e-9 });
    console.log(`reference, ${title}: ${run.steps.length} steps, losses agree to ${worst.toExponential(0)}`);
  });

  const noCpu = whyNoCpu();
  if (noCpu !== undefined) it.skip(`cpu: ${noCpu}`, () => undefined);
  it.skipIf(noCpu !== undefined).each(Object.entries(runs))("cpu: %s", async (title, run) => {
    const engine = await cpuEngine();
    const worst = await repeat(engine, title, run, { losses: 1e-5, weights: 1e-3 });
    console.log(`cpu, ${title}: ${run.steps.length} steps, losses agree to ${worst.toExponential(0)}`);
    await engine[Symbol.asyncDispose]();
  });
});

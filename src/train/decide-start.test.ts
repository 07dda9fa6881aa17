import { describe, expect, it } from "vitest";
import { memorySource } from "../../test/support/memory-source.ts";
import { solo } from "../collective/solo.ts";
import { resolveConfig, type TrainOptions } from "../config.ts";
import { chooseRows } from "../data/choose.ts";
import { pairSources } from "../data/pair.ts";
import type { Source } from "../data/source.ts";
import type { FoundSae } from "../inference/weights.ts";
import { transcoderDims } from "../sae/dims.ts";
import { Rng } from "../util/rng.ts";
import { decideStart } from "./decide-start.ts";
import type { RunPlan } from "./plan.ts";

const ROWS = 300;

/** Columns of x have mean 1 and spread 1, those of y mean -20 and spread 4. */
async function pairs(): Promise<Source> {
  const rng = new Rng(8, 3);
  const x = Float32Array.from({ length: ROWS * 3 }, () => 1 + rng.normal());
  const y = Float32Array.from({ length: ROWS * 2 }, () => -20 + 4 * rng.normal());
  return pairSources(memorySource(x, 3), memorySource(y, 2));
}

async function decide(source: Source, options: TrainOptions, initial?: FoundSae) {
  const choice = await chooseRows(source, { excludeTokens: "none", holdout: 0, seed: 0 });
  const facts = { dIn: source.dIn, target: source.dOut === undefined ? undefined : [], rowsPerEpoch: ROWS };
  const config = resolveConfig({ latents: 8, k: 2, batch: 8, ...options }, [], facts);
  const plan = { source, choice, config, collective: solo() } as unknown as RunPlan;
  return decideStart(plan, initial, () => undefined);
}

describe("the start of a transcoder", () => {
  it("has the means of normalised inputs and targets, and the variance of the targets", async () => {
    const { normalization, target, means, median, mseScale, sample, preflight } = await decide(await pairs(), {});
    const [fx, fy] = [normalization.factor, target!.factor];
    expect([normalization.kind, target!.kind, median]).toEqual(["scale", "scale", null]);
    expect(fx).toBeGreaterThan(0.5); // mean norm of x about sqrt(3 + 3)
    expect(fx).toBeLessThan(1);
    expect(fy).toBeCloseTo(Math.sqrt(2) / 28.8, 2); // of y about sqrt(2 (400 + 16))
    expect(means!.x).toHaveLength(3);
    for (const value of means!.x) expect(Math.abs(value / fx - 1)).toBeLessThan(0.3);
    expect(means!.y).toHaveLength(2);
    for (const value of means!.y) expect(Math.abs(value / fy + 20)).toBeLessThan(1);
    expect(Math.abs(1 / mseScale / fy ** 2 / 16 - 1)).toBeLessThan(0.3);
    expect(sample.length).toBe(ROWS * 5);
    // What is said of the rows is said of the inputs, as they are in the file.
    expect(preflight).toMatchObject({ rows: ROWS, everything: true });
    expect(Math.abs(preflight!.norms.mean * fx - Math.sqrt(3))).toBeLessThan(1e-6);
  });

  it("is as in the file without a normalisation, with the scale of the loss that was asked for", async () => {
    const { normalization, target, means, mseScale } = await decide(await pairs(), { normalize: "none", mseScale: 3 });
    expect([normalization, target]).toEqual([
      { kind: "none", factor: 1 },
      { kind: "none", factor: 1 },
    ]);
    expect(mseScale).toBe(3);
    expect(Math.abs(means!.y[0]! + 20)).toBeLessThan(1);
  });

  it("has the factors of the transcoder that it begins from, and no means", async () => {
    const saetta = {
      version: "0",
      engine: "e",
      normalization: "scale",
      normalizationFactor: 2,
      targetFactor: 0.5,
    } as const;
    const spec = { architecture: "topk", k: 2, auxk: 1 } as const;
    const initial = { description: { dims: transcoderDims(3, 8, 2), spec, saetta } } as unknown as FoundSae;
    const { normalization, target, means, mseScale } = await decide(await pairs(), {}, initial);
    expect([normalization.factor, target!.factor, means]).toEqual([2, 0.5, null]);
    expect(Math.abs(1 / mseScale / 4 - 1)).toBeLessThan(0.3);
  });
});

describe("the start of an autoencoder", () => {
  it("has the median of the rows and no target", async () => {
    const rng = new Rng(8, 3);
    const source = memorySource(
      Float32Array.from({ length: ROWS * 3 }, () => 1 + rng.normal()),
      3,
    );
    const { normalization, target, means, median } = await decide(source, {});
    expect([target, means]).toEqual([null, null]);
    for (const value of median!) expect(Math.abs(value / normalization.factor - 1)).toBeLessThan(0.3);
  });
});

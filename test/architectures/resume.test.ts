/**
 * A run of each architecture that is stopped and resumed, or killed past a checkpoint, ends with
 * the bits of one that was not; and what it saved computes what the run measured.
 */

import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TrainOptions } from "../../src/config.ts";
import { rowsOf } from "../../src/data/chunks.ts";
import { openData } from "../../src/data/open.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { evaluate } from "../../src/metrics/evaluate.ts";
import { resume } from "../../src/train/resume.ts";
import { train } from "../../src/train/train.ts";
import { writeActivations } from "../support/activations.ts";
import { whyNoCpu } from "../support/engines.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../support/runs.ts";

const D = 8;
const LAST = "step-00000030";
const COMMON: TrainOptions = {
  latents: 24,
  batch: 32,
  lr: 3e-3,
  ema: 0.9,
  clip: 0.5,
  deadTokens: 64,
  tokens: 32 * 30,
  warmup: 3,
  logEvery: 1,
  evalEvery: 10,
  checkpointEvery: 6,
  keep: 100,
};

const KINDS: Readonly<Record<string, TrainOptions & { readonly paired?: boolean }>> = {
  "topk, annealed": { architecture: "topk", k: 3, auxk: 6, kAnneal: "9:20" },
  "topk, multi-TopK": { architecture: "topk", k: 3, multiTopk: 0.125, kAnneal: "5:20" },
  "transcoder, multi-TopK": { architecture: "topk", k: 3, multiTopk: 0.5, paired: true },
  batchtopk: { architecture: "batchtopk", k: 2.5, auxk: 6 },
  "batchtopk, threshold from step 4": { architecture: "batchtopk", k: 3, auxk: 6, thresholdStart: 4 },
  "matryoshka over batchtopk": { architecture: "matryoshka", k: 3, auxk: 6, prefixes: [4, 12] },
  "matryoshka over topk, annealed": {
    ...{ architecture: "matryoshka", k: 3, auxk: 6, prefixSelection: "topk", kAnneal: "9:20" },
  },
  "jumprelu, step": { architecture: "jumprelu", targetL0: 3 },
  "jumprelu, tanh, thresholds of 0.01, which many latents pass": {
    ...{ architecture: "jumprelu", targetL0: 3, sparsityPenalty: "tanh", initialThreshold: 0.01, deadPenalty: 1e-3 },
  },
  "jumprelu, quadratic": { architecture: "jumprelu", targetL0: 3, sparsityPenalty: "quadratic", sparsityWarmup: 0.5 },
  transcoder: { architecture: "topk", k: 3, auxk: 6, paired: true },
  "skip transcoder over batchtopk": { architecture: "batchtopk", k: 3, auxk: 6, skip: true, paired: true },
};

let folder: string;
let inputs: string;
let targets: string;
let made = 0;
const fresh = () => join(folder, `run-${made++}`);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-kinds-"));
  inputs = await writeActivations(join(folder, "x.h5"), learnableRows(640, D, 12), [32, 20, D]);
  targets = await writeActivations(join(folder, "y.h5"), learnableRows(640, 5, 9), [32, 20, 5]);
});
afterAll(() => rm(folder, { recursive: true }));

async function start(out: string, { paired, ...options }: (typeof KINDS)[string], stopAt?: number): Promise<void> {
  const target = paired ? { target: targets } : {};
  const source = await openData([inputs], paired ? { target: [targets] } : {});
  try {
    const run = await train(source, { ...COMMON, ...options, ...target, out });
    for await (const { step } of run) if (step === stopAt) break;
    await run.finished;
  } finally {
    await source.close();
  }
}

const cpu = whyNoCpu() === undefined;

describe.each(["reference", ...(cpu ? ["cpu"] : [])])("on the %s engine", (engine) => {
  it.each(Object.entries(KINDS))("%s", async (_, kind) => {
    const options = { ...kind, engine: engine as "reference" | "cpu" };
    const whole = fresh();
    await start(whole, options);
    const expected = await checkpointOf(whole, LAST);

    const stopped = fresh();
    await start(stopped, options, 8);
    await (await resume(stopped)).finished;
    expect(await checkpointOf(stopped, LAST)).toEqual(expected);
    expect(await metricsOf(stopped)).toEqual(await metricsOf(whole));

    const killed = fresh();
    await cp(whole, killed, { recursive: true });
    for (const name of await checkpointsOf(killed))
      if (name > "step-00000012") await rm(join(killed, "checkpoints", name), { recursive: true });
    await (await resume(killed)).finished;
    expect(await checkpointOf(killed, LAST)).toEqual(expected);

    // The hold-out of training and the saved weights agree, by the rule of inference.
    await using reference = createReferenceEngine();
    const sae = await loadSae(whole, { engine: reference, weights: "raw" });
    const source = await openData([inputs], options.paired ? { target: [targets] } : {});
    const all = await evaluate(sae, source.dtype, rowsOf(source, [{ first: 0, count: source.rows }]));
    const last = (await metricsOf(whole)).at(-1)!;
    expect(all.fvu).toBeLessThan(1.2);
    expect(Math.abs(Math.log(all.fvu! / (last.holdout_fvu as number)))).toBeLessThan(0.5);
    await source.close();
    await sae.close();
  });
});

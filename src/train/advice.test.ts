import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { metricsOf } from "../../test/support/runs.ts";
import { resolveConfig, type TrainOptions, withDefaults } from "../config.ts";
import { chooseRows } from "../data/choose.ts";
import { rowsOf } from "../data/chunks.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { loadSae } from "../inference/sae.ts";
import { evaluate } from "../metrics/evaluate.ts";
import type { Report } from "../run-files/metrics.ts";
import { runAdvice, smallDefaults } from "./advice.ts";
import { train } from "./train.ts";

const good: Report = {
  step: 100,
  tokens: 25600,
  epoch: 1,
  elapsed_s: 1,
  loss: 0.3,
  mse: 0.3,
  fvu: 0.2,
  auxk_loss: 0,
  l0: 8,
  dead: 2,
  dead_fraction: 2 / 512,
  lr: 1e-5,
  grad_norm: 1,
  loss_scale: 1,
  skipped: 0,
  skipped_rows: 0,
  tokens_per_second: 1,
};
const configOf = (asked: TrainOptions = {}) =>
  resolveConfig({ latents: 512, k: 8, normalize: "none", ...asked }, [], { dIn: 64, rowsPerEpoch: 25600 });
const advice = (changed: Partial<Report>, asked: TrainOptions = {}) =>
  runAdvice({ ...good, ...changed }, configOf(asked), 100);

describe("advice at the end", () => {
  it("is none for a run that went well", () => {
    expect(advice({})).toEqual([]);
    expect(advice({ holdout_fvu: 0.3, holdout_fvu_ema: 0.301 })).toEqual([]);
  });

  it.each<[string, Partial<Report>, TrainOptions, RegExp]>([
    [
      "dead latents",
      { dead: 508, dead_fraction: 508 / 512 },
      {},
      /^508 of 512 latents \(99 %\) are dead: pass --normalize scale/,
    ],
    [
      "dead without auxk",
      { dead: 300, dead_fraction: 300 / 512 },
      { auxk: 0 },
      /are dead: the auxiliary loss .* is off: leave out --auxk 0$/,
    ],
    [
      "dead with multi-TopK",
      { dead: 300, dead_fraction: 300 / 512 },
      { auxk: 0, multiTopk: 0.125 },
      /are dead: the auxiliary loss .* is off: leave out --multi-topk$/,
    ],
    ["FVU near 1", { fvu: 0.84 }, {}, /^FVU 0\.8400 is hardly better than the mean row \(1\): train on more rows/],
    [
      "held-out FVU above 1",
      { fvu: 0.5, holdout_fvu: 1.3 },
      {},
      /^held-out FVU 1\.300 is no better than the mean row \(1\): /,
    ],
    ["L0 0", { l0: 0 }, {}, /^no latent is on in the last batch \(L0 0\): lower --lr/],
    [
      "a learning rate of about 0",
      {},
      { lr: 1e-12 },
      /^a learning rate of 1\.0e-12 moves no weight by more than 1\.0e-10 in 100 steps: raise --lr/,
    ],
    [
      "skipped steps",
      { skipped: 20 },
      {},
      /^20 of 100 steps were skipped because something was not finite: lower --lr/,
    ],
    ["a loss that is not finite", { loss: Number.NaN }, {}, /^the loss is not finite: lower --lr/],
    [
      "a worse average",
      { holdout_fvu: 0.122, holdout_fvu_ema: 0.155 },
      {},
      /^the running average is worse than the raw weights \(held-out FVU 0\.1550 against 0\.1220\): pass --weights raw/,
    ],
  ])("names %s and what to do, in one line", (_, changed, asked, line) => {
    const said = advice(changed, asked);
    expect(said).toHaveLength(1);
    expect(said[0]).toMatch(line);
  });

  it("is in the result of a run, and there is none when it was stopped", async () => {
    const source = memorySource(learnableRows(640, 8, 12), 8);
    const options: TrainOptions = { engine: "reference", latents: 24, k: 3, batch: 32, lr: 1e-9 };
    const done = await (await train(source, { ...options, out: false })).finished;
    await done.sae.close();
    expect(done.advice.join("\n")).toMatch(/moves no weight/);
    const stopped = await (await train(source, { ...options, out: false })).stop();
    await stopped.sae.close();
    expect(stopped).toMatchObject({ reason: "stopped", advice: [] });
  });
});

describe("defaults that come out small", () => {
  it("are told", async () => {
    const source = memorySource(learnableRows(640, 64, 12), 64);
    const notes: string[] = [];
    const run = await train(source, {
      engine: "reference",
      tokens: 10,
      batch: 10,
      out: false,
      onNote: (note) => notes.push(note),
    });
    await (await run.finished).sae.close();
    expect(notes).toContain(
      "64 latents were chosen for a budget of 10 rows of width 64: train on more rows (--tokens), or give --latents",
    );
  });

  it("but not where somebody gave them, or they are large", () => {
    expect(smallDefaults({ latents: 64 }, configOf({ latents: 64 }), 10, 64)).toEqual([]);
    expect(smallDefaults({ expansion: 1 }, configOf({ latents: 64 }), 10, 64)).toEqual([]);
    expect(smallDefaults({}, configOf({ latents: 128 }), 10, 64)).toEqual([]);
  });
});

describe("the running average", () => {
  it("is evaluated at the end, as eval does, and changes no bit of the run", async () => {
    const folder = await mkdtemp(join(tmpdir(), "saetta-average-"));
    try {
      const source = memorySource(learnableRows(700, 8, 12), 8, { sequence: 20 });
      const options: TrainOptions = {
        engine: "reference",
        latents: 24,
        k: 3,
        batch: 32,
        ema: 0.99,
        holdout: 0.1,
        normalize: "scale",
      };
      const out = join(folder, "run");
      const { report, sae } = await (await train(source, { ...options, out })).finished;
      await sae.close();
      await using engine = createReferenceEngine();
      const { holdout } = await chooseRows(source, withDefaults(options));
      for (const [weights, name] of [
        ["raw", "holdout_fvu"],
        ["ema", "holdout_fvu_ema"],
      ] as const) {
        await using loaded = await loadSae(out, { weights, engine });
        const { fvu } = await evaluate(loaded, source.dtype, rowsOf(source, holdout));
        expect(report![name]).toBeCloseTo(fvu!, 6);
      }
      const metrics = await metricsOf(out);
      expect(metrics.filter((line) => "holdout_fvu_ema" in line).map(({ step }) => step)).toEqual([report!.step]);
      expect(report!.holdout_fvu_ema).not.toBeCloseTo(report!.holdout_fvu!, 3);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

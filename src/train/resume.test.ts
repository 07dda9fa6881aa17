import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { whyNoCpu } from "../../test/support/engines.ts";
import { learnableRows } from "../../test/support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../../test/support/runs.ts";
import { type ManifestEntry, manifestText } from "../checkpoint/manifest.ts";
import type { TrainOptions } from "../config.ts";
import { openSource } from "../data/open.ts";
import { cpuPaths } from "../engine/cpu/index.ts";
import { UsageError } from "../util/errors.ts";
import { resume } from "./resume.ts";
import { train } from "./train.ts";

const D = 8;
// Everything that a checkpoint must remember: average, clipping, dead latents, shuffle, epochs,
// evaluations.
const options: TrainOptions = {
  engine: "reference",
  latents: 24,
  k: 3,
  auxk: 6,
  batch: 32,
  lr: 3e-3,
  ema: 0.9,
  clip: 0.2,
  deadTokens: 64,
  tokens: 32 * 40,
  warmup: 5,
  logEvery: 1,
  evalEvery: 9,
  checkpointEvery: 7,
  keep: 100,
};
const LAST = "step-00000040";

let folder: string;
let data: string;
let made = 0;
const fresh = () => join(folder, `run-${made++}`);

/** A run of the first file, or of `path`. */
async function start(out: string, more: TrainOptions = {}, stopAt?: number, path = data) {
  const source = await openSource([path]);
  try {
    const run = await train(source, { ...options, ...more, out });
    for await (const { step } of run) if (step === stopAt) break;
    return await run.finished;
  } finally {
    await source.close();
  }
}

let whole: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-resume-"));
  data = await writeActivations(join(folder, "acts.h5"), learnableRows(640, D, 12), [32, 20, D]);
  whole = fresh();
  await start(whole);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/**
 * A copy of the whole run as if it had been killed after the checkpoint of `step`, with more logged
 * than saved.
 */
async function killedAfter(step: string): Promise<string> {
  const run = fresh();
  await cp(whole, run, { recursive: true });
  for (const name of await checkpointsOf(run))
    if (name > step) await rm(join(run, "checkpoints", name), { recursive: true });
  return run;
}

/** Changes state.json, and what the manifest says of it. */
async function changeState(checkpoint: string, change: (state: Record<string, unknown>) => void): Promise<void> {
  const [statePath, manifestPath] = [join(checkpoint, "state.json"), join(checkpoint, "manifest.json")];
  const state = JSON.parse(await readFile(statePath, "utf8")) as Record<string, unknown>;
  change(state);
  const text = JSON.stringify(state);
  await writeFile(statePath, text);
  const { files } = JSON.parse(await readFile(manifestPath, "utf8")) as { files: Record<string, ManifestEntry> };
  const entry = { size: text.length, sha256: createHash("sha256").update(text).digest("hex") };
  await writeFile(manifestPath, manifestText({ ...files, "state.json": entry }));
}

async function expectWhole(run: string): Promise<void> {
  expect(await checkpointOf(run, LAST)).toEqual(await checkpointOf(whole, LAST));
  expect(await metricsOf(run)).toEqual(await metricsOf(whole));
  expect(await readFile(join(run, "density.jsonl"), "utf8")).toBe(await readFile(join(whole, "density.jsonl"), "utf8"));
}

describe("a run that goes on", () => {
  it("was whole, with dead latents, clipping and more than one epoch", async () => {
    const metrics = await metricsOf(whole);
    expect(metrics.length).toBe(40);
    expect(metrics.some(({ auxk_loss }) => (auxk_loss as number) > 0)).toBe(true);
    expect(metrics.some(({ grad_norm }) => (grad_norm as number) > 0.2)).toBe(true);
    expect(metrics.at(-1)!.epoch).toBeGreaterThan(2);
    expect(Object.keys(await checkpointOf(whole, LAST))).toContain("ema.safetensors");
  });

  it.each([
    1, 6, 13, 20, 38,
  ])("after it was stopped at step %i ends with the same bits and the same metrics", async (stopAt) => {
    const run = fresh();
    const { reason, steps } = await start(run, {}, stopAt);
    expect(reason).toBe("stopped");
    expect(steps).toBeLessThan(40);
    const going = await resume(run);
    expect(going).toMatchObject({ steps: 40, trainedBefore: steps * 32 });
    expect(await going.finished).toMatchObject({ reason: "done", steps: 40, tokens: 1280 });
    await expectWhole(run);
  });

  it.each(["step-00000007", "step-00000014", "step-00000035"])("after it was killed past %s, too", async (step) => {
    const run = await killedAfter(step);
    await (await resume(run)).finished;
    await expectWhole(run);
  });

  it("twice, and with other intervals, ends with the same bits", async () => {
    const run = fresh();
    await start(run, {}, 5);
    const again = await resume(run, { logEvery: 4, checkpointEvery: 0, evalEvery: 0 });
    for await (const { step } of again) if (step >= 16) break;
    await again.finished;
    await (await resume(run)).finished;
    expect(await checkpointOf(run, LAST)).toEqual(await checkpointOf(whole, LAST));
    expect(JSON.parse(await readFile(join(run, "config.json"), "utf8"))).toMatchObject({
      log_every: 4,
      checkpoint_every: 0,
    });
  });

  it("leaves a damaged checkpoint aside and says so", async () => {
    const run = await killedAfter("step-00000014");
    const damaged = join(run, "checkpoints", "step-00000014", "optimizer.safetensors");
    await truncate(damaged, (await readFile(damaged)).length - 1);
    const notes: string[] = [];
    await (await resume(run, { onNote: (note) => notes.push(note) })).finished;
    expect(notes.join()).toMatch(/step-00000014.optimizer\.safetensors: damaged.*set aside, and step 7 is used/);
    expect(await checkpointsOf(run)).toContain("step-00000014.damaged");
    await expectWhole(run);
  });

  it("on the cpu engine may change the dtype, which changes no bit", async (context) => {
    const reason = whyNoCpu();
    if (reason !== undefined) context.skip(reason);
    const best = (await cpuPaths()).at(-1)!;
    if (best !== "avx512_bf16" && best !== "amx") context.skip(`no product in bf16 here: ${best}`);
    vi.stubEnv("SAETTA_CPU", "");
    try {
      const cpu: TrainOptions = { engine: "cpu", threads: 2, latents: 300 };
      const [exact, changed] = [fresh(), fresh()];
      const { sae } = await start(exact, { ...cpu, dtype: "f32" });
      expect(sae.engine.description).toMatch(/AVX-512$/);
      await sae.close();
      await start(changed, { ...cpu, dtype: "f32" }, 13);
      const going = await resume(changed, { dtype: "bf16" });
      expect(going.engine).toContain("product in bf16");
      await going.finished;
      expect(await checkpointOf(changed, LAST)).toEqual(await checkpointOf(exact, LAST));
      expect(await metricsOf(changed)).toEqual(await metricsOf(exact));
      expect(JSON.parse(await readFile(join(changed, "config.json"), "utf8"))).toMatchObject({ dtype: "bf16" });
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it("goes on from the end of an epoch into a larger budget", async () => {
    const run = fresh();
    const one = { epochs: 1, dropLast: false, decay: 0 };
    const { tokens, ...rest } = options;
    const go = async (out: string, epochs: number) => {
      const source = await openSource([data]);
      const result = await (await train(source, { ...rest, ...one, epochs, out })).finished;
      await source.close();
      return result;
    };
    const first = await go(run, 1);
    expect(first.tokens % 32).not.toBe(0);
    const second = await (await resume(run, { epochs: 2 })).finished;
    expect(second).toMatchObject({ reason: "done", tokens: 2 * first.tokens });
    expect((await metricsOf(run)).at(-1)!.epoch).toBe(2);
  });

  it("with a larger budget does what a run with that budget does, where the learning rate does not fall", async () => {
    const [short, long] = [fresh(), fresh()];
    await start(short, { decay: 0, tokens: 640 });
    await start(long, { decay: 0 });
    expect(await (await resume(short, { tokens: 1280 })).finished).toMatchObject({ steps: 40 });
    expect(await checkpointOf(short, LAST)).toEqual(await checkpointOf(long, LAST));
    const secondHalf = async (run: string) => (await metricsOf(run)).slice(20);
    expect(await secondHalf(short)).toEqual(await secondHalf(long));
  });

  it("begins anew when it was killed before it saved anything", async () => {
    const run = await killedAfter("step-00000000");
    const notes: string[] = [];
    const going = await resume(run, { onNote: (note) => notes.push(note) });
    expect(going).toMatchObject({ steps: 40, trainedBefore: 0 });
    await going.finished;
    expect(notes).toEqual([`${run} has no checkpoint yet, so the run starts again`]);
    await expectWhole(run);
  });

  it("says so when something else computes than computed before", async () => {
    const run = await killedAfter("step-00000014");
    const path = join(run, "checkpoints", "step-00000014");
    await changeState(path, (state) => {
      state.computed = { ...(state.computed as object), build: "other" };
    });
    const notes: string[] = [];
    await (await resume(run, { onNote: (note) => notes.push(note) })).finished;
    expect(notes).toEqual([
      expect.stringMatching(
        /step-00000014 was computed by Saetta .*; Saetta .* continues from it, with other bits than an uninterrupted run \(build differs\)$/,
      ),
    ]);
    await expectWhole(run);
  });

  it("that is done is done, and names its checkpoint", async () => {
    const run = await killedAfter(LAST);
    expect(await (await resume(run)).finished).toMatchObject({
      reason: "done",
      steps: 40,
      checkpoint: join(run, "checkpoints", LAST),
    });
    await expectWhole(run);
  });

  it("finds its data where it was moved to", async () => {
    const run = await killedAfter("step-00000014");
    const moved = join(folder, "moved.h5");
    await cp(data, moved);
    await rename(data, `${data}.gone`);
    try {
      await expect(resume(run)).rejects.toThrow("acts.h5");
      await (await resume(run, { data: [moved] })).finished;
      await expectWhole(run);
      expect(JSON.parse(await readFile(join(run, "config.json"), "utf8"))).toMatchObject({ data: [moved] });
    } finally {
      await rename(`${data}.gone`, data);
    }
  });
});

describe("what may not be", () => {
  it.each([
    [{ latents: 48 }, "--latents is 24 in this run and cannot be changed"],
    [{ lr: 1 }, "--lr is 0.003 in this run"],
    [{ batch: 64 }, "--batch is 32 in this run"],
    [{ seed: 1 }, "--seed is 0 in this run"],
    [{ shuffle: false }, "--shuffle is true in this run"],
    [{ holdout: 0.1 }, "--holdout is 0.05 in this run"],
    [{ expansion: 2 }, "--expansion is not set in this run"],
    [{ init: "x" }, "--init is not set in this run"],
    [
      { tokens: 100 },
      "the run has trained on 1280 rows already, more than the budget of 100; raise --tokens or --epochs",
    ],
    [{ k: -1 }, "k must be a number above 0"],
  ])("%j is refused and changes nothing", async (changes, message) => {
    const before = await readFile(join(whole, "config.json"), "utf8");
    const refused = await resume(whole, changes as TrainOptions).catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(UsageError);
    expect(String(refused)).toContain(message);
    expect(await readFile(join(whole, "config.json"), "utf8")).toBe(before);
    // The lock is free again.
    await (await resume(whole, { latents: 24, tokens: 1280 })).finished;
  });

  it("other data is refused", async () => {
    const other = async (name: string, shape: readonly number[]) =>
      writeActivations(
        join(folder, name),
        learnableRows(
          shape.slice(0, -1).reduce((a, b) => a * b),
          shape.at(-1)!,
          4,
        ),
        shape,
      );
    const fewer = await other("fewer.h5", [31, 20, D]);
    await expect(resume(whole, { data: [fewer] })).rejects.toThrow(
      /fewer\.h5: the data is not what the run was trained on: 620 rows now, 640 rows then; name the same files/,
    );
    // As many rows, but other sequences would hold other rows out.
    await expect(resume(whole, { data: [await other("flat.h5", [640, D])] })).rejects.toThrow(
      "the data is not what the run was trained on",
    );
    await expect(resume(whole, { data: [await other("wide.h5", [32, 20, D + 1])] })).rejects.toThrow(
      "the data is not what the run was trained on",
    );
  });

  it("a folder that is no run, or has lost what it logged, is refused", async () => {
    await expect(resume(join(folder, "nowhere"))).rejects.toThrow("nowhere: there is no such folder");
    await expect(resume(data)).rejects.toThrow("acts.h5: not a folder");
    const shorn = await killedAfter("step-00000014");
    await truncate(join(shorn, "metrics.jsonl"), 10);
    const going = await resume(shorn);
    await expect(going.finished).rejects.toThrow(
      /metrics\.jsonl: has 10 bytes, but the checkpoint was saved when it had \d+/,
    );
    const odd = await killedAfter("step-00000014");
    await writeFile(join(odd, "config.json"), "{");
    await expect(resume(odd)).rejects.toThrow(`${join(odd, "config.json")}: not valid JSON`);
  });

  it("a place in the data beyond its end is refused", async () => {
    const run = await killedAfter("step-00000007");
    await changeState(join(run, "checkpoints", "step-00000007"), ({ progress }) => {
      (progress as { position: { row: number } }).position.row = 1_000_000;
    });
    await expect(resume(run)).rejects.toThrow("step-00000007: its place in the data makes no sense");
  });

  it("two at once are refused: one runs", async () => {
    const run = await killedAfter("step-00000007");
    const going = await resume(run, { tokens: 64_000 });
    await expect(resume(run)).rejects.toThrow(`${run}: another process is writing to this run`);
    expect((await going.stop()).reason).toBe("stopped");
    expect((await (await resume(run, { tokens: 64_000 })).stop()).reason).toBe("stopped");
    expect(await readdir(run)).toContain("config.json");
  });
});

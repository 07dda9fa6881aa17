import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../../test/support/runs.ts";
import { configFromJson, type TrainOptions, withDefaults } from "../config.ts";
import { chooseRows } from "../data/choose.ts";
import { rowsOf } from "../data/chunks.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { evaluate } from "../metrics/evaluate.ts";
import type { Report } from "../run-files/metrics.ts";
import { UsageError } from "../util/errors.ts";
import { train } from "./train.ts";
import type { HeldOutDensity } from "./validate.ts";

const D = 8;
const source = memorySource(learnableRows(700, D, 12), D, { sequence: 20 });
const options: TrainOptions = {
  engine: "reference",
  latents: 24,
  k: 3,
  auxk: 6,
  batch: 32,
  lr: 3e-3,
  deadTokens: 64,
  logEvery: 1,
  checkpointEvery: 6,
};

let folder: string;
let made = 0;
const fresh = () => join(folder, `run-${made++}`);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-train-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

describe("train", () => {
  it("leaves config, metrics and checkpoints, and says how it ended", async () => {
    const out = join(folder, "a", "deep", "run");
    const run = await train(source, { ...options, evalEvery: 5, out });
    const result = await run.finished;
    expect(run.out).toBe(out);
    expect(result).toMatchObject({
      reason: "done",
      steps: run.steps,
      tokens: run.steps * 32,
      checkpoint: join(out, "checkpoints", `step-000000${run.steps}`),
    });
    expect(run.steps).toBe(Math.floor(run.data.rowsPerEpoch / 32));
    expect(run.data.heldOut + run.data.rowsPerEpoch).toBe(700);
    expect((await readdir(out)).toSorted()).toEqual([
      "checkpoints",
      "config.json",
      "density.jsonl",
      "lock",
      "metrics.jsonl",
    ]);
    expect(await checkpointsOf(out)).toEqual(["step-00000018", `step-000000${run.steps}`]);
    const metrics = await metricsOf(out);
    expect(metrics.map(({ step }) => step)).toEqual(Array.from({ length: run.steps }, (_, i) => i + 1));
    expect(Object.keys(metrics[0]!)).toEqual(
      "step tokens epoch loss mse fvu auxk_loss l0 dead dead_fraction grad_norm skipped lr loss_scale skipped_rows".split(
        " ",
      ),
    );
    for (const { step, holdout_fvu } of metrics)
      expect(holdout_fvu !== undefined).toBe((step as number) % 5 === 0 || step === run.steps);
    const densities = (await readFile(join(out, "density.jsonl"), "utf8")).trimEnd().split("\n");
    expect(densities.length).toBe(metrics.filter(({ holdout_fvu }) => holdout_fvu !== undefined).length);
    // As `saetta eval` counts them on the same rows.
    const { holdout } = await chooseRows(source, withDefaults(options));
    const { rows, latents, dead } = await evaluate(result.sae, source.dtype, rowsOf(source, holdout));
    await result.sae.close();
    const last = JSON.parse(densities.at(-1)!) as HeldOutDensity & { step: number };
    expect(last).toMatchObject({
      step: run.steps,
      rows,
      latents,
      never: dead,
      density_unit: "log10 of the share of rows",
    });
    expect(last.density.reduce((sum, bin) => sum + bin.latents, 0)).toBe(latents - dead);
    expect(result.report).toMatchObject(metrics.at(-1)!);
    const { options: stored } = configFromJson(await readFile(join(out, "config.json"), "utf8"), "config.json");
    expect(stored).toMatchObject(options);
  });

  it("is the same run again under the same seed, from its config.json too, and another under another", async () => {
    const [a, b, c, d] = [fresh(), fresh(), fresh(), fresh()];
    await (await train(source, { ...options, seed: 3, out: a })).finished;
    await (await train(source, { ...options, seed: 3, out: b })).finished;
    await (await train(source, { ...options, seed: 4, out: c })).finished;
    const { options: stored } = configFromJson(await readFile(join(a, "config.json"), "utf8"), "config.json");
    await (await train(source, { ...stored, out: d })).finished;
    const last = (await checkpointsOf(a)).at(-1)!;
    expect(await checkpointOf(b, last)).toEqual(await checkpointOf(a, last));
    expect(await checkpointOf(d, last)).toEqual(await checkpointOf(a, last));
    expect(await metricsOf(d)).toEqual(await metricsOf(a));
    expect((await checkpointOf(c, (await checkpointsOf(c)).at(-1)!))["sae.safetensors"]).not.toEqual(
      (await checkpointOf(a, last))["sae.safetensors"],
    );
  });

  it("writes nothing with out: false", async () => {
    const before = await readdir(".");
    const run = await train(source, { ...options, out: false });
    expect(await run.finished).toMatchObject({ reason: "done", checkpoint: undefined });
    expect(run.out).toBeUndefined();
    expect(await readdir(".")).toEqual(before);
  });

  it("trains a short last batch with dropLast: false", async () => {
    const full = await train(source, { ...options, tokens: 100, out: false });
    expect(await full.finished).toMatchObject({ steps: 3, tokens: 96 });
    const short = await train(source, { ...options, tokens: 100, dropLast: false, out: false });
    expect(await short.finished).toMatchObject({ steps: 4, tokens: 100 });
    const tiny = await train(source, { ...options, tokens: 10, dropLast: false, out: false });
    expect(await tiny.finished).toMatchObject({ steps: 1, tokens: 10 });
  });

  it("goes over tiny data again and again", async () => {
    const tiny = memorySource(learnableRows(5, D, 3), D);
    const run = await train(tiny, { ...options, tokens: 640, out: false });
    expect(await run.finished).toMatchObject({ steps: 20, report: { epoch: 128 } });
  });
});

describe("start tokens", () => {
  const tokens = Array.from({ length: 512 }, (_, row) => (row % 16 === 0 ? 7 : 1));
  const started = (origin: { startToken?: number }, extra: TrainOptions, onNote?: (note: string) => void) =>
    train(memorySource(learnableRows(512, D, 12), D, { sequence: 16, tokens, origin }), {
      ...options,
      ...extra,
      out: false,
      onNote,
    });

  it("are left out where the file names them", async () => {
    const run = await started({ startToken: 7 }, {});
    await run.finished;
    expect(run.data.excluded).toBe(32);
  });

  it("stay, and it is said, where the file does not name them and nobody asked", async () => {
    const notes: string[] = [];
    const run = await started({}, {}, (note) => notes.push(note));
    await run.finished;
    expect(run.data.excluded).toBe(0);
    expect(run.config.excludeTokens).toBe("none");
    expect(notes.join()).toContain("no attribute start_token");
  });

  it("are an error where the file does not name them and somebody asked", async () => {
    await expect(started({}, { excludeTokens: "start" })).rejects.toThrow(/start_token/);
  });
});

describe("a run that is stopped", () => {
  it.each([
    ["by its signal before it began", 0],
    ["by its signal", 1],
    ["by stop()", 2],
    ["by break", 3],
    ["by a throw in the reader's loop", 4],
  ])("%s leaves a checkpoint of the step it came to", async (_, way) => {
    const out = fresh();
    const controller = new AbortController();
    if (way === 0) controller.abort();
    const run = await train(source, { ...options, epochs: 50, checkpointEvery: 0, out, signal: controller.signal });
    const follow = async () => {
      for await (const { step } of run) {
        if (step < 5) continue;
        if (way === 1) controller.abort();
        if (way === 2) expect((await run.stop()).reason).toBe("stopped");
        if (way === 3) break;
        if (way === 4) throw new Error("out of the loop");
      }
    };
    if (way === 4) await expect(follow()).rejects.toThrow("out of the loop");
    else await follow();
    const { reason, steps, tokens, checkpoint } = await run.finished;
    expect(reason).toBe("stopped");
    expect(tokens).toBe(steps * 32);
    if (way === 0) expect(steps).toBe(0);
    else expect(steps).toBeGreaterThanOrEqual(5);
    expect(steps).toBeLessThan(20);
    expect(await checkpointsOf(out)).toEqual([`step-${String(steps).padStart(8, "0")}`]);
    expect(checkpoint).toBe(join(out, "checkpoints", `step-${String(steps).padStart(8, "0")}`));
  });
});

describe("the reports of a run", () => {
  it("never slow it: a slow reader gets the newest, and the last", async () => {
    const run = await train(source, { ...options, out: false });
    const seen: Report[] = [];
    for await (const report of run) {
      seen.push(report);
      if (seen.length === 1) await run.finished;
    }
    expect(seen.length).toBe(2);
    expect(seen[1]!.step).toBe(run.steps);
  });

  it("go to every reader", async () => {
    const run = await train(source, { ...options, out: false });
    const read = async () => {
      const steps: number[] = [];
      for await (const { step } of run) steps.push(step);
      return steps;
    };
    const [a, b] = await Promise.all([read(), read()]);
    expect(a.at(-1)).toBe(run.steps);
    expect(b.at(-1)).toBe(run.steps);
    expect(a.length).toBeGreaterThan(3);
    expect(b.length).toBeGreaterThan(3);
  });

  it("end with the run's error", async () => {
    const broken = memorySource(learnableRows(700, D, 12), D, { sequence: 20 });
    let reads = 0;
    const read = broken.read.bind(broken);
    const run = await train(
      { ...broken, read: (...of) => (++reads > 1 ? Promise.reject(new Error("the disk is gone")) : read(...of)) },
      { ...options, statisticsRows: 16, mseScale: 1, zeroRows: "keep", out: false },
    );
    await expect(
      (async () => {
        for await (const _ of run);
      })(),
    ).rejects.toThrow("the disk is gone");
    await expect(run.finished).rejects.toThrow("the disk is gone");
  });
});

describe("--init", () => {
  it("starts from exactly those weights, pre-bias included", async () => {
    const first = fresh();
    await (await train(source, { ...options, out: first })).finished;
    const second = fresh();
    const controller = new AbortController();
    controller.abort();
    const run = await train(source, {
      engine: "reference",
      batch: 32,
      init: first,
      out: second,
      signal: controller.signal,
    });
    expect(run.config).toMatchObject({ latents: 24, k: 3 });
    await run.finished;
    const weights = (out: string, name: string) => readFile(join(out, "checkpoints", name, "sae.safetensors"));
    const last = (await checkpointsOf(first)).at(-1)!;
    expect(await weights(second, "step-00000000")).toEqual(await weights(first, last));
    // A start without --init has other weights.
    const third = fresh();
    await (await train(source, { ...options, out: third, signal: controller.signal })).finished;
    expect(await weights(third, "step-00000000")).not.toEqual(await weights(first, last));

    const wide = memorySource(learnableRows(300, D + 1, 4), D + 1);
    await expect(train(wide, { ...options, init: first, out: false })).rejects.toThrow(
      `${first}: reads rows of width 8, but the data has width 9; choose another --init`,
    );
    await expect(train(source, { ...options, latents: 25, init: first, out: false })).rejects.toThrow(UsageError);
    await expect(train(source, { ...options, encoderRescale: true, init: first, out: false })).rejects.toThrow(
      "--encoder-rescale and --init exclude each other",
    );
    await expect(train(source, { ...options, init: join(folder, "nowhere"), out: false })).rejects.toThrow(
      `has no autoencoder "nowhere"; choose one of `,
    );
  });
});

describe("the start", () => {
  it("has the geometric median as pre-bias, and with --encoder-rescale unit reconstructions of unit inputs", async () => {
    const controller = new AbortController();
    controller.abort();
    const startOf = async (more: TrainOptions) => {
      const out = fresh();
      await (await train(source, { ...options, ...more, out, signal: controller.signal })).finished;
      const file = await openSafetensors(join(out, "checkpoints", "step-00000000", "sae.safetensors"));
      const read = async (name: string) => {
        const bytes = await file.read(name);
        return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
      };
      const tensors = {
        encoder: await read("encoder.weight"),
        preBias: await read("b_dec"),
        decoder: await read("W_dec"),
      };
      await file.close();
      return tensors;
    };
    const plain = await startOf({});
    const rescaled = await startOf({ encoderRescale: true });
    for (const value of plain.preBias) expect(Math.abs(value - 1)).toBeLessThan(3);
    expect(plain.preBias.every((value) => value !== 0)).toBe(true);
    const factor = rescaled.encoder[0]! / plain.encoder[0]!;
    expect(factor).toBeGreaterThan(1.05);
    rescaled.encoder.forEach((value, at) => {
      expect(value / plain.encoder[at]!).toBeCloseTo(factor, 9);
    });
    expect(rescaled.decoder).toEqual(plain.decoder);
  });
});

describe("what cannot be run is refused", () => {
  const refused = (asked: TrainOptions & { out?: string | false }, of = source) =>
    expect(train(of, { ...options, out: false, ...asked })).rejects;

  it("with the folder, when it exists or cannot be written", async () => {
    const out = fresh();
    await mkdir(join(out, "mine"), { recursive: true });
    await refused({ out }).toThrow(
      `${out}: exists already, and a run never writes over another; choose another --out, or go on with saetta resume`,
    );
    expect(await readdir(out)).toEqual(["mine"]);
    const file = join(folder, "a-file");
    await writeFile(file, "mine");
    await refused({ out: file }).toThrow("exists already");
    await refused({ out: join(file, "run") }).toThrow(/a-file.run: could not be written \(.*\); choose another --out/);
    await refused({ out: join(file, "deep", "run") }).toThrow(/a-file.*: could not be written \(/);
    await refused({ out: "/proc/saetta/run" }).toThrow(/\/proc\/saetta: could not be written \(/);
    expect(await readFile(file, "utf8")).toBe("mine");
    if (process.getuid?.() !== 0) {
      const shut = fresh();
      await mkdir(shut);
      await chmod(shut, 0o500);
      await refused({ out: join(shut, "run") }).toThrow("could not be written");
    }
  });

  it("but not for a folder in which a start was killed", async () => {
    const out = fresh();
    await mkdir(out);
    for (const name of ["lock", "config.json.tmp"]) await writeFile(join(out, name), "half");
    const run = await train(source, { ...options, out, tokens: 64 });
    expect((await run.finished).reason).toBe("done");
    expect((await readdir(out)).toSorted()).toEqual([
      "checkpoints",
      "config.json",
      "density.jsonl",
      "lock",
      "metrics.jsonl",
    ]);
  });

  it("and leaves no folder behind", async () => {
    const same = memorySource(new Float32Array(700 * D).fill(1), D);
    const out = fresh();
    await refused({ out }, same).toThrow("all rows are the same");
    const spoilt = learnableRows(700, D, 12);
    spoilt[333 * D + 2] = Number.NaN;
    await refused({ out }, memorySource(spoilt, D)).toThrow("memory.h5, row 333: holds NaN or Inf");
    await expect(readdir(out)).rejects.toThrow("ENOENT");
  });

  it("with the numbers, when it does not fit in memory", async () => {
    await refused({ latents: 10_000_000_000 }).toThrow(
      /needs [\d.]+ TiB of memory and [\d.]+ [GMT]iB are free: .* for 10000000000 latents x 8 inputs|holds at most \d+ parameters/,
    );
    await refused({ latents: 100_000_000 }).toThrow(/needs [\d.]+ GiB of memory|holds at most \d+ parameters/);
    await refused({ batch: 10_000_000_000, tokens: 1e15 }).toThrow(
      /needs [\d.]+ TiB.*for a batch of 10000000000 rows.*lower --batch/,
    );
  });

  it("naming the option, also where JavaScript let it through", async () => {
    await refused({ k: 25 }).toThrow("--k 25 is more than the 24 latents");
    await refused({ k: 0 }).toThrow(/^k must be a number above 0, .*but is 0$/);
    await refused({ batch: 0.5 }).toThrow(/^batch must be a whole number of at least 1, .*but is 0.5$/);
    await refused({ latent: 3 } as TrainOptions).toThrow("unknown option latent");
    const undefinedIsNothing: Record<string, unknown> = { seed: undefined, k: undefined };
    const run = await train(source, { ...options, ...undefinedIsNothing, out: false } as TrainOptions & { out: false });
    expect(run.config).toMatchObject({ seed: 0, k: 24 });
    await run.finished;
  });

  it("when no row is left", async () => {
    const tokens = Array<number>(700).fill(3);
    await refused({ excludeTokens: [3] }, memorySource(learnableRows(700, D, 12), D, { tokens })).toThrow(
      "memory.h5: no row is left to train on",
    );
  });

  it("when another starts into the same folder", async () => {
    const out = fresh();
    const starts = await Promise.allSettled([train(source, { ...options, out }), train(source, { ...options, out })]);
    const runs = starts.flatMap((start) => (start.status === "fulfilled" ? [start.value] : []));
    expect(runs.length).toBe(1);
    expect(starts.find(({ status }) => status === "rejected")).toMatchObject({
      reason: { message: expect.stringMatching(/exists already|another process is writing/) },
    });
    expect((await runs[0]!.finished).reason).toBe("done");
  });
});

describe("--init of a BatchTopK autoencoder", () => {
  const kind = { ...options, auxk: 0, architecture: "batchtopk", k: 3, logEvery: 1, evalEvery: 0 } as const;
  const thresholds = async (out: string, more: TrainOptions) => {
    await (await train(source, { ...kind, ...more, out })).finished;
    return (await metricsOf(out)).map(({ threshold }) => threshold as number);
  };

  it("moves the threshold that the file has, and calibrates one that it never set", async () => {
    const [first, still] = [join(folder, "cut"), join(folder, "still")];
    const learned = (await thresholds(first, { tokens: 320 })).at(-1)!;
    const decay = { lr: 1e-12, init: first, tokens: 64 };
    const slow = await thresholds(join(folder, "slow"), { ...decay, thresholdDecay: 0.999 });
    expect(Math.abs(slow[0]! / learned - 1)).toBeLessThan(0.01);
    expect(slow[0]).not.toBe(learned);
    // With a decay of 0 it is the lowest value that the step kept.
    const lowest = (await thresholds(join(folder, "lowest"), { ...decay, thresholdDecay: 0 }))[0]!;
    expect(slow[0]! - learned).toBeCloseTo(0.001 * (lowest - learned), 6);
    // Where it is asked for, the mean begins with 0 or with the first value as in a new run.
    const zero = await thresholds(join(folder, "zero"), { ...decay, thresholdFrom: "zero" });
    expect(zero[0]).toBeCloseTo(0.01 * lowest, 6);
    const again = await thresholds(join(folder, "again"), { ...decay, thresholdFrom: "first" });
    expect(again[0]).toBeCloseTo(lowest, 6);

    expect((await thresholds(still, { tokens: 64, thresholdStart: 100 })).at(-1)).toBe(0);
    const calibrated = await thresholds(join(folder, "calibrated"), { ...decay, init: still, thresholdDecay: 0.999 });
    expect(calibrated[0]).toBeGreaterThan(0.5 * lowest);
  });
});

describe("rows that are not finite", () => {
  it("are left out and counted with --non-finite skip, in training and on the hold-out", async () => {
    const values = learnableRows(700, D, 12);
    for (let row = 0; row < 700; row += 10) values[row * D + 3] = Number.POSITIVE_INFINITY;
    const spoilt = memorySource(values, D, { sequence: 20 });
    const run = await train(spoilt, { ...options, nonFinite: "skip", epochs: 2, out: false });
    const { report } = await run.finished;
    expect(report).toMatchObject({ skipped: 0, holdout_fvu: expect.any(Number), fvu: expect.any(Number) });
    expect(report!.skipped_rows).toBeGreaterThan(110);
  });

  it("stop the run on the hold-out, too", async () => {
    const tokens = { sequence: 350, grain: 1 };
    const clean = memorySource(learnableRows(700, D, 12), D, tokens);
    const { heldOut } = await import("../data/holdout.ts");
    const held = heldOut(clean, 0.5, 0)[0]!;
    const values = learnableRows(700, D, 12);
    values[(held.first + 100) * D] = Number.NaN;
    const run = await train(memorySource(values, D, tokens), { ...options, holdout: 0.5, seed: 0, out: false });
    await expect(run.finished).rejects.toThrow(`memory.h5, row ${held.first + 100}: holds NaN or Inf`);
  });
});

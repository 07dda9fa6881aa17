import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { learnableRows } from "../../test/support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../../test/support/runs.ts";
import type { TrainOptions } from "../config.ts";
import { openSource } from "../data/open.ts";
import { UsageError } from "../util/errors.ts";
import { resume } from "./resume.ts";
import { train } from "./train.ts";

const D = 8;
const options: TrainOptions = {
  engine: "reference",
  latents: 24,
  k: 3,
  auxk: 6,
  batch: 16,
  lr: 1e-3,
  decay: 0.25,
  tokens: 16 * 40,
  keep: 1000,
};

let folder: string;
let data: string;
let more: string;
let made = 0;
const fresh = () => join(folder, `run-${made++}`);
const configOf = async (run: string) =>
  JSON.parse(await readFile(join(run, "config.json"), "utf8")) as Record<string, unknown> & {
    run: Record<string, unknown>;
  };

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-extend-"));
  const rows = learnableRows(800, D, 12);
  data = await writeActivations(join(folder, "acts-1.h5"), rows.subarray(0, 480 * D), [24, 20, D]);
  more = await writeActivations(join(folder, "acts-2.h5"), rows.subarray(480 * D), [16, 20, D]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function run(out: string, given: TrainOptions = {}, stopAt?: number, paths = [data]): Promise<string> {
  const source = await openSource(paths);
  try {
    const going = await train(source, { ...options, ...given, out });
    for await (const { step } of going) if (step === stopAt) break;
    await (await going.finished).sae.close();
    return out;
  } finally {
    await source.close();
  }
}

async function resumed(out: string, changes: Parameters<typeof resume>[1] = {}, stopAt?: number): Promise<string[]> {
  const notes: string[] = [];
  const going = await resume(out, { ...changes, onNote: (note) => notes.push(note) });
  for await (const { step } of going) if (step === stopAt) break;
  await (await going.finished).sae.close();
  return notes;
}

/** Copies a run as if it had been killed after the checkpoint of `step`. */
async function killedAfter(from: string, step: number): Promise<string> {
  const copy = fresh();
  await cp(from, copy, { recursive: true });
  for (const name of await checkpointsOf(copy))
    if (Number(name.slice(5)) > step) await rm(join(copy, "checkpoints", name), { recursive: true });
  return copy;
}

async function expectSame(a: string, b: string, step: number): Promise<void> {
  const name = `step-${String(step).padStart(8, "0")}`;
  expect(await checkpointOf(a, name)).toEqual(await checkpointOf(b, name));
  // The last step before an extension was evaluated because it was the last.
  const lines = async (of: string) => (await metricsOf(of)).map(({ holdout_fvu, holdout_mse, ...line }) => line);
  expect(await lines(a)).toEqual(await lines(b));
}

describe("a finished run that is extended", () => {
  it("derives again what came from the budget, lets the rate rise from where it was, and says so in one line", async () => {
    const out = await run(fresh());
    const before = await configOf(out);
    expect(before).toMatchObject({ warmup: 2, dead_tokens: 64, log_every: 1, eval_every: 4, checkpoint_every: 4 });
    expect(before.run).toMatchObject({ steps: 40, data: ["../acts-1.h5"] });
    const notes = await resumed(out, { tokens: 16 * 2000, evalEvery: 500 });
    expect(notes).toEqual([
      "the run is extended from 40 to 2,000 steps; the learning rate rises from 1.0e-4 to 1.0e-3 over 98 steps and falls over the last 500 steps; " +
        "from here --dead-tokens 64 to 3,200, --eval-every 4 to 500, --checkpoint-every 4 to 200, --log-every 1 to 2",
    ]);
    expect(await configOf(out)).toMatchObject({
      tokens: 32000,
      warmup: 2,
      dead_tokens: 3200,
      log_every: 2,
      eval_every: 500,
      checkpoint_every: 200,
      run: { steps: 2000, legs: [{ from: 40, before: 40, rise: 98 }] },
    });
    const metrics = await metricsOf(out);
    const rates = new Map(metrics.map(({ step, lr }) => [step, lr as number]));
    expect(rates.get(40)).toBeCloseTo(1e-4, 12);
    expect(rates.get(42)).toBeCloseTo(1e-4 + (9e-4 * 2) / 98, 12);
    expect(rates.get(138)).toBeCloseTo(1e-3, 12);
    expect(rates.get(1500)).toBeCloseTo(1e-3, 12);
    expect(rates.get(2000)).toBeCloseTo(1e-3 / 500, 12);
    // Nothing jumps: from one logged step to the next the rate changes by at most two steps of the
    // rise.
    const all = metrics.filter(({ step }) => (step as number) >= 38).map(({ lr }) => lr as number);
    for (const [i, rate] of all.slice(1).entries()) expect(Math.abs(rate - all[i]!)).toBeLessThan(1.01e-4);
  });

  it("keeps what was given explicitly", async () => {
    const given = { warmup: 0, deadTokens: 100, evalEvery: 20, checkpointEvery: 10, logEvery: 5 };
    const out = await run(fresh(), given);
    const notes = await resumed(out, { tokens: 16 * 80 });
    expect(notes).toEqual([
      "the run is extended from 40 to 80 steps; the learning rate rises from 1.0e-4 to 1.0e-3 over 0 steps and falls over the last 20 steps",
    ]);
    expect(await configOf(out)).toMatchObject({ dead_tokens: 100, eval_every: 20, checkpoint_every: 10, log_every: 5 });
  });

  it("may be killed and resumed, extended again, and set back before the extension, with the same bits", async () => {
    const given = { deadTokens: 64, evalEvery: 9, checkpointEvery: 7, logEvery: 1 };
    const whole = await run(fresh(), given);
    await resumed(whole, { tokens: 16 * 60 });
    await resumed(whole, { tokens: 16 * 90 });
    expect((await configOf(whole)).run).toMatchObject({
      legs: [
        { from: 40, before: 40, rise: 1 },
        { from: 60, before: 60, rise: 2 },
      ],
    });
    for (const step of [28, 42, 63, 84]) {
      const killed = await killedAfter(whole, step);
      expect(await resumed(killed)).toEqual([]);
      await expectSame(killed, whole, 90);
    }
  });
});

describe("an unfinished run that is extended", () => {
  const given = { warmup: 3, deadTokens: 64, evalEvery: 9, checkpointEvery: 7, logEvery: 1 };

  it("is the run with that budget where the rate did not fall yet", async () => {
    const long = await run(fresh(), { ...given, tokens: 16 * 60 });
    const short = await run(fresh(), given, 20);
    expect(await resumed(short, { tokens: 16 * 60 })).toEqual([
      "the run is extended from 40 to 60 steps; the learning rate continues from 1.0e-3 and falls over the last 15 steps",
    ]);
    await expectSame(short, long, 60);
    expect((await configOf(short)).run.legs).toBeUndefined();
  });

  it("rises again where it did, and may be killed after that", async () => {
    const out = await run(fresh(), given, 35);
    await resumed(out, { tokens: 16 * 60 }, 50);
    const leg = ((await configOf(out)).run.legs as { from: number; before: number }[])[0]!;
    expect(leg.before).toBe(40);
    expect(leg.from).toBeGreaterThanOrEqual(35);
    await resumed(out);
    const killed = await killedAfter(out, 42);
    await resumed(killed);
    await expectSame(killed, out, 60);
  });
});

describe("files that are appended", () => {
  const given = { epochs: 1, tokens: undefined, deadTokens: 64, evalEvery: 9, checkpointEvery: 5, logEvery: 1 };
  const short = async (out: string, stopAt?: number, batch = 16) => {
    const { tokens, ...rest } = { ...options, ...given, batch };
    const source = await openSource([data]);
    const going = await train(source, { ...rest, out });
    for await (const { step } of going) if (step === stopAt) break;
    const { data: about } = going;
    await (await going.finished).sae.close();
    await source.close();
    return about.rowsPerEpoch;
  };

  it("are the next epoch, and the run may be killed before and after", async () => {
    const whole = fresh();
    const before = await short(whole);
    const first = await metricsOf(whole);
    const notes = await resumed(whole, { data: [data, more] });
    const appended = Number(/([\d,]+) appended rows are epoch 2, later epochs have all rows/.exec(notes.join())?.[1]);
    expect(appended).toBeGreaterThan(200);
    expect(appended).toBeLessThanOrEqual(320);
    const metrics = await metricsOf(whole);
    expect(metrics.slice(0, first.length)).toEqual(first);
    const steps = Math.floor((before + appended) / 16);
    expect(metrics.at(-1)).toMatchObject({ step: steps, tokens: steps * 16 });
    expect(metrics.at(-1)!.epoch as number).toBeGreaterThan(1.9);
    expect(metrics.at(-1)!.epoch as number).toBeLessThanOrEqual(2);
    expect(await configOf(whole)).toMatchObject({
      data: [data, more],
      run: { appended: [{ rows: 480, epoch: 1 }], data: ["../acts-1.h5", "../acts-2.h5"] },
    });
    // Ended between the append and its first checkpoint, and later.
    for (const step of [first.length, 35, 40]) {
      const killed = await killedAfter(whole, step);
      await resumed(killed);
      await expectSame(killed, whole, steps);
    }
  });

  it("wait for the end of an epoch that is under way", async () => {
    const out = fresh();
    await short(out, 12);
    const untouched = fresh();
    await short(untouched);
    await resumed(out, { data: [data, more] });
    // The rows of the first epoch come in the same order.
    const losses = async (of: string) => (await metricsOf(of)).slice(0, 20).map(({ loss }) => loss);
    expect(await losses(out)).toEqual(await losses(untouched));
  });

  it("must follow the files of the run, and fill a batch", async () => {
    const out = fresh();
    await short(out, undefined, 32);
    await expect(resume(out, { data: [more, data] })).rejects.toThrow("is not what the run was trained on");
    const few = await writeActivations(join(folder, "few.h5"), learnableRows(20, D, 12, 3), [1, 20, D]);
    const refused = await resume(out, { data: [data, few] }).catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(UsageError);
    expect(String(refused)).toMatch(/few\.h5: the appended files have \d+ rows to train on, fewer than a batch of 32/);
    const flat = await writeActivations(join(folder, "flat.h5"), learnableRows(400, D, 12, 3), [400, D]);
    await expect(resume(out, { data: [data, flat] })).rejects.toThrow(
      "880 rows, no rows per sequence now, 480 rows, 20 rows per sequence then",
    );
  });
});

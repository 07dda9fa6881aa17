import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { learnableRows, memorySource } from "../../../test/support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../../../test/support/runs.ts";
import type { TrainOptions } from "../../config.ts";
import { fromRows } from "../../data/rows-source.ts";
import type { Source } from "../../data/source.ts";
import type { SweepFile } from "../../run-files/sweep.ts";
import { UsageError } from "../../util/errors.ts";
import { resume } from "../resume.ts";
import { train } from "../train.ts";
import { resumeSweep } from "./resume-sweep.ts";
import { sweep } from "./sweep.ts";

const D = 8;
const VALUES = learnableRows(700, D, 12);
const newSource = () => memorySource(VALUES, D, { sequence: 20 });
const base: TrainOptions = {
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
const fresh = () => join(folder, `sweep-${made++}`);
const sweepFile = async (dir: string) => JSON.parse(await readFile(join(dir, "sweep.json"), "utf8")) as SweepFile;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-sweep-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function trainAlone(options: TrainOptions, out: string, source: Source = newSource()): Promise<void> {
  const run = await train(source, { ...options, out });
  await run.finished;
  await run.close();
}

/** What each member left, without what depends on the clock. */
async function leftBy(dir: string, names: readonly string[]) {
  const found: Record<string, unknown> = {};
  for (const name of names) {
    const run = join(dir, name);
    const checkpoints = await checkpointsOf(run);
    found[name] = { checkpoints, metrics: await metricsOf(run), last: await checkpointOf(run, checkpoints.at(-1)!) };
  }
  return found;
}

/** The same of runs that train alone. */
async function leftAlone(members: readonly TrainOptions[], names: readonly string[]) {
  const dir = fresh();
  for (const [i, options] of members.entries()) await trainAlone(options, join(dir, names[i]!));
  return leftBy(dir, names);
}

const { k: _, auxk: __, ...others } = base;
const MEMBERS: readonly TrainOptions[] = [
  { ...base },
  { ...base, k: 5, ema: 0.9 },
  { ...base, latents: 40, lr: 1e-2 },
  { ...base, normalize: "layer_norm", mseScale: 0.5 },
  { ...base, architecture: "batchtopk" },
  { ...base, architecture: "matryoshka", prefixes: [8, 24] },
  { ...others, architecture: "jumprelu", targetL0: 4 },
  { ...base, seed: 7 },
  { ...base, epochs: 0.5 },
];

describe("sweep", () => {
  it.each([
    "reference",
    "cpu",
  ] as const)("gives each member the files that it would have alone (%s)", async (engine) => {
    const out = fresh();
    const members = MEMBERS.map((each) => ({ ...each, engine }));
    const run = await sweep(newSource(), members, { out });
    const names = run.members.map(({ name }) => name);
    const inOrder = (await sweepFile(out)).members;
    expect(inOrder[1]).toBe("latents24-k5-auxk6-lr0.003-ema0.9");
    expect(new Set(names)).toEqual(new Set(inOrder));
    expect(run.groups).toBe(2);
    const { reason, members: results } = await run.finished;
    expect(reason).toBe("done");
    expect(results.map(({ state }) => state)).toEqual(MEMBERS.map(() => "done"));
    expect((await readdir(out)).toSorted()).toEqual([...inOrder, "lock", "sweep.json"].toSorted());
    expect(await leftBy(out, inOrder)).toEqual(await leftAlone(members, inOrder));
  });

  it("reads the rows once for all members of a group", async () => {
    const bytesRead = (source: ReturnType<typeof newSource>) =>
      source.reads.reduce((sum, [, count]) => sum + count * D * 4, 0);
    const alone = newSource();
    await trainAlone(base, fresh(), alone);
    const source = newSource();
    const members = [3e-3, 1e-2, 3e-2].flatMap((lr) => [2, 3, 5].map((k) => ({ ...base, lr, k })));
    await (await sweep(source, members, { out: fresh() })).finished;
    expect(bytesRead(source)).toBe(bytesRead(alone));
  });

  it("continues with the same bits, wherever it was stopped and whatever was saved", async () => {
    const whole = fresh();
    await (await sweep(newSource(), MEMBERS, { out: whole })).finished;
    const { members: names } = await sweepFile(whole);
    const expected = await leftBy(whole, names);

    const out = fresh();
    const stopped = await sweep(newSource(), MEMBERS, { out });
    for await (const { members } of stopped) if (members.some(({ report }) => (report?.step ?? 0) >= 9)) break;
    const first = await stopped.finished;
    expect(first.reason).toBe("stopped");
    const steps = first.members.flatMap(({ report }) => report?.step ?? []);
    expect(new Set(steps).size).toBe(1);
    // As a kill would leave it: one member has not saved what the others have, one nothing at all.
    const saved = await checkpointsOf(join(out, names[1]!));
    await rm(join(out, names[1]!, "checkpoints", saved.at(-1)!), { recursive: true });
    await rm(join(out, names[2]!, "checkpoints"), { recursive: true });
    const { reason } = await (await resumeSweep(out, { data: newSource() })).finished;
    expect(reason).toBe("done");
    const found = await leftBy(out, names);
    const last = (of: Record<string, unknown>) =>
      Object.entries(of).map(([name, each]) => [name, (each as { last: unknown }).last]);
    expect(last(found)).toEqual(last(expected));
    for (const name of names) expect(await metricsOf(join(out, name))).toEqual(await metricsOf(join(whole, name)));
  });

  it("trains on rows that are read once, in one group", async () => {
    const chunks = Array.from({ length: 35 }, (_, i) => VALUES.subarray(i * 20 * D, (i + 1) * 20 * D));
    const once = () => fromRows(chunks, { dIn: D, rows: 700 });
    const members = [base, { ...base, k: 5 }, { ...base, lr: 1e-2 }].map((each) => ({ ...each, tokens: 640 }));
    const out = fresh();
    await (await sweep(once(), members, { out })).finished;
    const { members: names } = await sweepFile(out);
    const alone = fresh();
    for (const [i, name] of names.entries()) await trainAlone(members[i]!, join(alone, name), once());
    expect(await leftBy(out, names)).toEqual(await leftBy(alone, names));
    const seeds = [0, 1].map((seed) => ({ ...base, tokens: 640, seed }));
    await expect(sweep(once(), seeds, { out: fresh() })).rejects.toThrow("rows that are read once serve one group");
  });

  it("extends every member", async () => {
    const members = [base, { ...base, k: 5 }].map((each) => ({ ...each, epochs: 0.5 }));
    const out = fresh();
    await (await sweep(newSource(), members, { out })).finished;
    await (await resumeSweep(out, { data: newSource(), epochs: 1 })).finished;
    const { members: names } = await sweepFile(out);
    const alone = fresh();
    for (const [i, name] of names.entries()) {
      const run = join(alone, name);
      await trainAlone(members[i]!, run);
      const extended = await resume(run, { data: newSource(), epochs: 1 });
      await extended.finished;
      await extended.close();
    }
    expect(await leftBy(out, names)).toEqual(await leftBy(alone, names));
  });

  it("trains on where one member's numbers are not finite", async () => {
    const members = [base, { ...base, lr: 1e200 }, { ...base, lr: 1e-3 }];
    const out = fresh();
    const notes: string[] = [];
    const { reason, members: results } = await (
      await sweep(newSource(), members, { out, onNote: (n) => notes.push(n) })
    ).finished;
    expect(reason).toBe("done");
    expect(results.map(({ state }) => state)).toEqual(["done", "failed", "done"]);
    expect(results[1]!.error).toMatch(/^step \d+ is not finite/);
    expect(notes.some((note) => note.startsWith("lr1e+200: step"))).toBe(true);
    expect((await sweepFile(out)).failed).toMatchObject([{ name: "lr1e+200" }]);
    const { members: names } = await sweepFile(out);
    const kept = [names[0]!, names[2]!];
    expect(await leftBy(out, kept)).toEqual(await leftAlone([members[0]!, members[2]!], kept));
  });

  it("stops with the error where the rows cannot be read, and leaves nothing where it cannot begin", async () => {
    const broken = memorySource(VALUES, D, { sequence: 20, broken: 333 });
    const out = fresh();
    await expect(sweep(broken, [base, { ...base, k: 2 }], { out, onNote: () => undefined })).rejects.toThrow(
      "the disk is gone",
    );
    await expect(readdir(out)).rejects.toThrow("ENOENT");
    await expect(sweep(newSource(), [base, { ...base, k: 99 }], { out })).rejects.toThrow(/^k99: /);
    await expect(readdir(out)).rejects.toThrow("ENOENT");
  });

  it("refuses what is no sweep", async () => {
    const attempt = (members: readonly TrainOptions[]) => sweep(newSource(), members, { out: fresh() });
    await expect(attempt([])).rejects.toThrow(UsageError);
    await expect(attempt([base, base])).rejects.toThrow("two autoencoders of the sweep have the same options");
    await expect(attempt([base, { ...base, engine: "cpu" }])).rejects.toThrow("--engine is one for all autoencoders");
    await expect(attempt([base, { ...base, k: 2, shards: 2 }])).rejects.toThrow("without --shards");
  });
});

describe("halving", () => {
  const members = [1e-4, 3e-3, 1e-2, 1e-3].flatMap((lr) => [3, 5].map((k) => ({ ...base, lr, k, checkpointEvery: 5 })));

  it("ends the worse half within the same k, and keeps the bits of those that stay", async () => {
    const out = fresh();
    const { members: results } = await (await sweep(newSource(), members, { out, halve: true })).finished;
    const { rungs, members: names } = await sweepFile(out);
    expect(rungs.map(({ step, found, ended }) => [step, found.length, ended.length])).toEqual([
      [5, 4, 2],
      [5, 4, 2],
      [11, 2, 1],
      [11, 2, 1],
    ]);
    for (const { found, ended } of rungs) {
      const fvus = found.map(({ holdout_fvu }) => holdout_fvu!);
      expect(fvus).toEqual(fvus.toSorted((a, b) => a - b));
      expect(ended).toEqual(found.slice(found.length / 2).map(({ name }) => name));
      expect(new Set(found.map(({ name }) => /-k\d|^k\d/.exec(name)?.[0])).size).toBe(1);
    }
    expect(results.filter(({ state }) => state === "done")).toHaveLength(2);
    const kept = names.filter((_, i) => results[i]!.state === "done");
    const last = async (dir: string, name: string) => checkpointOf(join(dir, name), "step-00000021");
    const alone = fresh();
    for (const name of kept) {
      await trainAlone(members[names.indexOf(name)]!, join(alone, name));
      expect(await last(out, name)).toEqual(await last(alone, name));
    }
    for (const { name, state, report } of results)
      expect(report!.step).toBe(state === "done" ? 21 : rungs.find(({ ended }) => ended.includes(name))!.step);
  });

  it("decides the same after it was stopped", async () => {
    const whole = fresh();
    await (await sweep(newSource(), members, { out: whole, halve: true })).finished;
    const { members: names } = await sweepFile(whole);
    for (const until of [2, 5, 14]) {
      const out = fresh();
      const stopped = await sweep(newSource(), members, { out, halve: true });
      for await (const { members: all } of stopped) if (all.some(({ report }) => (report?.step ?? 0) >= until)) break;
      await stopped.finished;
      // A kill after the decision: a member that ended has not saved.
      const [ended] = (await sweepFile(out)).rungs.flatMap((rung) => rung.ended);
      if (ended !== undefined) await rm(join(out, ended, "checkpoints"), { recursive: true });
      await (await resumeSweep(out, { data: newSource() })).finished;
      expect(await sweepFile(out)).toEqual(await sweepFile(whole));
      const last = async (dir: string) =>
        Promise.all(
          names.map(async (name) => checkpointOf(join(dir, name), (await checkpointsOf(join(dir, name))).at(-1)!)),
        );
      expect(await last(out)).toEqual(await last(whole));
    }
  });

  it("says where there is nothing to compare", async () => {
    const attempt = (options: TrainOptions[]) => sweep(newSource(), options, { out: fresh(), halve: true });
    await expect(attempt([base, { ...base, k: 5 }])).rejects.toThrow("--halve finds no autoencoders to compare");
    await expect(attempt([base, { ...base, lr: 1 }].map((each) => ({ ...each, holdout: 0 })))).rejects.toThrow(
      "--halve compares on held-out rows",
    );
  });
});

import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointOf, checkpointsOf, metricsOf } from "../support/runs.ts";
import { saetta, start } from "./saetta.ts";

const D = 8;
const SMALL = ["--engine", "reference", "--latents", "24", "--auxk", "6", "--batch", "32"];
let folder: string;
let made = 0;
const fresh = () => `sweep-${made++}`;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-cli-sweep-"));
  await writeActivations(join(folder, "acts.h5"), learnableRows(640, D, 12), [32, 20, D]);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

const members = async (out: string) =>
  (JSON.parse(await readFile(join(folder, out, "sweep.json"), "utf8")) as { members: string[] }).members;

async function leftBy(out: string) {
  const names = await members(out);
  return Promise.all(
    names.map(async (name) => {
      const run = join(folder, out, name);
      const last = (await checkpointsOf(run)).at(-1)!;
      return { name, last, metrics: await metricsOf(run), state: await checkpointOf(run, last) };
    }),
  );
}

describe("saetta train with several values of an option", () => {
  it("says what it will take, trains one autoencoder for each combination, and shows them in a table", async () => {
    const out = fresh();
    const {
      code,
      out: text,
      err,
    } = await saetta(folder, "train", "acts.h5", ...SMALL, "--k", "2,3", "--lr", "3e-3,1e-2", "--out", out);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(await members(out)).toEqual(["k2-lr0.003", "k2-lr0.01", "k3-lr0.003", "k3-lr0.01"]);
    expect(text).toMatch(/^sweep +sweep-\d+$/m);
    expect(text).toMatch(
      /^needs +[\d.]+ MiB of memory, .* are free; [\d.]+ [KM]iB of disk, .* are free; (about|less)/m,
    );
    expect(text).toMatch(/^done +4 autoencoders: 4 done$/m);
    expect(text).toMatch(/^k3-lr0\.01 +done +19 +3 +24 +0\.01 /m);
    expect(text).not.toMatch(/NaN|undefined|Infinity/);
    const again = fresh();
    const alone = await saetta(
      folder,
      "train",
      "acts.h5",
      ...SMALL,
      "--k",
      "3",
      "--lr",
      "1e-2",
      "--out",
      join(again, "k3-lr0.01"),
    );
    expect(alone.code).toBe(0);
    const [one, other] = [out, again].map((each) => join(folder, each, "k3-lr0.01")) as [string, string];
    expect(await metricsOf(one)).toEqual(await metricsOf(other));
    expect(await checkpointOf(one, "step-00000019")).toEqual(await checkpointOf(other, "step-00000019"));
    const resumed = await saetta(folder, "resume", out, "--json");
    expect(resumed.code).toBe(0);
    expect(JSON.parse(resumed.out)).toMatchObject({ sweep: out, reason: "done" });
  });

  it("takes a grid file, whose lists are values where the option is a list", async () => {
    const out = fresh();
    const grid = [{ k: [2, 3] }, { architecture: "matryoshka", prefixes: [8, 24] }];
    await writeFile(join(folder, "grid.json"), JSON.stringify(grid));
    const { code } = await saetta(
      folder,
      "train",
      "acts.h5",
      ...SMALL,
      "--grid",
      "grid.json",
      "--seed",
      "0,1",
      "--out",
      out,
    );
    expect(code).toBe(0);
    const kinds = ["k2-seed0", "k2-seed1", "k3-seed0", "k3-seed1"];
    const others = ["seed0", "seed1"].map((seed) => `${seed}-architecture_matryoshka-prefixes8+24`);
    expect(await members(out)).toEqual([...kinds, ...others]);
  });

  it("lists and measures them, also as Markdown and CSV", async () => {
    const out = fresh();
    await saetta(folder, "train", "acts.h5", ...SMALL, "--k", "2,3,4", "--out", out);
    const csv = await saetta(folder, "ls", out, "--sort", "-k", "--csv");
    const [head, ...rows] = csv.out
      .trimEnd()
      .split("\n")
      .map((line) => line.split(","));
    expect(rows.map((row) => row[head!.indexOf("k")])).toEqual(["4", "3", "2"]);
    expect(rows.every((row) => Number(row[head!.indexOf("holdout_fvu")]) < 1)).toBe(true);
    const table = await saetta(folder, "ls", out, "--sort", "k", "--markdown");
    expect(table.out).toMatch(/^\| run \| state \| .*\n\| --- \| --- \| ---: .*\n\| sweep-\d+\/k2 \| done \| /);
    const wrong = await saetta(folder, "ls", out, "--sort", "nothing");
    expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining('no run has "nothing" to be sorted by') });
    const verified = await saetta(folder, "verify", out, "--json");
    expect(JSON.parse(verified.out)).toMatchObject({ runs: [{ sound: true }, { sound: true }, { sound: true }] });
    const judged = await saetta(folder, "eval", out, "--csv", "--engine", "reference");
    expect(
      judged.out
        .split("\n")
        .slice(1, 4)
        .map((line) => /k\d/.exec(line)?.[0]),
    ).toEqual(["k2", "k3", "k4"]);
    const markdown = await saetta(folder, "eval", out, "--markdown", "--engine", "reference");
    expect(markdown.out.match(/^\| sweep-\d+\/k\d\/checkpoints/gm)).toHaveLength(3);
  });

  it.each([
    [["--k", "2,3", "--nproc", "2"], "a sweep trains in one process, not in several ranks"],
    [["--k", "2,3", "--shards", "2"], "a sweep trains in one process, without --shards"],
    [["--k", "2", "--halve"], "--halve is of a sweep"],
    [["--k", "2,x"], "--k must be a number above 0"],
    [["--k", "2,99"], "k99: "],
    [["--k", "2,2"], "two autoencoders of the sweep have the same options"],
    [["--k", "2,3", "--halve", "engine"], "--halve names options"],
    [["--engine", "cpu,reference"], "--engine must be"],
  ])("is refused with %j", async (flags, message) => {
    const { code, err } = await saetta(folder, "train", "acts.h5", ...SMALL, ...flags, "--out", fresh());
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(message) });
    expect(err.trimEnd()).not.toContain("\n");
  });
});

describe("a sweep that is ended", () => {
  const flags = [...SMALL, "--k", "3", "--lr", "3e-3,1e-2", "--seed", "0,1", "--epochs", "3"];
  const often = ["--checkpoint-every", "7", "--log-every", "1", "--halve"];
  let whole: Awaited<ReturnType<typeof leftBy>>;
  beforeAll(async () => {
    expect((await saetta(folder, "train", "acts.h5", ...flags, ...often, "--out", "whole")).code).toBe(0);
    whole = await leftBy("whole");
  });

  it.each(["SIGTERM", "SIGUSR1", "SIGKILL"] as const)("by %s continues with the same bits", async (signal) => {
    const out = fresh();
    const running = start(folder, "train", "acts.h5", ...flags, ...often, "--out", out);
    // Wherever it is by then: the sweep has begun.
    await running.says("needs ");
    running.child.kill(signal);
    const { code } = await running.ended;
    expect(code).toBe({ SIGTERM: 143, SIGUSR1: 0, SIGKILL: null }[signal]);
    const [first] = await members(out);
    if (signal !== "SIGKILL") expect(await readdir(join(folder, out, first!))).toContain("checkpoints");
    expect((await saetta(folder, "resume", out)).code).toBe(0);
    expect(await leftBy(out)).toEqual(whole);
    expect(await readFile(join(folder, out, "sweep.json"), "utf8")).toBe(
      await readFile(join(folder, "whole", "sweep.json"), "utf8"),
    );
  });
});

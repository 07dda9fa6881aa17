import { mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { findSae } from "../inference/weights.ts";
import { inspect } from "../inspect/inspect.ts";
import { inspectionText } from "../inspect/print.ts";
import { listRuns, runsText } from "./ls.ts";

let folder: string;
const line = { step: 40, tokens: 640, epoch: 1, elapsed_s: 65, fvu: 0.25, l0: 3, dead: 2, holdout_fvu: 0.31 };
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-ls-"));
  const run = async (name: string, tokens: number, lines: readonly object[], at: number) => {
    await mkdir(join(folder, name, "checkpoints"), { recursive: true });
    const config = { data: [], k: 3, latents: 24, batch: 16, tokens, run: { steps: 40, derived: ["warmup"] } };
    await writeFile(join(folder, name, "config.json"), JSON.stringify(config));
    const log = join(folder, name, "metrics.jsonl");
    await writeFile(log, lines.map((each) => `${JSON.stringify(each)}\n`).join(""));
    await utimes(log, at, at);
    await writeFile(join(folder, name, "lock"), "process 4194304999 on elsewhere\n");
  };
  await run("old", 640, [line], 1_700_000_000);
  await run("sweep/new", 640, [{ ...line, holdout_fvu_ema: 0.29 }], 1_700_000_500);
  await run("begun", 6400, [{ ...line, tokens: 64, step: 4, holdout_fvu: undefined }], 1_600_000_000);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

it("lists runs, the one that wrote last first, with what eval takes", async () => {
  const runs = await listRuns([folder]);
  expect(
    runs.map(({ run, state, step, k, latents, holdout_fvu, fvu, l0, dead, elapsed_s }) => ({
      run,
      state,
      step,
      k,
      latents,
      holdout_fvu,
      fvu,
      l0,
      dead,
      elapsed_s,
    })),
  ).toEqual([
    {
      run: join(folder, "sweep", "new"),
      state: "done",
      step: 40,
      k: 3,
      latents: 24,
      holdout_fvu: 0.29,
      fvu: 0.25,
      l0: 3,
      dead: 2,
      elapsed_s: 65,
    },
    {
      run: join(folder, "old"),
      state: "done",
      step: 40,
      k: 3,
      latents: 24,
      holdout_fvu: 0.31,
      fvu: 0.25,
      l0: 3,
      dead: 2,
      elapsed_s: 65,
    },
    {
      run: join(folder, "begun"),
      state: "quiet",
      step: 4,
      k: 3,
      latents: 24,
      holdout_fvu: null,
      fvu: 0.25,
      l0: 3,
      dead: 2,
      elapsed_s: 65,
    },
  ]);
  const [head, first, , last] = runsText(runs, folder).split("\n");
  expect(head!.split(/ {2,}/)).toEqual([
    "run",
    "state",
    "step",
    "k",
    "latents",
    "held-out FVU",
    "FVU",
    "L0",
    "dead",
    "time",
  ]);
  expect(first!.split(/ {2,}/).slice(0, 9)).toEqual([
    "sweep/new",
    "done",
    "40",
    "3",
    "24",
    "0.2900",
    "0.2500",
    "3.000",
    "2",
  ]);
  expect(last!.split(/ {2,}/)[5]).toBe("-");
});

it("takes run folders, and says which folder is not there", async () => {
  expect((await listRuns([join(folder, "old")])).map(({ step }) => step)).toEqual([40]);
  expect(await listRuns([join(folder, "old", "checkpoints")])).toEqual([]);
  await expect(listRuns([join(folder, "nowhere")])).rejects.toThrow("nowhere: no such folder");
});

it("inspect shows how far a run is before its options, as values", async () => {
  const { facts } = await inspect(join(folder, "sweep", "new"));
  expect(facts).toMatchObject({
    step: 40,
    holdout_fvu: 0.31,
    holdout_fvu_ema: 0.29,
    l0: 3,
    config: { k: 3, data: [], run: { steps: 40, derived: ["warmup"] } },
  });
  const text = inspectionText(await inspect(join(folder, "sweep", "new")));
  expect(text.indexOf("holdout_fvu")).toBeLessThan(text.indexOf("latents"));
});

it("a folder of runs names those it holds", async () => {
  const held = /holds 3 autoencoders: begun, old, sweep.new; name one: /;
  const { facts } = await inspect(folder);
  const autoencoders = ["begun", "old", "sweep/new"].map((path) => expect.objectContaining({ path, format: "saetta" }));
  expect(facts).toMatchObject({ autoencoders });
  await expect(findSae(folder)).rejects.toThrow(held);
});

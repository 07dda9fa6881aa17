import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { linesOf, writeRun } from "../../test/support/run-folder.ts";
import { SaettaError } from "../util/errors.ts";
import { Runs } from "./runs.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "saetta-runs-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const idsOf = (runs: Runs) => runs.all.map(({ id }) => id);

describe("runs are found", () => {
  it("by their own folders and by those around them, each once", async () => {
    for (const name of ["b/run 10", "b/run 2", "a"]) writeRun(join(folder, name), linesOf(1, 2));
    mkdirSync(join(folder, "empty"));
    const runs = await Runs.open([folder, join(folder, "b/run 2")]);
    expect(runs.all.map(({ name }) => name)).toEqual(["a", "b/run 2", "b/run 10"]);
    expect(idsOf(runs)).toEqual(["a", "b~run~2", "b~run~10"]);
    expect(runs.get("b~run~2")!.folder).toBe(join(folder, "b/run 2"));
    expect((await Runs.open([join(folder, "a")])).all.map(({ name }) => name)).toEqual(["a"]);
  });

  it("when they come, and no more when they are gone, and keep their ids", async () => {
    writeRun(join(folder, "x y"), linesOf(1, 2));
    const runs = await Runs.open([folder]);
    const first = runs.get("x~y");
    writeRun(join(folder, "x:y"), linesOf(1, 2));
    await runs.scan();
    expect(runs.get("x~y")).toBe(first);
    expect(runs.get("x~y~2")!.name).toBe("x:y");
    renameSync(join(folder, "x y"), join(folder, "z"));
    await runs.scan();
    expect(idsOf(runs)).toEqual(["x~y~2", "z"]);
  });

  it("before they have a log where they are named, but not elsewhere: any folder may have a config.json", async () => {
    writeRun(join(folder, "a"), []);
    rmSync(join(folder, "a/metrics.jsonl"));
    expect(idsOf(await Runs.open([join(folder, "a")]))).toEqual(["a"]);
    expect(idsOf(await Runs.open([folder]))).toEqual([]);
  });

  it("not through links, nor with links in the place of files, nor in hidden folders", async () => {
    const outside = mkdtempSync(join(tmpdir(), "saetta-outside-"));
    writeRun(join(outside, "secret"), linesOf(1, 2));
    symlinkSync(join(outside, "secret"), join(folder, "linked"));
    mkdirSync(join(folder, "half"));
    writeFileSync(join(folder, "half/config.json"), "{}");
    symlinkSync(join(outside, "secret/metrics.jsonl"), join(folder, "half/metrics.jsonl"));
    writeRun(join(folder, ".hidden"), linesOf(1, 2));
    expect(idsOf(await Runs.open([folder]))).toEqual([]);
    rmSync(outside, { recursive: true });
  });

  it("nowhere but in folders", async () => {
    writeFileSync(join(folder, "file"), "");
    for (const name of ["file", "nothing"]) await expect(Runs.open([join(folder, name)])).rejects.toThrow(SaettaError);
  });
});

describe("a run", () => {
  it("shows its problems, and what is well beside them", async () => {
    writeRun(join(folder, "a"), linesOf(1, 3));
    writeFileSync(join(folder, "a/config.json"), "[1, 2]");
    const runs = await Runs.open([folder]);
    const run = runs.get("a")!;
    expect(await run.summary()).toMatchObject({
      step: 3,
      budget: null,
      problem: "config.json: does not hold a JSON object",
    });
    writeFileSync(join(folder, "a/config.json"), `{"tokens": 6400, "text": "${"x".repeat(300_000)}"}`);
    expect((await run.summary()).problem).toMatch(/config\.json: has \d+ bytes, more than 262144/);
    writeFileSync(join(folder, "a/config.json"), '{"tokens": 6400, "k": {"a": "<b>"}}');
    expect(await run.summary()).toMatchObject({ problem: null, budget: 6400 });
    await run.update();
    expect(run.details.config).toEqual([
      ["tokens", "6400"],
      ["k", '{"a":"<b>"}'],
    ]);
    writeFileSync(join(folder, "a/config.json"), `{"deep": ${"[".repeat(100_000)}${"]".repeat(100_000)}}`);
    await run.update();
    expect(run.details.config).toEqual([["deep", "…"]]);
    expect(run.details).toBe(run.details); // what has not changed is not sent again
  });

  it("knows what was measured longer ago than its summary looks", async () => {
    writeRun(join(folder, "a"), [
      ...linesOf(1, 20),
      ...linesOf(21, 900).map(({ holdout_fvu, holdout_mse, ...line }) => line),
    ]);
    const run = (await Runs.open([folder])).get("a")!;
    expect(new Map((await run.summary()).last).has("holdout_fvu")).toBe(false);
    await run.update();
    expect(new Map((await run.summary()).last).get("holdout_fvu")).toBeCloseTo(1.1 / Math.sqrt(20), 6);
    await run.unload();
    expect(run.columns.lines).toBe(0);
    await run.update();
    expect(run.columns.lines).toBe(900);
  });
});

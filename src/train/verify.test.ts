import { appendFile, cp, mkdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { scratch } from "../../test/support/scratch.ts";
import { described, newState } from "../../test/topk.ts";
import { optionsOf, trainOrResume, writeData } from "../../test/torture/subject.ts";
import { saveCheckpoint } from "../checkpoint/save.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { verificationText, verifyRun } from "./verify.ts";

let folder: string;
let whole: string;
let run: string;
beforeAll(async () => {
  folder = await scratch("verify");
  whole = join(folder, "whole");
  await trainOrResume(await writeData(folder), whole, optionsOf(12, 4, { logEvery: 2, evalEvery: 4 }));
});
beforeEach(async () => {
  run = join(folder, "run");
  await cp(whole, run, { recursive: true });
});
afterEach(() => rm(run, { recursive: true }));
afterAll(() => rm(folder, { recursive: true }));

const checkpoint = (step: number, ...name: string[]) =>
  join(run, "checkpoints", `step-000000${String(step).padStart(2, "0")}`, ...name);

describe("a run folder", () => {
  it("that is whole is whole", async () => {
    const found = await verifyRun(run);
    expect(found).toMatchObject({ path: run, sound: true, problems: [], resumesFrom: 12, leftovers: [] });
    expect(found.checkpoints.map(({ step, files, problem }) => [step, files, problem])).toEqual([
      [12, 5, undefined],
      [8, 5, undefined],
      [4, 5, undefined],
    ]);
    const lines = verificationText(found).split("\n");
    expect(lines[0]).toMatch(/^ok {7}\S+step-00000012 {2}5 files, [\d.]+ KiB$/);
    expect(lines.slice(3)).toEqual(["resume   goes on from step 12", "whole"]);
  });

  it("with a damaged checkpoint is not, and says from where a resume goes on", async () => {
    const file = checkpoint(12, "optimizer.safetensors");
    await truncate(file, 100);
    const found = await verifyRun(run);
    expect(found).toMatchObject({ sound: false, resumesFrom: 8, problems: [] });
    expect(verificationText(found)).toMatch(
      /^damaged {2}\S+optimizer\.safetensors: damaged: has 100 bytes, .*\nok .*\nok .*\nresume {3}goes on from step 8\nnot whole$/,
    );
    for (const step of [4, 8]) await truncate(checkpoint(step, "state.json"), 10);
    expect(await verifyRun(run)).toMatchObject({ sound: false, resumesFrom: undefined });
  });

  it("may have more logged than saved, but what was logged before must be there and make sense", async () => {
    const metrics = join(run, "metrics.jsonl");
    const text = await readFile(metrics, "utf8");
    await appendFile(metrics, '{"step": 14, "lo');
    expect((await verifyRun(run)).sound).toBe(true);
    const problemOf = async (changed: string) => {
      await writeFile(metrics, changed);
      const { sound, problems, resumesFrom } = await verifyRun(run);
      expect([sound, resumesFrom]).toEqual([false, undefined]);
      return problems.join();
    };
    expect(await problemOf(text.slice(0, 50))).toMatch(
      /^\S+metrics\.jsonl: has 50 bytes, but \S+step-00000012 was saved when it had \d+$/,
    );
    expect(await problemOf(text.replace('"step":4', '"step":2'))).toMatch(
      /metrics\.jsonl: line 2 is of step 2, and the one before of step 2$/,
    );
    expect(await problemOf(text.replace('"step":6', '"step":x'))).toMatch(
      /metrics\.jsonl: line 3 is no report of a step$/,
    );
    expect(await problemOf(`${text.trimEnd()} \n`)).toMatch(
      /metrics\.jsonl: byte \d+, where \S+ was saved, is within a line$/,
    );
    await rm(metrics);
    expect((await verifyRun(run)).problems.join()).toMatch(/metrics\.jsonl: cannot be read \(no such file or folder\)/);
  });

  it("is told of a damaged config, and of what was left", async () => {
    await writeFile(join(run, "config.json"), "{");
    await mkdir(checkpoint(12, "..", ".aside-step-00000016"));
    await mkdir(checkpoint(12, "..", "step-00000010.damaged"));
    const found = await verifyRun(run);
    expect(found).toMatchObject({ sound: false, leftovers: [".aside-step-00000016", "step-00000010.damaged"] });
    expect(found.problems.join()).toMatch(/config\.json: not valid JSON/);
    expect(verificationText(found)).toContain("left     .aside-step-00000016, step-00000010.damaged");
  });

  it("without a checkpoint begins anew", async () => {
    await rm(join(run, "checkpoints"), { recursive: true });
    const found = await verifyRun(run);
    expect(found).toMatchObject({ sound: true, resumesFrom: 0 });
    expect(verificationText(found)).toBe("no checkpoint yet\nresume   begins anew\nwhole");
  });
});

describe("a checkpoint folder", () => {
  it("is looked at alone", async () => {
    expect(await verifyRun(checkpoint(8))).toMatchObject({ sound: true, checkpoints: [{ step: 8 }] });
    await truncate(checkpoint(8, "manifest.json"), 10);
    const found = await verifyRun(checkpoint(8));
    expect([found.sound, found.checkpoints[0]?.problem]).toEqual([
      false,
      expect.stringContaining("manifest.json: damaged"),
    ]);
  });

  it("whose tensors are not those of its description is not whole, though no byte has changed", async () => {
    await using engine = createReferenceEngine();
    const shape = { d: 3, n: 5, k: 2, auxk: 1 };
    const state = newState(engine, shape);
    const path = await saveCheckpoint(run, {
      engine,
      state,
      step: 99,
      description: { ...described({ ...shape, n: 6 }), saetta: undefined },
      progress: {},
    });
    const { sound, checkpoints } = await verifyRun(path);
    expect([sound, checkpoints[0]?.problem]).toEqual([
      false,
      `${join(path, "sae.safetensors")}: tensor "encoder.weight" is [5, 3], but cfg.json says [6, 3]`,
    ]);
  });
});

it("what is neither is refused", async () => {
  for (const path of [folder, join(folder, "acts.h5"), join(folder, "nowhere")]) {
    await expect(verifyRun(path)).rejects.toThrow(
      `${path}: is neither a run folder nor a checkpoint: it has no config.json and no manifest.json`,
    );
  }
});

/**
 * What a power cut leaves of a run folder, at any moment and in any order of what was not synced
 * yet, holds the checkpoint that was saved last.
 */

import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkpointsFolder, savedSteps } from "../../src/checkpoint/layout.ts";
import { newestCheckpoint, openCheckpoint } from "../../src/checkpoint/load.ts";
import { pruneCheckpoints, saveCheckpoint } from "../../src/checkpoint/save.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { stepName } from "../../src/run-files/names.ts";
import { type Chooser, type Recording, recording } from "../support/power.ts";
import { scratch } from "../support/scratch.ts";
import { through } from "../support/seam.ts";
import { described, newState } from "../topk.ts";
import { cases, enumerated } from "./harness.ts";
import { digestOf, exists, optionsOf, trainOrResume, writeData } from "./subject.ts";

let folder: string;
beforeAll(async () => {
  folder = await scratch("power");
});
afterAll(() => rm(folder, { recursive: true }));

/** The folder as the power cut leaves it, for `look`. */
async function afterCut(
  recorded: Recording,
  length: number,
  choose: Chooser,
  look: (run: string) => Promise<void>,
): Promise<void> {
  const found = join(folder, "found");
  try {
    await recorded.restore(length, choose, found);
    await look(found);
  } finally {
    await rm(found, { recursive: true, force: true });
  }
}

/** Nothing that was not synced survives; all of it. */
const EXTREMES: readonly Chooser[] = [() => 0, () => 1];

describe("checkpoints that are saved and removed one after the other", () => {
  let recorded: Recording;
  /** Effects when the save of each step had returned. */
  const returned: { readonly step: number; readonly length: number }[] = [];

  beforeAll(async () => {
    const run = join(folder, "run");
    await mkdir(run);
    recorded = recording(run);
    await using engine = createReferenceEngine();
    const shape = { d: 3, n: 5, k: 2, auxk: 1 };
    const state = newState(engine, shape, true);
    const saetta = { version: "0", engine: engine.description, normalization: "none", emaDecay: 0.9 } as const;
    for (let step = 1; step <= 5; step++) {
      await saveCheckpoint(
        run,
        { engine, state, step, description: { ...described(shape), saetta }, progress: { step } },
        recorded.storage,
      );
      returned.push({ step, length: recorded.length() });
      await pruneCheckpoints(run, step < 4 ? 2 : 1, recorded.storage);
    }
  });

  async function expectSafe(run: string, length: number): Promise<void> {
    const promised = returned.findLast((save) => save.length <= length)?.step ?? 0;
    const { checkpoint, refusals } = await newestCheckpoint(run);
    expect(refusals).toEqual([]);
    expect(checkpoint?.step ?? 0).toBeGreaterThanOrEqual(promised);
    for (const step of await savedSteps(run)) await openCheckpoint(join(checkpointsFolder(run), stepName(step)));
  }

  it("are whole, or not there, after every call", async () => {
    await enumerated("power-prefix", recorded.length(), 30, async (length) => {
      for (const choose of EXTREMES) await afterCut(recorded, length, choose, (run) => expectSafe(run, length));
    });
  });

  it("and when what was not synced is kept in part, in any order", async () => {
    await cases("power", { short: 50, long: 1000 }, async (rng) => {
      const length = 1 + rng.below(recorded.length());
      const share = rng.uniform();
      const choose = () => (rng.uniform() < share ? (rng.below(3) === 0 ? rng.uniform() : 1) : 0);
      await afterCut(recorded, length, choose, (run) => expectSafe(run, length));
    });
  });
});

describe("a run", () => {
  const STEPS = 12;
  const options = optionsOf(STEPS, 3, { keep: 2 });
  let recorded: Recording;
  let data: string;
  let whole: string;
  let logged: Buffer;

  beforeAll(async () => {
    data = await writeData(folder);
    const root = join(folder, "root");
    await mkdir(root);
    recorded = recording(root);
    const run = join(root, "a", "run"); // whose parent is made, too
    await through(recorded.storage, () => trainOrResume(data, run, options));
    whole = await digestOf(run, STEPS);
    logged = await readFile(join(run, "metrics.jsonl"));
  });

  it("goes on after a power cut at any moment, and ends with the same bits", async () => {
    await cases("power-run", { short: 8, long: 300 }, async (rng) => {
      const length = 1 + rng.below(recorded.length());
      const share = rng.below(3) / 2;
      await afterCut(
        recorded,
        length,
        () => (rng.uniform() < share ? 1 : 0),
        async (root) => {
          const run = join(root, "a", "run");
          if (await exists(run)) {
            const { checkpoint, refusals } = await newestCheckpoint(run);
            expect(refusals).toEqual([]);
            const bytes = Number(checkpoint?.progress.metrics_bytes ?? 0);
            const kept = bytes === 0 ? Buffer.alloc(0) : await readFile(join(run, "metrics.jsonl"));
            expect(kept.subarray(0, bytes).equals(logged.subarray(0, bytes))).toBe(true);
          }
          await trainOrResume(data, run, options);
          expect(await digestOf(run, STEPS)).toBe(whole);
        },
      );
    });
  });

  it("that is over is on the disk", async () => {
    await afterCut(
      recorded,
      recorded.length(),
      () => 0,
      async (root) => {
        expect(await digestOf(join(root, "a", "run"), STEPS)).toBe(whole);
        expect(await exists(join(root, "a", "run", "config.json"))).toBe(true);
      },
    );
  });
});

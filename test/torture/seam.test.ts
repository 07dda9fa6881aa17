/**
 * A run that is killed, or meets a full or failing disk, at any call of the seam goes on to the
 * same end.
 */

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { savedSteps } from "../../src/checkpoint/layout.ts";
import { newestCheckpoint } from "../../src/checkpoint/load.ts";
import type { TrainOptions } from "../../src/config.ts";
import { SaettaError } from "../../src/util/errors.ts";
import { scratch } from "../support/scratch.ts";
import { callsOf, failingAt, faulty, killedAt, through } from "../support/seam.ts";
import { enumerated } from "./harness.ts";
import { digestOf, exists, optionsOf, trainOrResume, writeData } from "./subject.ts";

const STEPS = 12;
/**
 * Five checkpoints, of which two are kept: the later saves find 1 to 3 before them, whole, old or
 * half removed.
 */
const [EVERY, KEEP] = [3, 2];
const options = optionsOf(STEPS, EVERY, { keep: KEEP });
const SHORT = 10;

let folder: string;
let data: string;
let whole: string;
let calls: number;
beforeAll(async () => {
  folder = await scratch("seam");
  data = await writeData(folder);
  calls = await callsOf(() => trainOrResume(data, join(folder, "whole"), options));
  whole = await digestOf(join(folder, "whole"), STEPS);
});
afterAll(() => rm(folder, { recursive: true }));

/** A folder for one run, which is gone afterwards. */
async function inRun(work: (run: string) => Promise<void>): Promise<void> {
  const run = join(folder, "run");
  try {
    await work(run);
  } finally {
    await rm(run, { recursive: true, force: true });
  }
}

const failureOf = (work: Promise<void>): Promise<unknown> =>
  work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );

async function expectWhole(run: string): Promise<void> {
  expect(await digestOf(run, STEPS)).toBe(whole);
  expect((await newestCheckpoint(run)).refusals).toEqual([]);
}

describe("a run whose writing is cut short", () => {
  it("makes more calls than there are files", () => {
    expect(calls).toBeGreaterThan(200);
  });

  it("by a kill at any call goes on to the same bits", async () => {
    await enumerated("kill", calls, SHORT, (at) =>
      inRun(async (run) => {
        const killed = await failureOf(through(killedAt(at), () => trainOrResume(data, run, options)));
        // Lines that come together are written in one call, so that no two runs make quite as many.
        if (at < calls - STEPS) expect(killed).toBeDefined();
        // Old ones go only once the new one is there.
        const [newest = 0, ...older] = await savedSteps(run);
        expect(1 + older.length).toBeGreaterThanOrEqual(Math.min(KEEP, newest / EVERY));
        await trainOrResume(data, run, options);
        await expectWhole(run);
      }),
    );
  });

  it("by a kill, and again while it goes on, ends with the same bits", async () => {
    await enumerated("kill-twice", calls, SHORT, (at) =>
      inRun(async (run) => {
        await failureOf(through(killedAt(at), () => trainOrResume(data, run, options)));
        await failureOf(through(killedAt((at * 7) % calls), () => trainOrResume(data, run, options)));
        await trainOrResume(data, run, options);
        await expectWhole(run);
      }),
    );
  });

  describe.each(["ENOSPC", "EIO"] as const)("by %s", (code) => {
    it("at any call says so in one line, and goes on to the same bits", async () => {
      await enumerated(code, calls, SHORT, (at) =>
        inRun(async (run) => {
          const failed = await failureOf(through(failingAt(at, code), () => trainOrResume(data, run, options)));
          if (failed !== undefined) {
            // What could not be logged is written again at the next checkpoint, and such a run ends
            // well.
            expect(failed).toBeInstanceOf(SaettaError);
            expect((failed as SaettaError).message).toMatch(
              code === "EIO"
                ? /^\S+: could not be written \(the disk reports an error\)/
                : /^\S+(metrics\.jsonl|checkpoints\S*): no room on the disk: a checkpoint needs \d+ bytes|^\S+: could not be written \(no space left on the disk\)/,
            );
          }
          if (failed !== undefined || !(await exists(join(run, "config.json"))))
            await trainOrResume(data, run, options);
          await expectWhole(run);
        }),
      );
    });
  });

  it("with --on-disk-full wait goes on by itself once there is room", async () => {
    const waiting: TrainOptions = { ...options, onDiskFull: "wait" };
    await enumerated("wait", calls, SHORT, (at) =>
      inRun(async (run) => {
        const notes: string[] = [];
        let waits = 0;
        let full = false;
        const storage = faulty(({ name, path, number }) => {
          if (name === "later") {
            full = ++waits < 3;
            return undefined;
          }
          const saving = path.includes("checkpoints") || path.endsWith("metrics.jsonl");
          if (number === at) full = saving;
          return full && ["write", "create", "sync", "makeFolder"].includes(name) ? noRoom(path) : undefined;
        });
        await through(storage, () => trainOrResume(data, run, waiting, (note) => notes.push(note)));
        if (waits > 0) {
          expect(waits).toBe(3);
          expect(notes.join("\n")).toMatch(
            /(no room on the disk|could not be written \(no space left on the disk).*wait\)\n.*there is room on the disk again/,
          );
        }
        await expectWhole(run);
      }),
    );
  });
});

function noRoom(path: string): SaettaError {
  const code = "ENOSPC";
  return new SaettaError("could not be written (no space left on the disk)", {
    where: path,
    cause: Object.assign(new Error(code), { code }),
  });
}

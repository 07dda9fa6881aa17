/** How old a run's log is, on a machine whose clock is set while it is watched. */

import { mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { appendLines, linesOf, writeRun } from "../../test/support/run-folder.ts";
import { Runs } from "./runs.ts";

const HOUR = 3600;
let folder: string;
let now: number;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "saetta-run-"));
  writeRun(join(folder, "run"), linesOf(1, 20));
  now = 0;
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

/** The state of the run at a look, `seconds` after the look before. */
async function looks(): Promise<(seconds: number) => Promise<string>> {
  const run = (await Runs.open([folder], () => now)).get("run")!;
  return async (seconds) => {
    now += 1000 * seconds;
    return (await run.summary()).state;
  };
}

/** Sets the clock of the system, by so many seconds. */
function setClock(seconds: number): void {
  const real = Date.now;
  vi.spyOn(Date, "now").mockImplementation(() => real() + 1000 * seconds);
}

/** The log was written so many seconds ago by the system's clock. */
function written(seconds: number): void {
  const at = Date.now() / 1000 - seconds;
  utimesSync(join(folder, "run", "metrics.jsonl"), at, at);
}

describe("a run whose log is not written is quiet", () => {
  it("after a minute, counted from the last line", async () => {
    written(30);
    const state = await looks();
    expect([await state(0), await state(29), await state(2)]).toEqual(["running", "running", "quiet"]);
    appendLines(join(folder, "run"), "metrics.jsonl", linesOf(21, 22));
    expect([await state(1), await state(58), await state(3)]).toEqual(["running", "running", "quiet"]);
  });

  it("from the first look on, where it was written long ago", async () => {
    written(HOUR);
    expect(await (await looks())(0)).toBe("quiet");
  });

  it("no sooner and no later when the clock is set forward or back while it is watched", async () => {
    for (const jump of [HOUR, -HOUR]) {
      written(0);
      const state = await looks();
      expect(await state(0)).toBe("running");
      setClock(jump);
      expect([await state(30), await state(31)]).toEqual(["running", "quiet"]);
      appendLines(join(folder, "run"), "metrics.jsonl", linesOf(23, 24)); // as if before the jump
      expect([await state(1), await state(58), await state(60)]).toEqual(["running", "running", "quiet"]);
      vi.restoreAllMocks();
    }
  });

  it("a minute after the first look, where its last line is from the future", async () => {
    written(-HOUR);
    const state = await looks();
    expect([await state(0), await state(59), await state(2)]).toEqual(["running", "running", "quiet"]);
  });
});

describe("a run of a sweep", () => {
  it("says of which, with its options, and how it ended early", async () => {
    const lock = "process 4194304999 on elsewhere";
    for (const name of ["a", "b", "c"])
      writeRun(join(folder, "sweep", name), linesOf(1, 20), { lr: 0.5, shuffle: true });
    writeFileSync(join(folder, "sweep", "c", "lock"), lock);
    const sweep = {
      members: ["a", "b"],
      rungs: [{ step: 20, found: [{ name: "b", holdout_fvu: 1, l0: 8 }], ended: ["b"] }],
    };
    writeFileSync(join(folder, "sweep", "sweep.json"), JSON.stringify(sweep));
    const runs = await Runs.open([join(folder, "sweep")], () => now);
    const found = await Promise.all(["a", "b", "c"].map((name) => runs.get(name)!.summary()));
    expect(found.map(({ sweep: of, state }) => [of, state])).toEqual([
      ["sweep", "running"],
      ["sweep", "halved"],
      [null, "running"],
    ]);
    expect(Object.fromEntries(found[0]!.options)).toMatchObject({ k: 8, lr: 0.5, shuffle: true });
    writeFileSync(join(folder, "sweep", "sweep.json"), "{");
    expect((await runs.get("a")!.summary()).sweep).toBe(null);
  });
});

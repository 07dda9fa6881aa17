import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { linesOf, writeRun } from "../../test/support/run-folder.ts";
import { Runs } from "./runs.ts";
import { Watch } from "./watch.ts";

let folder: string;
let watch: Watch;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-watch-"));
  for (const id of ["a", "b"]) writeRun(join(folder, id), linesOf(1, 20));
  watch = new Watch(await Runs.open([folder]), { look: 5, scan: 5, keep: 50 });
});
afterEach(() => {
  watch.close();
  rmSync(folder, { recursive: true });
});

describe("whoever looks is told", () => {
  it("of its runs once they were read, though it came while others were read", async () => {
    const [a, b] = [watch.runs.get("a")!, watch.runs.get("b")!];
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const update = vi.spyOn(a, "update").mockImplementation(() => held);
    watch.add({ shown: ["a"], looked: () => undefined });
    await expect.poll(() => update).toHaveBeenCalled();
    const told: number[] = [];
    watch.add({ shown: ["b", "nothing"], looked: () => told.push(b.columns.lines) });
    release();
    await expect.poll(() => told.length).toBeGreaterThan(1);
    expect(new Set(told)).toEqual(new Set([20]));
  });

  it("as long as it looks; what nobody shows any more is forgotten", async () => {
    const a = watch.runs.get("a")!;
    const looked = vi.fn();
    const leave = watch.add({ shown: ["a"], looked });
    await expect.poll(() => a.columns.lines).toBe(20);
    expect(watch.watchers).toBe(1);
    await expect.poll(() => looked.mock.calls.length).toBeGreaterThan(3);
    // A summary that says the same is the same.
    const [first, second] = looked.mock.calls
      .slice(-2)
      .map(([summaries]) => (summaries as Map<string, unknown>).get("a"));
    expect(second).toBe(first);
    leave();
    expect(watch.watchers).toBe(0);
    const calls = looked.mock.calls.length;
    await expect.poll(() => a.columns.lines).toBe(0);
    expect(looked.mock.calls.length).toBe(calls);
  });
});

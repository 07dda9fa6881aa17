import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratch } from "../../test/support/scratch.ts";
import { type Call, failingAt, faulty, through } from "../../test/support/seam.ts";
import type { Report } from "../run-files/metrics.ts";
import { MetricsFile } from "./metrics-file.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await scratch("metrics");
  path = join(folder, "metrics.jsonl");
});
afterEach(() => rm(folder, { recursive: true }));

const report = (step: number, more: object = {}): Report => ({ step, ...more }) as Report;
const text = () => readFile(path, "utf8");

describe("metrics.jsonl", () => {
  it("has each line as it is appended, and what was before", async () => {
    await writeFile(path, "old\nlater\n");
    const file = await MetricsFile.open(folder, 4);
    expect(await text()).toBe("old\n");
    file.append(report(1));
    while ((await text()).length < 15) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(await text()).toBe('old\n{"step":1}\n');
    for (let step = 2; step < 5; step++) file.append(report(step));
    expect(await file.flush()).toBe(48);
    await file.close();
    expect(await text()).toBe('old\n{"step":1}\n{"step":2}\n{"step":3}\n{"step":4}\n');
  });

  it("is on the disk now and then, so that memory holds no more than a MiB of lines", async () => {
    const calls: Call["name"][] = [];
    await through(
      faulty(({ name }) => {
        calls.push(name);
        return undefined;
      }),
      async () => {
        const file = await MetricsFile.open(folder, 0);
        for (let step = 1; step <= 30; step++) file.append(report(step, { more: "x".repeat(100_000) }));
        await file.close();
      },
    );
    expect(calls.filter((name) => name === "sync").length).toBeGreaterThanOrEqual(1);
    const steps = (await text())
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as Report).step);
    expect(steps).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  });

  it.each([
    "open",
    "truncate",
    "write",
    "sync",
  ] as const)("whose %s failed says so at the flush, and is whole after the next", async (name) => {
    const at = { open: 1, truncate: 2, write: 3, sync: 4 }[name];
    await through(failingAt(at, "ENOSPC"), async () => {
      const opened = MetricsFile.open(folder, 0);
      if (at < 3) return expect(opened).rejects.toThrow(`${path}: could not be written (no space left on the disk)`);
      const file = await opened;
      file.append(report(1));
      const flushed = file.flush();
      file.append(report(2));
      if (name === "sync") {
        await expect(flushed).rejects.toThrow("no space left on the disk");
        await truncate(path, 0); // the system may have dropped what it could not put on the disk
      }
      if (name === "write") expect(await flushed).toBe(11); // what failed before is tried again
      file.append(report(3));
      expect(await file.flush()).toBe(33);
      await file.close();
      expect(await text()).toBe('{"step":1}\n{"step":2}\n{"step":3}\n');
    });
  });
});

/**
 * Nothing that a step, a log line, an evaluation or a checkpoint takes is kept: memory and open
 * files of a long run stay as they were after its first steps.
 */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { whyNoCpu } from "../support/engines.ts";
import { CHILD_MS } from "../support/limits.ts";
import { scratch } from "../support/scratch.ts";
import { LONG } from "./harness.ts";

interface Sample {
  readonly step: number;
  readonly rss: number;
  readonly heap: number;
  readonly files: number;
}

const MiB = 1024 * 1024;
/**
 * What the allocator and the collector may move about, in memory and on JavaScript's heap. A leak
 * of 100 bytes a step would be 1.8 MiB in 19,000 steps.
 */
const [MEMORY, HEAP] = LONG ? [3 * MiB, MiB] : [4 * MiB, MiB / 2];
const STEPS = LONG ? 20_000 : 3000;
const FROM = 1000;

async function samplesOf(engine: string): Promise<readonly Sample[]> {
  const folder = await scratch("leak");
  try {
    // Pools that grow as long as nothing else needs the memory would hide what is kept.
    const args = [
      "--expose-gc",
      "--max-semi-space-size=1",
      resolve("test/torture/leak.mjs"),
      engine,
      String(STEPS),
      folder,
    ];
    const { stdout } = await promisify(execFile)(process.execPath, args, {
      timeout: CHILD_MS,
      env: { ...process.env, MALLOC_ARENA_MAX: "1" },
    });
    return JSON.parse(stdout) as Sample[];
  } finally {
    await rm(folder, { recursive: true });
  }
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

describe.each(["reference", "cpu"])("%s", (engine) => {
  it(`${STEPS} steps leave memory and descriptors as they were after the first ${FROM}`, async (context) => {
    const reason = existsSync("/proc/self/fd")
      ? engine === "cpu"
        ? whyNoCpu()
        : undefined
      : "this system does not tell which files are open";
    if (reason !== undefined) context.skip(reason);
    const samples = (await samplesOf(engine)).filter(({ step }) => step >= FROM);
    expect(samples.length).toBeGreaterThanOrEqual(4);
    const third = Math.ceil(samples.length / 3);
    const [early, late] = [samples.slice(0, third), samples.slice(-third)];
    const growth = (of: (sample: Sample) => number) => median(late.map(of)) - median(early.map(of));
    const grown = {
      rss: growth(({ rss }) => rss),
      heap: growth(({ heap }) => heap),
      files: growth(({ files }) => files),
    };
    if (LONG) process.stdout.write(`${engine}: ${JSON.stringify(grown)} of ${JSON.stringify(samples.at(-1))}\n`);
    expect(grown.files).toBe(0);
    expect(grown.heap).toBeLessThan(HEAP);
    expect(grown.rss).toBeLessThan(MEMORY);
  });
});

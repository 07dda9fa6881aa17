/**
 * Real processes, killed: at any time, inside the writing of a checkpoint, while they resume, and
 * by the signals that ask for an end. They go on to the same bits.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, rm, truncate } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newestCheckpoint } from "../../src/checkpoint/load.ts";
import type { Rng } from "../../src/util/rng.ts";
import { CLI } from "../cli/saetta.ts";
import { whyNoCpu } from "../support/engines.ts";
import { CHILD_MS } from "../support/limits.ts";
import { scratch } from "../support/scratch.ts";
import { cases } from "./harness.ts";
import { digestOf, flagsOf, optionsOf, trainOrResume, writeData } from "./subject.ts";

const STEPS = 200;
const KILL = resolve("test/torture/kill.mjs");
const CODES = { SIGINT: 130, SIGTERM: 143, SIGUSR1: 0 } as const;

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly err: string;
  readonly ms: number;
}

/** The command in a process of its own; `during` is called with it. */
async function command(
  args: readonly string[],
  env: Record<string, string> = {},
  during?: (kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Ended> {
  const began = performance.now();
  const loaded = Object.keys(env).length > 0 ? ["--import", KILL] : [];
  const child = spawn(process.execPath, [...loaded, CLI, ...args], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, ...env },
    timeout: CHILD_MS,
    killSignal: "SIGKILL",
  });
  let err = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
  });
  during?.((signal) => child.kill(signal));
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return { code, signal, err, ms: performance.now() - began };
}

let folder: string;
let data: string;
const ENGINES = ["reference", "cpu"] as const;
type EngineName = (typeof ENGINES)[number];
/**
 * What an uninterrupted run of each engine leaves, how long it takes, and how many calls its
 * checkpoints are.
 */
const whole = new Map<EngineName, { readonly digest: string; readonly ms: number; readonly calls: number }>();

const train = (engine: EngineName, run: string) => [
  "train",
  data,
  "--out",
  run,
  ...flagsOf(optionsOf(STEPS, 20, { engine, ...(engine === "cpu" ? { threads: 2 } : {}) })),
];

beforeAll(async () => {
  folder = await scratch("kills");
  data = await writeData(folder);
  for (const engine of ENGINES) {
    if (engine === "cpu" && whyNoCpu() !== undefined) continue;
    const [run, count] = [join(folder, `whole-${engine}`), join(folder, "count")];
    const { code, err, ms } = await command(train(engine, run), { SAETTA_KILL_COUNT: count });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    whole.set(engine, { digest: await digestOf(run, STEPS), ms, calls: Number(await readFile(count, "utf8")) });
  }
});
afterAll(() => rm(folder, { recursive: true }));

/**
 * A run of one of the engines that ends early, and goes on to its end: by `saetta resume`, or in
 * this process, which is quicker.
 */
async function killed(rng: Rng, end: (engine: EngineName, run: string) => Promise<void>): Promise<void> {
  const engines = [...whole.keys()];
  const engine = engines[rng.below(engines.length)]!;
  const run = join(folder, "run");
  try {
    await end(engine, run);
    expect((await newestCheckpoint(run)).refusals, engine).toEqual([]);
    const notes: string[] = [];
    await trainOrResume(data, run, optionsOf(STEPS, 20, { engine, threads: 2 }), (note) => notes.push(note));
    expect(
      notes.filter((note) => !note.includes("spent its budget") && !note.includes("starts again")),
      engine,
    ).toEqual([]);
    expect(await digestOf(run, STEPS), engine).toBe(whole.get(engine)!.digest);
  } finally {
    await rm(run, { recursive: true, force: true });
  }
}

const later = (ms: number, then: () => void) => setTimeout(then, ms).unref();

describe("a run of 200 steps", () => {
  it("killed at any time goes on to the same bits", async () => {
    await cases("sigkill", { short: 3, long: 200 }, (rng) =>
      killed(rng, async (engine, run) => {
        const ms = rng.uniform() * whole.get(engine)!.ms;
        const { signal, code } = await command(train(engine, run), {}, (kill) => later(ms, () => kill("SIGKILL")));
        expect([signal ?? code]).toContainEqual(expect.toBeOneOf(["SIGKILL", 0]));
      }),
    );
  });

  it("killed inside the writing of a checkpoint goes on to the same bits", async () => {
    await cases("sigkill-write", { short: 3, long: 100 }, (rng) =>
      killed(rng, async (engine, run) => {
        const at = 1 + rng.below(whole.get(engine)!.calls);
        expect((await command(train(engine, run), { SAETTA_KILL_AT: String(at) })).signal).toBe("SIGKILL");
      }),
    );
  });

  it("killed while it goes on goes on to the same bits", async () => {
    await cases("sigkill-resume", { short: 2, long: 20 }, (rng) =>
      killed(rng, async (engine, run) => {
        const { calls, ms } = whole.get(engine)!;
        await command(train(engine, run), { SAETTA_KILL_AT: String(1 + rng.below(calls)) });
        const again = ["resume", run];
        if (rng.below(2) === 0) await command(again, {}, (kill) => later(rng.uniform() * ms, () => kill("SIGKILL")));
        else await command(again, { SAETTA_KILL_AT: String(1 + rng.below(calls >> 1)) });
      }),
    );
  });

  it("asked to end at any time saves, exits with the code of the signal, and goes on to the same bits", async () => {
    await cases("signals", { short: 2, long: 60 }, (rng) =>
      killed(rng, async (engine, run) => {
        const name = (Object.keys(CODES) as (keyof typeof CODES)[])[rng.below(3)]!;
        const ms = rng.uniform() * whole.get(engine)!.ms;
        const { code, signal, err } = await command(train(engine, run), {}, (kill) => later(ms, () => kill(name)));
        // Before Saetta is there to hear it, the system ends the process, or Node waits for a
        // debugger at SIGUSR1.
        if (signal !== null) expect([signal, err]).toEqual([name, ""]);
        else if (err.startsWith("\nsaetta: ")) expect([code, err.split("\n").slice(2)]).toEqual([CODES[name], [""]]);
        else expect([code, err.replaceAll(/.*[Dd]ebugger.*\n|For help, see.*\n/g, "")]).toEqual([0, ""]);
      }),
    );
  });

  it("killed is gone on with by saetta resume, and verified", async () => {
    const run = join(folder, "run");
    const { calls, digest } = whole.get("reference")!;
    await command(train("reference", run), { SAETTA_KILL_AT: String(calls >> 1) });
    expect(existsSync(join(run, "config.json"))).toBe(true);
    expect(await command(["verify", run])).toMatchObject({ code: 0, err: "" });
    expect(await command(["resume", run])).toMatchObject({ code: 0, err: "" });
    expect(await digestOf(run, STEPS)).toBe(digest);
    await truncate(join(run, "checkpoints", "step-00000200", "cfg.json"), 9);
    expect(await command(["verify", run])).toMatchObject({ code: 1, err: "" });
    await rm(run, { recursive: true });
  });
});

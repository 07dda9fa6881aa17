/**
 * One writer a run folder: of several that start at once exactly one runs, and one that was killed
 * is in nobody's way.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { start } from "../cli/saetta.ts";
import { scratch } from "../support/scratch.ts";
import { cases, LONG } from "./harness.ts";
import { digestOf, exists, flagsOf, optionsOf, trainOrResume, writeData } from "./subject.ts";

const STEPS = 12;
const options = optionsOf(STEPS, 6);

let folder: string;
let data: string;
let whole: string;
beforeAll(async () => {
  folder = await scratch("lock");
  data = await writeData(folder);
  await trainOrResume(data, join(folder, "whole"), options);
  whole = await digestOf(join(folder, "whole"), STEPS);
});
afterAll(() => rm(folder, { recursive: true }));

/**
 * Starters that have loaded everything and wait for a line on stdin: those that race in `npm run
 * torture`, where starting processes would take most of the time.
 */
const STARTER = `
  import { lockRun } from ${JSON.stringify(new URL("../../dist/checkpoint/lock.js", import.meta.url).href)};
  import { discardRunFolder, createRunFolder } from ${JSON.stringify(new URL("../../dist/train/run-folder.js", import.meta.url).href)};
  let lock;
  process.stdin.setEncoding("utf8").on("data", async (text) => {
    for (const line of text.trim().split("\\n")) {
      const [word, path] = line.split(" ");
      try {
        if (word === "lock") lock = lockRun(path);
        if (word === "create") lock = await createRunFolder(path, { data: [] }, { derived: [], legs: [], appended: [] });
        if (word === "release") lock.release();
        if (word === "discard") await discardRunFolder(path, lock);
        console.log("done");
      } catch (error) {
        console.log(error.name + " " + error.message);
      }
    }
  });
  console.log("ready");
`;

class Starter {
  readonly child: ChildProcess;
  #text = "";
  #waiting: (() => void) | undefined;

  constructor() {
    this.child = spawn(process.execPath, ["--input-type=module", "-e", STARTER], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.#text += text;
      this.#waiting?.();
    });
  }

  say(words: string): void {
    this.child.stdin!.write(`${words}\n`);
  }

  /** The next line that it prints. */
  async line(): Promise<string> {
    while (!this.#text.includes("\n")) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    const end = this.#text.indexOf("\n");
    const line = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    return line;
  }

  async kill(): Promise<void> {
    const gone = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await gone;
  }
}

describe("several that start at once", () => {
  it("get one lock between them, which is free again as soon as its holder was killed", async () => {
    const starters = Array.from({ length: 8 }, () => new Starter());
    try {
      for (const each of starters) expect(await each.line()).toBe("ready");
      await cases("lock", { short: 12, long: 100 }, async (rng, seed) => {
        const run = join(folder, `lock-${seed}`);
        const create = rng.below(2) === 0;
        if (!create) await mkdir(run);
        const racing = starters.slice(0, 2 + rng.below(7));
        for (const each of racing) each.say(`${create ? "create" : "lock"} ${run}`);
        const lines = await Promise.all(racing.map((each) => each.line()));
        const winners = racing.filter((_, i) => lines[i] === "done");
        const refusals = lines.filter((line) => line !== "done");
        expect(winners.length, lines.join("\n")).toBe(1);
        for (const line of refusals)
          expect(line).toMatch(/^SaettaError .*(another process is writing to this run|exists already)/);
        // However it ends, the next start succeeds at once.
        const end = create ? ["discard", "kill"][rng.below(2)] : ["release", "kill"][rng.below(2)];
        if (end === "kill") {
          await winners[0]!.kill();
          const at = starters.indexOf(winners[0]!);
          starters[at] = new Starter();
          expect(await starters[at]!.line()).toBe("ready");
        } else {
          winners[0]!.say(`${end} ${run}`);
          expect(await winners[0]!.line()).toBe("done");
        }
        const next = starters[rng.below(starters.length)]!;
        const word = end === "discard" ? "create" : "lock";
        next.say(`${word} ${run}`);
        expect(await next.line()).toBe("done");
        next.say(`release ${run}`);
        expect(await next.line()).toBe("done");
        await rm(run, { recursive: true });
      });
    } finally {
      for (const each of starters) await each.kill();
    }
  });

  it("as commands, run once: the others exit 1 and say why", async () => {
    await cases("race", { short: 2, long: 100, regressions: [2033780515] }, async (rng) => {
      const run = join(folder, "run");
      const resuming = rng.below(2) === 0;
      if (resuming) await trainOrResume(data, run, optionsOf(STEPS / 2, 6, { decay: 0 }));
      const args = resuming
        ? ["resume", run, "--tokens", "10M"]
        : ["train", data, "--out", run, ...flagsOf({ ...options, tokens: 10_000_000 })];
      const running = Array.from({ length: LONG ? 2 + rng.below(7) : 2 }, () => start(folder, ...args));
      try {
        // Once all but one have been refused, the one that runs is killed.
        let refused = 0;
        const ends = await new Promise<readonly { code: number | null; err: string }[]>((resolve, reject) => {
          for (const { ended } of running) {
            ended.then(() => {
              refused++;
              if (refused === running.length - 1) for (const { child } of running) child.kill("SIGKILL");
            }, reject);
          }
          Promise.all(running.map(({ ended }) => ended)).then(resolve, reject);
        });
        const losers = ends.filter(({ code }) => code !== null);
        expect(ends.length - losers.length).toBe(1);
        for (const { code, err } of losers) {
          expect(code).toBe(1);
          expect(err).toMatch(/^saetta: \S+: (another process is writing to this run|exists already)[^\n]*\n$/);
        }
        // One that was killed before it had written its config is no run yet.
        const begun = resuming || (await exists(join(run, "config.json")));
        const next = start(folder, ...(begun ? ["resume", run, "--tokens", "10M"] : args));
        await next.says("engine ");
        next.child.kill("SIGTERM");
        expect((await next.ended).code).toBe(143);
      } finally {
        for (const { child } of running) child.kill("SIGKILL");
        await rm(run, { recursive: true, force: true });
      }
    });
  });
});

it("a run that was raced for ends as one that was not", async () => {
  const run = join(folder, "run");
  const running = [1, 2].map(() => start(folder, "train", data, "--out", run, ...flagsOf(options)));
  const codes = (await Promise.all(running.map(({ ended }) => ended))).map(({ code }) => code);
  expect(codes.toSorted()).toEqual([0, 1]);
  expect(await digestOf(run, STEPS)).toBe(whole);
});

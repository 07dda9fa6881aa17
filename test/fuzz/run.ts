/**
 * The parent of children that run mutations: it kills those that hang, sees those that die, and
 * goes on behind the mutation that did it.
 */

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export interface Failure {
  readonly format: string;
  /** `--seed` of the mutation. */
  readonly number: number;
  readonly what: string;
  /** What was done to the file. */
  readonly words: string;
  /**
   * A matter of time or memory, which other work or earlier mutations of the same process may have
   * used: it counts if it fails again, alone.
   */
  readonly doubtful?: boolean;
}

/**
 * A mutation that used this many times the processor time it may use hangs. The child itself
 * reports one that only took too long.
 */
const HANGS = 4;
/** A mutation that waits uses no processor time. This is long enough for a busy machine. */
const MAX_SECONDS = 300;
const TICKS_PER_SECOND = 100;

export interface Asked {
  readonly format: string;
  readonly first: number;
  readonly count: number;
  /** Of the processor, that a mutation may take. */
  readonly seconds: number;
  readonly onFailure?: (failure: Failure) => void;
}

export interface Outcome {
  readonly failures: readonly Failure[];
  /** Mutations that were read as if nothing were wrong with them. */
  readonly accepted: number;
}

/** Runs mutations first .. first + count - 1; what failed, in their order. */
export async function fuzz({ format, first, count, seconds, onFailure }: Asked): Promise<Outcome> {
  const failures: Failure[] = [];
  let accepted = 0;
  const end = first + count;
  for (let next = first; next < end; ) {
    const found = await runChild(format, next, end - next, seconds);
    for (const failure of found.failures) {
      if (failure.doubtful === true && (await runChild(format, failure.number, 1, seconds)).failures.length === 0)
        continue;
      failures.push(failure);
      onFailure?.(failure);
    }
    next = found.next;
    accepted += found.accepted;
  }
  return { failures, accepted };
}

interface Ended extends Outcome {
  /** The first mutation that was not run. */
  readonly next: number;
}

function runChild(format: string, first: number, count: number, allowed: number): Promise<Ended> {
  const script = fileURLToPath(new URL("child.js", import.meta.url));
  const args = ["--expose-gc", "--max-old-space-size=256", script, format, ...[first, count, allowed].map(String)];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const failures: Failure[] = [];
  let accepted = 0;
  let current: number | undefined;
  let since = { cpu: 0, at: performance.now() };
  let verdict: string | undefined;
  let stderr = "";
  child.stderr.on("data", (piece: Buffer) => {
    stderr = (stderr + piece.toString()).slice(-600);
  });
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => {
    const [, kind, number, rest] = /^([saf]) (\d+) ?(.*)$/.exec(line) ?? [];
    if (kind === "s") {
      current = Number(number);
      since = { cpu: Number(rest), at: performance.now() };
    } else if (kind === "a") accepted++;
    else if (kind === "f") {
      failures.push({
        format,
        number: Number(number),
        ...(JSON.parse(rest!) as Pick<Failure, "what" | "words" | "doubtful">),
      });
    }
  });
  const watch = setInterval(() => {
    const looked = current;
    const cpu = cpuSeconds(child.pid) - since.cpu;
    const seconds = (performance.now() - since.at) / 1000;
    if (current === undefined || verdict !== undefined || (cpu < HANGS * allowed && seconds < MAX_SECONDS)) return;
    // The child may be further than the lines read so far: read what it has written first.
    setImmediate(() => {
      if (current !== looked) return;
      verdict = `hangs: ${cpu.toFixed(1)} s of the processor, ${seconds.toFixed(0)} s in all`;
      child.kill("SIGKILL");
    });
  }, 200);
  return new Promise((settle, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearInterval(watch);
      if (code === 0) return settle({ failures, accepted, next: first + count });
      if (current === undefined) return reject(new Error(`the child for ${format} did not start: ${stderr}`));
      failures.push({
        format,
        number: current,
        doubtful: verdict !== undefined,
        what: verdict ?? `the process ended with ${signal ?? `code ${code}`}: ${stderr}`,
        words: "",
      });
      settle({ failures, accepted, next: current + 1 });
    });
  });
}

/**
 * Time of the processor that a process took, in user and system mode; 0 where there is no /proc.
 */
function cpuSeconds(pid: number | undefined): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1")
      .replace(/^.*\) /s, "")
      .split(" ");
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}

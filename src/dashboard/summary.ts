/** What the last lines of a run's log say of it. */

import { hostname } from "node:os";
import { flatValues, type Report } from "../run-files/metrics.ts";
import { holderOf } from "../run-files/names.ts";
import type { RunState, RunSummary } from "./api.ts";

/** Lines and seconds over which the rate of late is taken. */
const RATE_LINES = 30;
const RATE_SECONDS = 60;
/**
 * A run whose process cannot be asked is quiet after so long, and after so many times the time that
 * a line took of late.
 */
const QUIET_SECONDS = 60;
const QUIET_LINES = 10;

type Values = Readonly<Record<string, unknown>>;

export interface SummaryInput {
  /** config.json; undefined while there is none. */
  readonly config: Values | undefined;
  /** The last lines of metrics.jsonl, the newest last. */
  readonly lines: readonly Values[];
  /** What the file `lock` says: "process 123 on host". */
  readonly lock: string | undefined;
  /** Seconds since metrics.jsonl was written. */
  readonly age: number;
  /** Whether a process of this machine lives. */
  readonly alive: (pid: number) => boolean;
}

export function summarize({
  config,
  lines,
  lock,
  age,
  alive,
}: SummaryInput): Omit<RunSummary, "id" | "name" | "written" | "features" | "sweep" | "options" | "problem"> {
  const newest = lines.at(-1);
  const tokens = numberIn(newest, "tokens");
  const budget = budgetOf(config, newest);
  const batch = numberIn(config, "batch") ?? 1;
  const done = tokens !== null && budget !== null && budget - tokens < (config?.drop_last === false ? 1 : batch);
  const state = stateOf(done, newest !== undefined, lock, age, secondsPerLine(lines), alive);
  const elapsed = numberIn(newest, "elapsed_s");
  const rate =
    state === "done" && tokens !== null && elapsed !== null && elapsed > 0 ? tokens / elapsed : rateOf(lines);
  return {
    state,
    step: numberIn(newest, "step"),
    tokens,
    budget,
    elapsed_s: elapsed,
    rate,
    left_s:
      state === "running" && tokens !== null && budget !== null && rate !== null
        ? Math.max(0, budget - tokens) / rate
        : null,
    last: Object.entries(latest(lines)).slice(0, 64),
  };
}

/**
 * Rows in all: told in the config, or as passes over data of which the log says how long one is.
 */
function budgetOf(config: Values | undefined, newest: Values | undefined): number | null {
  const tokens = numberIn(config, "tokens");
  if (tokens !== null) return tokens;
  const epochs = numberIn(config, "epochs");
  const [done, epoch] = [numberIn(newest, "tokens"), numberIn(newest, "epoch")];
  return epochs !== null && done !== null && epoch !== null && epoch > 0 ? Math.round((epochs * done) / epoch) : null;
}

function rateOf(lines: readonly Values[]): number | null {
  const newest = lines.at(-1);
  const [tokens, elapsed] = [numberIn(newest, "tokens"), numberIn(newest, "elapsed_s")];
  if (newest === undefined || tokens === null || elapsed === null) return null;
  let since: Values | undefined;
  for (const line of lines.slice(-RATE_LINES, -1).toReversed()) {
    const at = numberIn(line, "elapsed_s");
    if (at === null || (since !== undefined && elapsed - at > RATE_SECONDS)) break;
    since = line;
  }
  const [before, then] = [numberIn(since, "tokens"), numberIn(since, "elapsed_s")];
  if (before === null || then === null || !(elapsed > then) || !(tokens > before))
    return numberIn(newest, "tokens_per_second");
  return (tokens - before) / (elapsed - then);
}

function secondsPerLine(lines: readonly Values[]): number {
  const [first, last] = [numberIn(lines[0], "elapsed_s"), numberIn(lines.at(-1), "elapsed_s")];
  return first === null || last === null || lines.length < 2 ? 0 : (last - first) / (lines.length - 1);
}

function stateOf(
  done: boolean,
  began: boolean,
  lock: string | undefined,
  age: number,
  perLine: number,
  alive: (pid: number) => boolean,
): RunState {
  if (done) return "done";
  const holder = holderOf(lock);
  if (holder?.host === hostname() && !alive(holder.pid)) return "stopped";
  if (!began) return "waiting";
  return age > Math.max(QUIET_SECONDS, QUIET_LINES * perLine) ? "quiet" : "running";
}

/** The last finite value of each number but those that place a line. */
function latest(lines: readonly Values[]): Record<string, number> {
  const found = new Map<string, number>();
  for (const line of lines) {
    for (const [name, value] of flatValues(line)) {
      if (typeof value === "number" && Number.isFinite(value)) found.set(name, value);
      else if (value === null) found.delete(name);
    }
  }
  for (const place of ["step", "tokens", "elapsed_s"] satisfies (keyof Report)[]) found.delete(place);
  return Object.fromEntries(found);
}

function numberIn(values: Values | undefined, name: string): number | null {
  const value = values !== undefined && Object.hasOwn(values, name) ? values[name] : undefined;
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

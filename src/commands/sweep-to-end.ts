/** What `train` and `resume` do alike with a sweep: from its start to its end, shown. */

import type { SweepReport, SweepResult, SweepRun } from "../train/sweep/sweep-run.ts";
import { formatBytes } from "../util/bytes.ts";
import { counted } from "../util/format.ts";
import { createProgressLine, formatCount } from "../util/progress.ts";
import { dataLines, timeWords } from "./follow.ts";
import { listRuns, runsText } from "./ls.ts";
import { note } from "./note.ts";
import { keepPage, showRun } from "./page.ts";
import type { RunFlags } from "./run-to-end.ts";
import { catchSignals } from "./signals.ts";

interface Control {
  readonly signal: AbortSignal;
  readonly onNote: (note: string) => void;
}

/** Starts a sweep with `begin`, follows it to its end and sets the exit code. */
export async function sweepToEnd(begin: (control: Control) => Promise<SweepRun>, flags: RunFlags): Promise<void> {
  const ending = catchSignals("finishing the step and saving a checkpoint of each autoencoder");
  try {
    const run = await begin({ signal: ending.signal, onNote: note });
    const page = await showRun(run.out, flags);
    try {
      const json = flags.json === true;
      if (!json) say(...headLines(run));
      const result = await follow(run);
      if (json) say(JSON.stringify(resultJson(run, result)));
      else say(...(await resultLines(run, result)));
      const failed = result.members.some(({ state }) => state === "failed");
      process.exitCode = ending.exitCode() || (failed ? 1 : 0);
      await keepPage(page, ending, json);
    } finally {
      await page.close();
    }
  } finally {
    ending.close();
  }
}

async function follow(run: SweepRun): Promise<SweepResult> {
  const progress = createProgressLine({ label: "train", total: run.budget, unit: "rows", start: run.trainedBefore });
  for await (const report of run) progress.update(report.tokens, brief(report));
  progress.done();
  return run.finished;
}

function headLines(run: SweepRun): string[] {
  const { members, groups, forecast } = run;
  const { memory, disk, seconds } = forecast;
  const names = members.map(({ name }) => name);
  const shown = names.length > MOST_NAMES ? `${names.slice(0, MOST_NAMES).join(", ")} and others` : names.join(", ");
  const reads = groups > 1 ? `, in ${groups} groups that each read the rows once` : "";
  const steps = [
    ...new Set(members.map((each) => `${formatCount(each.steps)} of ${counted(each.config.batch, "row")}`)),
  ];
  const time = seconds === undefined ? "" : `; ${timeWords(seconds)}`;
  const room = disk.free === undefined ? "" : `, ${formatBytes(disk.free)} are free`;
  return [
    `sweep        ${run.out}`,
    ...dataLines(members[0]!.config, run.data),
    `autoencoders ${counted(names.length, "autoencoder")}${reads}: ${shown}`,
    `steps        ${steps.join("; ")}`,
    `engine       ${run.engine}`,
    `needs        ${formatBytes(memory.needed)} of memory, ${formatBytes(memory.free)} are free; ` +
      `${formatBytes(disk.needed)} of disk${room}${time}`,
  ];
}

/** Names that are shown before the sweep starts. */
const MOST_NAMES = 12;

/** What a report says of all members, in a few words. */
function brief({ members }: SweepReport): string {
  const running = members.filter(({ state }) => state === "running");
  const best = members.reduce<{ name: string; fvu: number } | undefined>((found, { name, report }) => {
    const fvu = report?.fvu;
    return fvu !== undefined && Number.isFinite(fvu) && (found === undefined || fvu < found.fvu)
      ? { name, fvu }
      : found;
  }, undefined);
  const over = members.length - running.length;
  return [
    `${counted(running.length, "autoencoder")}${over > 0 ? ` of ${members.length}` : ""}`,
    ...(best === undefined ? [] : [`lowest FVU ${best.fvu.toPrecision(4)} (${best.name})`]),
  ].join(", ");
}

function resultJson(run: SweepRun, { reason, members }: SweepResult) {
  return {
    sweep: run.out,
    reason,
    members: members.map(({ name, out, state, report, result, error }) => ({
      name,
      run: out,
      state,
      ...(error === undefined ? {} : { error }),
      ...(result ?? { report }),
    })),
  };
}

async function resultLines(run: SweepRun, { reason, members }: SweepResult): Promise<string[]> {
  const of = (state: string) => members.filter((member) => member.state === state).length;
  const counts = (["done", "stopped", "halved", "failed"] as const)
    .filter((state) => of(state) > 0)
    .map((state) => `${of(state)} ${state}`);
  return [
    `${reason.padEnd(13)}${counted(members.length, "autoencoder")}: ${counts.join(", ")}`,
    runsText(await listRuns([run.out]), run.out),
    `sweep        ${run.out}`,
  ];
}

function say(...lines: readonly string[]): void {
  for (const line of lines) process.stdout.write(`${line}\n`);
}

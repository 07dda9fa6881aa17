import { resolve } from "node:path";
import type { Command } from "commander";
import { formatCount, formatDuration } from "../util/progress.ts";
import { note } from "./note.ts";

/** A run in the list. What is not known (yet) is null. */
export interface ListedRun {
  readonly run: string;
  readonly state: string;
  readonly step: number | null;
  readonly k: number | null;
  readonly latents: number | null;
  /**
   * On held-out rows, of the weights that eval takes: the running average where one was kept and
   * evaluated.
   */
  readonly holdout_fvu: number | null;
  /** Of the last batch. */
  readonly fvu: number | null;
  readonly l0: number | null;
  readonly dead: number | null;
  /** Seconds of training. */
  readonly elapsed_s: number | null;
  /** When it last wrote, in milliseconds since 1970. */
  readonly written: number | null;
  readonly problem: string | null;
}

/**
 * The runs in the folders, the one that wrote last first. Throws UsageError when a folder is not
 * there.
 */
export async function listRuns(folders: readonly string[]): Promise<ListedRun[]> {
  const { Runs } = await import("../dashboard/runs.ts");
  const runs = await Runs.open(folders);
  const listed: ListedRun[] = [];
  for (const run of runs.all) {
    const { state, step, elapsed_s, written, last, problem } = await run.summary();
    const metrics = new Map(last);
    const config = new Map(run.details.config);
    const option = (name: string) => (config.has(name) ? Number(config.get(name)) : null);
    listed.push({
      run: run.folder,
      state,
      step,
      k: option("k"),
      latents: option("latents"),
      holdout_fvu: metrics.get("holdout_fvu_ema") ?? metrics.get("holdout_fvu") ?? null,
      fvu: metrics.get("fvu") ?? null,
      l0: metrics.get("l0") ?? null,
      dead: metrics.get("dead") ?? null,
      elapsed_s,
      written,
      problem,
    });
  }
  return listed.sort((a, b) => (b.written ?? 0) - (a.written ?? 0) || (a.run < b.run ? -1 : 1));
}

/**
 * A line per run under a line of names. `from`: folders are shown relative to this one where they
 * are below it.
 */
export function runsText(runs: readonly ListedRun[], from: string): string {
  const below = `${resolve(from)}/`;
  const figure = (value: number | null) => (value === null ? "-" : value.toPrecision(4));
  const count = (value: number | null) => (value === null ? "-" : formatCount(value));
  const head = ["run", "state", "step", "k", "latents", "held-out FVU", "FVU", "L0", "dead", "time"];
  const rows = runs.map((run) => [
    run.run.startsWith(below) ? run.run.slice(below.length) : run.run,
    run.state,
    count(run.step),
    count(run.k),
    count(run.latents),
    figure(run.holdout_fvu),
    figure(run.fvu),
    figure(run.l0),
    count(run.dead),
    run.elapsed_s === null ? "-" : formatDuration(run.elapsed_s),
  ]);
  const cells = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells
    .map((row) => row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "))
    .join("\n");
}

export function lsCommand(program: Command): void {
  program
    .command("ls")
    .description("list runs, a line each, the one that wrote last first")
    .argument("[runs...]", "run folders, or folders of them (default: runs)")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExample:\n  saetta ls runs\n")
    .action(async (folders: readonly string[], { json }: { readonly json?: boolean }) => {
      const named = folders.length > 0 ? folders : ["runs"];
      const runs = await listRuns(named);
      if (json === true) process.stdout.write(`${JSON.stringify({ runs }, undefined, 2)}\n`);
      else if (runs.length > 0) process.stdout.write(`${runsText(runs, process.cwd())}\n`);
      for (const { run, problem } of runs) if (problem !== null) note(`${run}: ${problem}`);
      if (runs.length === 0) note(`${named.join(", ")} holds no runs; saetta train makes them`);
    });
}

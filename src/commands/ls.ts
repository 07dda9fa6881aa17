import { resolve } from "node:path";
import type { Command } from "commander";
import { csv } from "../util/csv.ts";
import { UsageError } from "../util/errors.ts";
import { markdownTable } from "../util/markdown.ts";
import { formatCount, formatDuration } from "../util/progress.ts";
import { note } from "./note.ts";

/** A run in the list. What is not known (yet) is null. */
export interface ListedRun {
  readonly run: string;
  readonly state: string;
  readonly step: number | null;
  readonly k: number | null;
  readonly latents: number | null;
  readonly lr: number | null;
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
  /** Rows trained on. */
  readonly tokens: number | null;
  /** Options of which there is one value, by their names in config.json. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
  /** The last value of every metric. */
  readonly metrics: Readonly<Record<string, number>>;
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
    const { state, step, tokens, elapsed_s, written, last, options, problem } = await run.summary();
    const metrics = new Map(last);
    const config = new Map(options);
    const option = (name: string) => (config.has(name) ? Number(config.get(name)) : null);
    listed.push({
      run: run.folder,
      state,
      step,
      k: option("k"),
      latents: option("latents"),
      lr: option("lr"),
      holdout_fvu: metrics.get("holdout_fvu_ema") ?? metrics.get("holdout_fvu") ?? null,
      fvu: metrics.get("fvu") ?? null,
      l0: metrics.get("l0") ?? null,
      dead: metrics.get("dead") ?? null,
      elapsed_s,
      written,
      tokens,
      options: Object.fromEntries(options),
      metrics: Object.fromEntries(last),
      problem,
    });
  }
  return listed.sort((a, b) => (b.written ?? 0) - (a.written ?? 0) || (a.run < b.run ? -1 : 1));
}

/** What a column shows of a run. */
interface Column {
  readonly name: string;
  readonly value: (run: ListedRun) => string;
}

/** `from`: folders are shown relative to this one where they are below it. */
function columnsOf(runs: readonly ListedRun[], from: string): readonly Column[] {
  const figure = (value: number | null) => (value === null ? "-" : value.toPrecision(4));
  const count = (value: number | null) => (value === null ? "-" : formatCount(value));
  // Rates follow from the number of latents, unless somebody compares them.
  const rates = new Set(runs.map(({ lr }) => lr)).size > 1;
  return [
    { name: "run", value: ({ run }) => below(run, from) },
    { name: "state", value: ({ state }) => state },
    { name: "step", value: ({ step }) => count(step) },
    { name: "k", value: ({ k }) => count(k) },
    { name: "latents", value: ({ latents }) => count(latents) },
    ...(rates
      ? [{ name: "lr", value: ({ lr }: ListedRun) => (lr === null ? "-" : String(Number(lr.toPrecision(3)))) }]
      : []),
    { name: "held-out FVU", value: ({ holdout_fvu }) => figure(holdout_fvu) },
    { name: "FVU", value: ({ fvu }) => figure(fvu) },
    { name: "L0", value: ({ l0 }) => figure(l0) },
    { name: "dead", value: ({ dead }) => count(dead) },
    { name: "time", value: ({ elapsed_s }) => (elapsed_s === null ? "-" : formatDuration(elapsed_s)) },
  ];
}

function below(folder: string, from: string): string {
  const root = `${resolve(from)}/`;
  return folder.startsWith(root) ? folder.slice(root.length) : folder;
}

/** A line per run under a line of names. */
export function runsText(runs: readonly ListedRun[], from: string): string {
  const columns = columnsOf(runs, from);
  const cells = [columns.map(({ name }) => name), ...runs.map((run) => columns.map(({ value }) => value(run)))];
  const widths = columns.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells
    .map((row) => row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "))
    .join("\n");
}

/** The same as a table in Markdown. */
export function runsMarkdown(runs: readonly ListedRun[], from: string): string {
  const columns = columnsOf(runs, from);
  return markdownTable(
    columns.map(({ name }) => name),
    runs.map((run) => columns.map(({ value }) => value(run))),
    2,
  );
}

/** Every option of which there is one value, and every metric, as comma-separated values. */
export function runsCsv(runs: readonly ListedRun[], from: string): string {
  const names = (of: (run: ListedRun) => object) => [...new Set(runs.flatMap((run) => Object.keys(of(run))))];
  const options = names((run) => run.options);
  const metrics = names((run) => run.metrics).filter((name) => name !== "lr");
  return csv([
    ["run", "state", "step", "tokens_done", "elapsed_s", ...options, ...metrics],
    ...runs.map((run) => [
      below(run.run, from),
      run.state,
      run.step,
      run.tokens,
      run.elapsed_s,
      ...options.map((name) => run.options[name]),
      ...metrics.map((name) => run.metrics[name]),
    ]),
  ]);
}

/**
 * The runs by a column, an option or a metric, the least first; with "-" before the name the most
 * first. What is not known comes last. Throws UsageError for a name that no run has.
 */
export function sortRuns(runs: readonly ListedRun[], by: string): ListedRun[] {
  const [name, sign] = by.startsWith("-") ? [by.slice(1), -1] : [by, 1];
  const valueIn = (run: ListedRun): unknown =>
    Object.hasOwn(run, name) ? run[name as keyof ListedRun] : (run.options[name] ?? run.metrics[name]);
  if (runs.length > 0 && runs.every((run) => valueIn(run) === undefined)) {
    throw new UsageError(`no run has ${JSON.stringify(name)} to be sorted by`, {
      mend: "name a column of --csv, such as holdout_fvu, k or lr",
    });
  }
  return runs.toSorted((a, b) => {
    const [one, other] = [valueIn(a), valueIn(b)];
    if (one === other) return 0;
    if (one === null || one === undefined) return 1;
    if (other === null || other === undefined) return -1;
    return (
      sign * (typeof one === "number" && typeof other === "number" ? one - other : String(one) < String(other) ? -1 : 1)
    );
  });
}

interface Flags {
  readonly json?: boolean;
  readonly csv?: boolean;
  readonly markdown?: boolean;
  readonly sort?: string;
}

export function lsCommand(program: Command): void {
  program
    .command("ls")
    .description("list runs, a line each, the one that wrote last first")
    .argument("[runs...]", "run folders, or folders of them, such as a sweep (default: runs)")
    .option(
      "--sort <name>",
      "sort by a column, an option or a metric, such as holdout_fvu; -holdout_fvu: the most first",
    )
    .option("--csv", "print every option and metric as comma-separated values")
    .option("--markdown", "print a table in Markdown")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  saetta ls runs\n  saetta ls runs/sweep --sort holdout_fvu --csv > sweep.csv\n",
    )
    .action(async (folders: readonly string[], flags: Flags) => {
      const named = folders.length > 0 ? folders : ["runs"];
      const found = await listRuns(named);
      const runs = flags.sort === undefined ? found : sortRuns(found, flags.sort);
      const from = process.cwd();
      const text = flags.markdown === true ? runsMarkdown : flags.csv === true ? runsCsv : runsText;
      if (flags.json === true) process.stdout.write(`${JSON.stringify({ runs }, undefined, 2)}\n`);
      else if (runs.length > 0) process.stdout.write(`${text(runs, from)}\n`);
      for (const { run, problem } of runs) if (problem !== null) note(`${run}: ${problem}`);
      if (runs.length === 0) note(`${named.join(", ")} holds no runs; saetta train makes them`);
    });
}

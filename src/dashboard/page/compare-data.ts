/** What the comparison of all runs shows: columns, filters, groups, and the Pareto front. */

import type { OptionValue, RunSummary } from "../api.ts";

export type Value = OptionValue | null;

/** A number or word of a run, by which the table can be sorted. */
export interface Column {
  /** Of an option or metric, as in the run's files. */
  readonly name: string;
  readonly label: string;
  readonly of: (run: RunSummary) => Value;
  /** Whether it is an option, by which runs can be grouped. */
  readonly option: boolean;
}

/** Options that follow from others or do not say what was trained. */
const LEFT_OUT = new Set([
  ...["warmup", "dead_tokens", "eval_every", "checkpoint_every", "log_every", "norm_limit", "dataset", "target"],
  ...["engine", "dtype", "threads", "shards", "replicas", "keep", "on_disk_full", "tensorboard", "wandb"],
]);
/** Shown though all runs have the same. */
const ALWAYS = ["k", "latents"];
const MOST_OPTIONS = 12;

const METRICS: readonly (readonly [name: string, label: string])[] = [
  ["holdout_fvu", "held-out FVU"],
  ["fvu", "FVU"],
  ["l0", "L0"],
  ["dead", "dead"],
  ["dead_fraction", "share dead"],
  ["loss", "loss"],
];

/** The average of the weights is what a run gives, where one was evaluated. */
function metricOf(run: RunSummary, name: string): Value {
  const last = new Map(run.last);
  if (name === "holdout_fvu") return last.get("holdout_fvu_ema") ?? last.get("holdout_fvu") ?? null;
  if (name === "l0") return last.get("holdout_l0") ?? last.get("l0") ?? null;
  return last.get(name) ?? null;
}

/** The columns: options in which the runs differ, then what was measured. */
export function columnsOf(runs: readonly RunSummary[]): readonly Column[] {
  const options = runs.map((run) => new Map(run.options));
  const names = [...new Set(options.flatMap((each) => [...each.keys()]))];
  const differs = (name: string) => new Set(options.map((each) => each.get(name))).size > 1;
  const sweeps = new Set(runs.map(({ sweep }) => sweep)).size > 1;
  const shown = names.filter((name) => (differs(name) || ALWAYS.includes(name)) && !LEFT_OUT.has(name));
  const first = (name: string) => (ALWAYS.includes(name) ? 0 : 1);
  const ofOptions = shown
    .toSorted((a, b) => first(a) - first(b))
    .slice(0, MOST_OPTIONS)
    .map((name): Column => {
      const label = name.replaceAll("_", " ");
      return { name, label, option: true, of: (run) => new Map(run.options).get(name) ?? null };
    });
  const measured = METRICS.filter(([name]) => runs.some((run) => metricOf(run, name) !== null));
  return [
    ...(sweeps ? [{ name: "sweep", label: "sweep", option: true, of: ({ sweep }: RunSummary) => sweep }] : []),
    ...ofOptions,
    ...measured.map(([name, label]) => ({ name, label, option: false, of: (run: RunSummary) => metricOf(run, name) })),
    { name: "tokens", label: "rows", option: false, of: ({ tokens }) => tokens },
    { name: "elapsed_s", label: "seconds", option: false, of: ({ elapsed_s }) => elapsed_s },
  ];
}

/** The least first, or the most; what is not known last, and equal runs by their names. */
export function sorted(
  runs: readonly RunSummary[],
  of: (run: RunSummary) => Value,
  descending: boolean,
): readonly RunSummary[] {
  const byName = (a: RunSummary, b: RunSummary) => a.name.localeCompare(b.name, "en", { numeric: true });
  return runs.toSorted((a, b) => {
    const [one, other] = [of(a), of(b)];
    if (one === other) return byName(a, b);
    if (one === null) return 1;
    if (other === null) return -1;
    const order =
      typeof one === "number" && typeof other === "number"
        ? one - other
        : String(one).localeCompare(String(other), "en", { numeric: true });
    return (descending ? -order : order) || byName(a, b);
  });
}

const TEST = /^([a-z0-9_-]+)(<=|>=|!=|=|<|>)(.+)$/i;

/**
 * Whether a run passes the filter: every word is a part of its name or state, or compares an option
 * or metric with a value, such as k=32, lr<1e-3 or architecture!=topk.
 */
export function passes(run: RunSummary, filter: string, columns: readonly Column[]): boolean {
  return filter
    .trim()
    .split(/\s+/)
    .every((word) => {
      if (word === "") return true;
      const [, name = "", sign = "", text = ""] = TEST.exec(word) ?? [];
      const column = columns.find((each) => each.name === name || each.label.replaceAll(" ", "_") === name);
      const value = column?.of(run) ?? new Map<string, Value>(run.options).get(name);
      if (sign === "") return run.name.includes(word) || run.state.includes(word);
      if (value === undefined || value === null) return sign === "!=";
      return compares(value, sign, text);
    });
}

function compares(value: OptionValue, sign: string, text: string): boolean {
  const number = Number(text);
  const order =
    typeof value === "number" && text !== "" && Number.isFinite(number)
      ? value - number
      : String(value).localeCompare(text, "en", { numeric: true });
  switch (sign) {
    case "=":
      return order === 0;
    case "!=":
      return order !== 0;
    case "<":
      return order < 0;
    case "<=":
      return order <= 0;
    case ">":
      return order > 0;
    default:
      return order >= 0;
  }
}

export interface Point {
  readonly run: RunSummary;
  readonly x: number;
  readonly y: number;
}

/** The runs that have both numbers; above 0 where the axis is logarithmic. */
export function pointsOf(
  runs: readonly RunSummary[],
  x: Column,
  y: Column,
  log: { readonly x: boolean; readonly y: boolean },
): readonly Point[] {
  const usable = (value: Value, positive: boolean): value is number =>
    typeof value === "number" && Number.isFinite(value) && (!positive || value > 0);
  return runs.flatMap((run) => {
    const [across, up] = [x.of(run), y.of(run)];
    return usable(across, log.x) && usable(up, log.y) ? [{ run, x: across, y: up }] : [];
  });
}

/**
 * The points that no other is better than, in the order of x: better is no more of x and y, and
 * less of one. Of equal points the first.
 */
export function paretoFront(points: readonly Point[]): readonly Point[] {
  const front: Point[] = [];
  for (const point of points.toSorted((a, b) => a.x - b.x || a.y - b.y))
    if (point.y < (front.at(-1)?.y ?? Number.POSITIVE_INFINITY)) front.push(point);
  return front;
}

/** Less of these is better, so that they have a Pareto front with the error. */
export function hasFront(x: Column): boolean {
  return ["l0", "k", "latents", "tokens", "elapsed_s"].includes(x.name);
}

/** A logarithmic axis suits numbers that are all above 0 and span a factor of 4. */
export function suitsLog(values: readonly Value[]): boolean {
  const numbers = values.filter((value) => typeof value === "number" && Number.isFinite(value)) as number[];
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  return numbers.length > 1 && least > 0 && most >= 4 * least;
}

/**
 * Places for ticks between the numbers: 1, 2 and 5 times powers of ten, of which a logarithmic axis
 * over many decades has fewer.
 */
export function ticksFor(least: number, most: number, log: boolean, wanted = 6): readonly number[] {
  if (!(most > least)) return [least];
  if (!log) {
    const raw = (most - least) / wanted;
    const size = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((times) => times * size).find((each) => each >= raw)!;
    const first = Math.ceil(least / step - 1e-9);
    const last = Math.floor(most / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  }
  const decades = Math.log10(most / least);
  const times = decades > 4 ? [1] : decades > 2 ? [1, 3] : decades > 1.3 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.log10(most); power++) {
    for (const each of times) {
      const tick = Number((each * 10 ** power).toPrecision(12));
      if (tick >= least * (1 - 1e-9) && tick <= most * (1 + 1e-9)) found.push(tick);
    }
  }
  return found;
}

/** What runs are grouped by: the values of a column, in order. */
export function groupsOf(runs: readonly RunSummary[], by: Column | undefined): readonly string[] {
  if (by === undefined) return [];
  const words = new Set(sorted(runs, by.of, false).map((run) => groupOf(run, by)));
  return [...words];
}

export function groupOf(run: RunSummary, by: Column): string {
  const value = by.of(run);
  return value === null ? "–" : String(value);
}

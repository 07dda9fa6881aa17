/** Which charts there are, and what they show. */

import type { Report } from "../../run-files/metrics.ts";

export interface ChartSpec {
  /** Stands for the chart in settings. */
  readonly id: string;
  readonly title: string;
  /** What is drawn, in a sentence without a stop. */
  readonly about: string;
  readonly metrics: readonly ChartMetric[];
  /** Whether its y axis begins logarithmic. */
  readonly log: boolean;
}

export interface ChartMetric {
  readonly name: string;
  /** Where a chart shows more than one: which this is. */
  readonly label: string;
  /** Measured now and then only: points joined by lines, over the gaps. */
  readonly sparse: boolean;
}

const one = (name: keyof Report): readonly ChartMetric[] => [{ name, label: "", sparse: false }];
const withHeldOut = (name: keyof Report, heldOut: keyof Report): readonly ChartMetric[] => [
  { name, label: "training", sparse: false },
  { name: heldOut, label: "held-out", sparse: true },
];

const CHARTS: readonly ChartSpec[] = [
  {
    id: "fvu",
    title: "FVU",
    about: "fraction of variance unexplained",
    metrics: withHeldOut("fvu", "holdout_fvu"),
    log: true,
  },
  { id: "loss", title: "Loss", about: "mse_scale × MSE + auxk_coef × AuxK", metrics: one("loss"), log: true },
  {
    id: "mse",
    title: "MSE",
    about: "mean squared error over all elements",
    metrics: withHeldOut("mse", "holdout_mse"),
    log: true,
  },
  {
    id: "auxk_loss",
    title: "AuxK loss",
    about: "what dead latents leave of the residual",
    metrics: one("auxk_loss"),
    log: false,
  },
  { id: "l0", title: "L0", about: "latents above 0 in a row, on average", metrics: one("l0"), log: false },
  { id: "dead", title: "Dead latents", about: "without firing for dead_tokens rows", metrics: one("dead"), log: false },
  {
    id: "grad_norm",
    title: "Gradient norm",
    about: "of the whole gradient, before clipping",
    metrics: one("grad_norm"),
    log: true,
  },
  { id: "lr", title: "Learning rate", about: "of Adam, at each step", metrics: one("lr"), log: false },
  {
    id: "tokens_per_second",
    title: "Rows per second",
    about: "since the line before",
    metrics: one("tokens_per_second"),
    log: false,
  },
];

/**
 * Told elsewhere, or by another chart; drawn only where they say something: when they are not what
 * they are at rest.
 */
const AT_REST: { readonly [name: string]: number } = {
  loss_scale: 1,
  skipped: 0,
  skipped_rows: 0,
} satisfies Partial<Report>;
const TOLD: ReadonlySet<string> = new Set<keyof Report>(["epoch", "dead_fraction", "holdout_fvu", "holdout_mse"]);

export interface MetricExtent {
  readonly name: string;
  readonly least: number;
  readonly most: number;
}

/**
 * The charts for the metrics that there are: the known ones in their order, then one for each that
 * nobody knows.
 */
export function chartsFor(metrics: readonly MetricExtent[]): readonly ChartSpec[] {
  const names = new Set(metrics.map(({ name }) => name));
  const known = CHARTS.filter((chart) => chart.metrics.some(({ name }) => names.has(name)));
  const shown = new Set(known.flatMap((chart) => chart.metrics.map(({ name }) => name)));
  const others = metrics.filter(({ name, least, most }) => {
    const rest = Object.hasOwn(AT_REST, name) ? AT_REST[name] : undefined;
    return !shown.has(name) && !TOLD.has(name) && (rest === undefined || least !== rest || most !== rest);
  });
  return [
    ...known,
    ...others.map(({ name }) => ({
      id: `other:${name}`,
      title: name,
      about: "a metric of this run",
      metrics: [{ name, label: "", sparse: false }],
      log: false,
    })),
  ];
}

/** Which charts there are, and what they show. */

import { placeIn, type Report } from "../../run-files/metrics.ts";

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
  /** Opacity of the curve, of which the chart shows several of one kind; default: 1. */
  readonly shade?: number | undefined;
}

/** A metric that is a list of numbers, with a curve for each. */
interface ListMetric {
  readonly name: keyof Report;
  /** Of the number in place `i` from 0 of `count`. */
  readonly label: (i: number, count: number) => string;
  readonly sparse: boolean;
}

interface KnownChart extends ChartSpec {
  readonly lists?: readonly ListMetric[];
}

const one = (name: keyof Report): readonly ChartMetric[] => [{ name, label: "", sparse: false }];
const withHeldOut = (name: keyof Report, heldOut: keyof Report): readonly ChartMetric[] => [
  { name, label: "training", sparse: false },
  { name: heldOut, label: "held-out", sparse: true },
];

const ofPrefix = (i: number, count: number) => (i === count - 1 ? "all" : `prefix ${i + 1}`);
const QUANTILES = ["min", "25 %", "50 %", "75 %", "max"];

const CHARTS: readonly KnownChart[] = [
  {
    id: "fvu",
    title: "FVU",
    about: "fraction of variance unexplained",
    metrics: withHeldOut("fvu", "holdout_fvu"),
    log: true,
  },
  {
    id: "loss",
    title: "Loss",
    about: "mse_scale × MSE + auxk_coef × AuxK + sparsity loss",
    metrics: one("loss"),
    log: true,
  },
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
  {
    id: "multi_topk_fvu",
    title: "FVU of 4 k latents",
    about: "the second reconstruction of multi-TopK",
    metrics: one("multi_topk_fvu"),
    log: true,
  },
  {
    id: "l0",
    title: "L0",
    about: "latents above 0 in a row, on average",
    metrics: [
      { name: "l0", label: "training", sparse: false },
      { name: "holdout_l0", label: "by threshold, held-out", sparse: true },
    ],
    log: false,
  },
  {
    id: "prefix_fvu",
    title: "FVU of each prefix",
    about: "reconstruction by the first latents alone",
    metrics: [],
    lists: [
      { name: "prefix_fvu", label: ofPrefix, sparse: false },
      { name: "holdout_prefix_fvu", label: (i, count) => `${ofPrefix(i, count)}, held-out`, sparse: true },
    ],
    log: true,
  },
  {
    id: "threshold",
    title: "Threshold",
    about: "of inference: running mean of the lowest value kept",
    metrics: one("threshold"),
    log: false,
  },
  {
    id: "threshold_quantiles",
    title: "Thresholds",
    about: "lowest, quartiles and highest over all latents",
    metrics: [],
    lists: [{ name: "threshold_quantiles", label: (i) => QUANTILES[i] ?? placeIn("quantile", i), sparse: false }],
    log: false,
  },
  {
    id: "sparsity_coef",
    title: "Sparsity coefficient",
    about: "weight of the sparsity loss at each step",
    metrics: one("sparsity_coef"),
    // Below 0 while the L0 is pulled up.
    log: false,
  },
  {
    id: "sparsity_loss",
    title: "Sparsity loss",
    about: "with its coefficient, as it is part of the loss",
    metrics: one("sparsity_loss"),
    // Below 0 while the L0 is pulled up.
    log: false,
  },
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
  const known = CHARTS.map((chart) => withLists(chart, names)).filter((chart) =>
    chart.metrics.some(({ name }) => names.has(name)),
  );
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

/** The faintest curve of a list; the last is drawn in full. */
const FAINTEST = 0.35;

/** The chart with a metric for each number of its lists that there is. */
function withLists({ lists, ...chart }: KnownChart, names: ReadonlySet<string>): ChartSpec {
  if (lists === undefined) return chart;
  const metrics = lists.flatMap(({ name, label, sparse }) => {
    let count = 0;
    while (names.has(placeIn(name, count))) count++;
    return Array.from({ length: count }, (_, i): ChartMetric => {
      const shade = count === 1 ? 1 : FAINTEST + ((1 - FAINTEST) * i) / (count - 1);
      return { name: placeIn(name, i), label: label(i, count), sparse, shade };
    });
  });
  return { ...chart, metrics: [...chart.metrics, ...metrics] };
}

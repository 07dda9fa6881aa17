import { describe, expect, it } from "vitest";
import type { Series } from "../api.ts";
import { chartData, type ShownRun, valuesAt } from "./chart-data.ts";
import { chartsFor } from "./charts.ts";
import { styleOf } from "./palette.ts";
import { seriesOf } from "./series.ts";

const view = { axis: "step", logX: false, logY: false, smoothing: 0 } as const;
const spec = chartsFor([{ name: "fvu", least: 0, most: 1 }])[0]!;

function runOf(id: string, place: number, sent: Partial<Series>): ShownRun {
  const whole = { run: id, step: [], tokens: [], elapsed_s: [], metrics: [], ...sent };
  return {
    id,
    name: id,
    style: styleOf(place, "light"),
    series: seriesOf({ ...whole, tokens: whole.step.map((step) => step * 10), elapsed_s: whole.step }),
  };
}

const a = runOf("a", 0, {
  step: [1, 2, 3, 4],
  metrics: [
    { name: "fvu", mean: [0.9, 0.5, null, 0.3] },
    { name: "holdout_fvu", mean: [null, 0.6, null, 0.4] },
  ],
});
const b = runOf("b", 1, {
  step: [2, 5],
  metrics: [{ name: "fvu", mean: [0.8, 0.2], min: [0.7, -0.1], max: [0.9, 0.2] }],
});

describe("the table of a chart", () => {
  it("has a column for each curve over all x of all runs; a gap of a run is one, the other run's points are none", () => {
    const { columns, table, bands } = chartData(spec, [a, b], view);
    expect(columns.map(({ run, metric, role }) => `${run.id} ${metric.name} ${role}`)).toEqual([
      "a fvu line",
      "a holdout_fvu line",
      "b fvu high",
      "b fvu low",
      "b fvu line",
    ]);
    expect(table[0]).toEqual([1, 2, 3, 4, 5]);
    expect(table[1]).toEqual([0.9, 0.5, null, 0.3, undefined]);
    expect(table[2]).toEqual([undefined, 0.6, undefined, 0.4, undefined]);
    expect(table[5]).toEqual([undefined, 0.8, undefined, undefined, 0.2]);
    expect(bands).toEqual([[3, 4]]);
  });

  it("over rows or time has those as x, and nothing of 0 or less on logarithmic axes", () => {
    expect(chartData(spec, [b], { ...view, axis: "tokens" }).table[0]).toEqual([20, 50]);
    const { columns, table } = chartData(spec, [b], { ...view, logY: true });
    expect(table[columns.findIndex(({ role }) => role === "low") + 1]).toEqual([0.7, null]);
    const zero = runOf("z", 0, { step: [0, 1], metrics: [{ name: "fvu", mean: [1, 1] }] });
    expect(chartData(spec, [zero], { ...view, logX: true }).table[0]).toEqual([1]);
  });

  it("smoothed keeps what it was, fainter", () => {
    const { columns, table } = chartData(spec, [a], { ...view, smoothing: 100 });
    expect(columns.map(({ role }) => role)).toEqual(["faint", "line", "line"]);
    expect(table[1]).toEqual([0.9, 0.5, null, 0.3]);
    expect(table[2]![1]).toBeGreaterThan(0.5);
  });

  it("without runs, or with runs that have nothing of it, is empty", () => {
    for (const runs of [[], [runOf("c", 0, { step: [1], metrics: [{ name: "loss", mean: [1] }] })]]) {
      expect(chartData(spec, runs, view)).toEqual({ columns: [], table: [[]], bands: [] });
    }
  });
});

it("values at a place are the last that a curve had", () => {
  const data = chartData(spec, [a, b], view);
  const shown = (index: number | undefined) =>
    Array.from(valuesAt(data, index), ([{ run, metric }, value]) => `${run.id} ${metric.name} ${value}`);
  expect(shown(2)).toEqual(["a fvu 0.5", "a holdout_fvu 0.6", "b fvu 0.8"]);
  expect(shown(undefined)).toEqual(["a fvu 0.3", "a holdout_fvu 0.4", "b fvu 0.2"]);
  expect(shown(0)).toEqual(["a fvu 0.9", "a holdout_fvu null", "b fvu null"]);
});

describe("charts", () => {
  const found = (...names: string[]) => chartsFor(names.map((name) => ({ name, least: 0, most: 1 })));

  it("have a curve for each number of a list, fainter the earlier it is", () => {
    const charts = found("prefix_fvu_0", "prefix_fvu_1", "prefix_fvu_2", "holdout_prefix_fvu_0", "prefix_fvu_4");
    expect(charts[0]!.id).toBe("prefix_fvu");
    expect(charts[0]!.metrics.map(({ name, label, sparse, shade }) => [name, label, sparse, shade])).toEqual([
      ["prefix_fvu_0", "prefix 1", false, 0.35],
      ["prefix_fvu_1", "prefix 2", false, 0.675],
      ["prefix_fvu_2", "all", false, 1],
      ["holdout_prefix_fvu_0", "all, held-out", true, 1],
    ]);
    expect(charts.slice(1).map(({ id }) => id)).toEqual(["other:prefix_fvu_4"]);
    const quantiles = found(...[0, 1, 2, 3, 4].map((i) => `threshold_quantiles_${i}`));
    expect(quantiles.map(({ id }) => id)).toEqual(["threshold_quantiles"]);
    expect(quantiles[0]!.metrics[2]!.label).toBe("50 %");
  });

  it("of an architecture are there only where a run has its metrics", () => {
    const ids = (...names: string[]) => found(...names).map(({ id, metrics }) => `${id} ${metrics.length}`);
    expect(ids("l0", "fvu")).toEqual(["fvu 2", "l0 2"]);
    expect(ids("l0", "holdout_l0", "threshold")).toEqual(["l0 2", "threshold 1"]);
    expect(ids("sparsity_coef", "sparsity_loss")).toEqual(["sparsity_coef 1", "sparsity_loss 1"]);
  });

  it("are those of the metrics that there are, and one for each that nobody knows", () => {
    const metric = (name: string, least = 0, most = 1) => ({ name, least, most });
    const ids = (...metrics: ReturnType<typeof metric>[]) => chartsFor(metrics).map(({ id }) => id);
    expect(ids(metric("lr"), metric("loss"), metric("epoch"), metric("<b>"), metric("holdout_fvu"))).toEqual([
      "fvu",
      "loss",
      "lr",
      "other:<b>",
    ]);
    // At rest they say nothing.
    expect(ids(metric("skipped", 0, 0), metric("loss_scale", 1, 1), metric("skipped_rows", 0, 0))).toEqual([]);
    expect(ids(metric("skipped", 0, 3), metric("loss_scale", 1, 1))).toEqual(["other:skipped"]);
    expect(ids(metric("constructor"), metric("__proto__", 1, 1))).toEqual(["other:constructor", "other:__proto__"]);
  });
});

/** From the series of the shown runs to what uPlot draws: one table of columns over one x axis. */

import uPlot from "uplot";
import type { ChartMetric, ChartSpec } from "./charts.ts";
import type { RunStyle } from "./palette.ts";
import type { RunSeries, Values } from "./series.ts";
import type { Settings } from "./settings.ts";
import { smooth } from "./smooth.ts";

export interface ShownRun {
  readonly id: string;
  readonly name: string;
  readonly style: RunStyle;
  readonly series: RunSeries;
}

/** A column of the table and how it is drawn. */
export interface Column {
  readonly run: ShownRun;
  readonly metric: ChartMetric;
  /**
   * line: the curve; faint: the same before it was smoothed; low, high: edges of the band that the
   * pieces span.
   */
  readonly role: "line" | "faint" | "low" | "high";
}

export interface ChartData {
  readonly columns: readonly Column[];
  /** x first, then the columns. */
  readonly table: uPlot.AlignedData;
  /** Pairs of columns, counted as uPlot does from 1, between which a band lies. */
  readonly bands: readonly (readonly [high: number, low: number])[];
}

type View = Pick<Settings, "axis" | "logX" | "smoothing"> & { readonly logY: boolean };

/** How wide smoothing looks at most, as a share of the run. */
const WIDEST = 0.1;

export function chartData(spec: ChartSpec, runs: readonly ShownRun[], view: View): ChartData {
  const columns: Column[] = [];
  const bands: [number, number][] = [];
  const tables: uPlot.AlignedData[] = [];
  const modes: uPlot.JoinNullMode[][] = [];
  for (const run of runs) {
    for (const metric of spec.metrics) {
      const values = run.series.metrics.get(metric.name);
      if (values === undefined || values.mean.every((value) => value === null)) continue;
      const parts: [Column["role"], Values][] = [];
      const { step } = run.series;
      const width = WIDEST * (view.smoothing / 100) ** 2 * ((step.at(-1) ?? 0) - (step[0] ?? 0));
      const wide = !metric.sparse && values.min.some((value, i) => value !== values.max[i]);
      if (wide) parts.push(["high", values.max], ["low", values.min]);
      if (width > 0 && !metric.sparse) parts.push(["faint", values.mean]);
      parts.push(["line", metric.sparse ? values.mean : smooth(step, values.mean, width)]);
      if (wide) bands.push([columns.length + 1, columns.length + 2]);
      columns.push(...parts.map(([role]) => ({ run, metric, role })));
      tables.push(
        placed(
          run.series[view.axis],
          view,
          parts.map(([, part]) => part),
        ),
      );
      // A gap in a curve is one; between points that are measured now and then it is not.
      modes.push([1, ...parts.map((): uPlot.JoinNullMode => (metric.sparse ? 0 : 1))]);
    }
  }
  const table =
    tables.length === 0
      ? ([[]] as uPlot.AlignedData)
      : tables.length === 1 && modes[0]!.every((mode) => mode === 1)
        ? tables[0]!
        : uPlot.join(tables, modes);
  return { columns, table, bands };
}

/** The columns over their x, less what has no place on the axes. */
function placed(at: Values, { logX, logY }: View, parts: readonly Values[]): uPlot.AlignedData {
  const x: number[] = [];
  const kept: number[] = [];
  at.forEach((value, i) => {
    if (value === null || (logX && value <= 0) || (x.length > 0 && value <= x.at(-1)!)) return;
    x.push(value);
    kept.push(i);
  });
  const onAxis = (value: number | null | undefined) =>
    value === undefined || (logY && value !== null && value <= 0) ? null : value;
  return [x, ...parts.map((part) => kept.map((i) => onAxis(part[i])))];
}

/**
 * The value of each curve at the given place of the table, or the last before it; null where there
 * is none yet.
 */
export function valuesAt({ columns, table }: ChartData, index: number | undefined): ReadonlyMap<Column, number | null> {
  const found = new Map<Column, number | null>();
  columns.forEach((column, i) => {
    if (column.role !== "line") return;
    const values = table[i + 1]!;
    let at = Math.min(index ?? values.length - 1, values.length - 1);
    while (at > 0 && typeof values[at] !== "number") at--;
    found.set(column, values[at] ?? null);
  });
  return found;
}

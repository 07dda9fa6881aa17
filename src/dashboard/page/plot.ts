/** uPlot, set up for curves of runs. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Zoom } from "./address.ts";
import type { ChartData, Column } from "./chart-data.ts";
import { brief, briefDuration, formatCount, formatDuration } from "./format.ts";
import type { Settings } from "./settings.ts";

type Axis = Settings["axis"];

/** Steps between marks on an axis of seconds: those of clocks, and of days. */
const DURATIONS = [
  0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200,
].concat(Array.from({ length: 24 }, (_, power) => [1, 2, 5].map((factor) => 86_400 * factor * 10 ** power)).flat());

export interface PlotOptions {
  readonly axis: Axis;
  readonly logX: boolean;
  readonly logY: boolean;
  readonly zoom: () => Zoom;
  readonly onZoom: (zoom: Zoom) => void;
  /** The point under the cursor; undefined when it left. */
  readonly onCursor: (index: number | undefined) => void;
}

export function axisName(axis: Axis): string {
  return { step: "step", tokens: "rows", elapsed_s: "after" }[axis];
}

export function axisValue(axis: Axis, value: number): string {
  return axis === "elapsed_s" ? formatDuration(value) : formatCount(value);
}

/** Draws `data` in the element, which says how large. */
export function createPlot(element: HTMLElement, data: ChartData, options: PlotOptions): uPlot {
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const { axis, logX, logY, zoom, onZoom, onCursor } = options;
  const font = `12px ${style.fontFamily}`;
  const common: uPlot.Axis = {
    stroke: color("--muted"),
    font,
    grid: { stroke: color("--grid"), width: 1 },
    ticks: { show: false },
    gap: 4,
  };
  return new uPlot(
    {
      width: element.clientWidth,
      height: element.clientHeight,
      legend: { show: false },
      padding: [8, 12, 0, 0],
      scales: {
        x: { time: false, distr: logX ? 3 : 1, range: (_, min, max) => rangeX(zoom(), min, max, logX) },
        y: { distr: logY ? 3 : 1, range: (_, min, max) => rangeY(min, max, logY) },
      },
      axes: [
        {
          ...common,
          ...(axis === "elapsed_s" ? { incrs: DURATIONS } : {}),
          size: 22,
          space: 55,
          values: (_, splits) => splits.map((split) => labelX(axis, split)),
        },
        {
          ...common,
          size: 54,
          space: 30,
          values: (_, splits) => splits.map((split) => (split === null ? "" : brief(split))),
          ...(logY ? { splits: logSplits, filter: everySplit } : {}),
        },
      ],
      series: [{}, ...data.columns.map((column) => seriesOptions(column, color("--card")))],
      bands: data.bands.map(([high, low]) => ({
        series: [high, low],
        fill: translucent(data.columns[high - 1]!.run.style.color, 0.22),
      })),
      cursor: {
        y: false,
        // In step with the other charts where the cursor is; a zoom reaches them through `onZoom`.
        sync: {
          key: "saetta",
          setSeries: false,
          filters: { pub: (type) => type !== "mousedown" && type !== "mouseup", sub: () => true },
        },
        drag: { x: true, y: false, setScale: false },
        points: { size: 7, show: true },
        bind: { dblclick: () => () => onZoom(undefined) as unknown as null },
      },
      hooks: {
        setCursor: [
          ({ cursor }) =>
            onCursor(cursor.left === undefined || cursor.left < 0 ? undefined : (cursor.idx ?? undefined)),
        ],
        setSelect: [
          (plot) => {
            const { left, width } = plot.select;
            if (width > 4) onZoom([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
      },
    },
    data.table,
    element,
  );
}

function seriesOptions({ run, metric, role }: Column, ground: string): uPlot.Series {
  const { dash } = run.style;
  const { shade = 1 } = metric;
  const faint = translucent(run.style.color, 0.35 * shade);
  const color = translucent(run.style.color, shade);
  if (role === "low" || role === "high") return { stroke: faint, width: 0.5, points: { show: false } };
  if (role === "faint") return { stroke: faint, width: 1, points: { show: false } };
  if (metric.sparse)
    return {
      stroke: color,
      width: 1,
      dash: [2, 3],
      points: { show: true, size: 7, stroke: color, fill: ground, width: 2 },
    };
  return {
    stroke: color,
    width: 1.75,
    ...(dash.length > 0 ? { dash: [...dash] } : {}),
    points: { show: single, size: 5, fill: color },
  };
}

/** A curve of one point would not be seen. */
function single(plot: uPlot): boolean {
  return plot.data[0].length < 3;
}

function rangeX(zoom: Zoom, min: number | null, max: number | null, log: boolean): uPlot.Range.MinMax {
  if (zoom !== undefined) return [...zoom];
  if (min === null || max === null) return log ? [1, 10] : [0, 1];
  return min === max ? [log ? min / 2 : min - 1, max + 1] : [min, max];
}

/**
 * A little more than what is drawn; at least a tenth of a per cent of its height, so that noise of
 * rounding is no mountain range.
 */
function rangeY(min: number | null, max: number | null, log: boolean): uPlot.Range.MinMax {
  if (min === null || max === null) return log ? [0.1, 1] : [0, 1];
  if (log && min > 0) {
    const part = Math.max(1.02, (max / min) ** 0.06);
    return [min / part, max * part];
  }
  const least = Math.max(Math.abs(min), Math.abs(max)) * 1e-3 || 1;
  const part = Math.max((max - min) * 0.06, least);
  return [min >= 0 && (min < (max - min) * 0.5 || max === 0) ? 0 : min - part, max + part];
}

/**
 * Values to mark on a logarithmic axis: some of each power of ten, or only every so many powers, or
 * round steps where less than that is seen.
 */
export function logSplits(_: unknown, __: number, min: number, max: number): number[] {
  const decades = Math.log10(max / min);
  if (decades < 0.5) {
    const step = niceStep((max - min) / 4);
    return Array.from(
      { length: Math.floor(max / step) - Math.ceil(min / step) + 1 },
      (_each, i) => (Math.ceil(min / step) + i) * step,
    );
  }
  const every = Math.max(1, Math.ceil(decades / 5));
  const factors = decades < 1.3 ? [1, 1.5, 2, 3, 4, 6] : decades < 2.5 ? [1, 2, 5] : [1];
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power++) {
    if (power % every !== 0) continue;
    for (const factor of factors) found.push(Number(`${factor}e${power}`));
  }
  return found.filter((value) => value >= min && value <= max);
}

/** uPlot itself leaves out labels of logarithmic axes. */
function everySplit(_: unknown, splits: number[]): number[] {
  return splits;
}

function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10) * power;
}

function labelX(axis: Axis, value: number | null): string {
  if (value === null) return "";
  return axis === "elapsed_s" ? briefDuration(value) : brief(value);
}

/** "#rrggbb" with an opacity. */
function translucent(color: string, opacity: number): string {
  return `${color}${Math.round(opacity * 255)
    .toString(16)
    .padStart(2, "0")}`;
}

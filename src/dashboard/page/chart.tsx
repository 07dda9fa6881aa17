/** One chart: a heading, what it shows at the cursor, and the curves. */

import { useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import type uPlot from "uplot";
import { type ChartData, chartData, type ShownRun, valuesAt } from "./chart-data.ts";
import type { ChartSpec } from "./charts.ts";
import { figure } from "./format.ts";
import { moved } from "./keyboard.ts";
import type { Model } from "./model.ts";
import { axisName, axisValue, createPlot } from "./plot.ts";
import { Swatch } from "./swatch.tsx";

export interface ChartProps {
  readonly model: Model;
  readonly spec: ChartSpec;
  readonly runs: readonly ShownRun[];
  readonly theme: "light" | "dark";
  /** Counts the changes of the series, which are changed in place. */
  readonly revision: number;
}

export function Chart({ model, spec, runs, theme, revision }: ChartProps) {
  const { axis, logX, smoothing } = model.settings;
  const logY = model.settings.logY[spec.id] ?? spec.log;
  const data = useMemo(
    () => chartData(spec, runs, { axis, logX, smoothing, logY }),
    [spec, runs, axis, logX, smoothing, logY, revision],
  );
  const [index, setIndex] = useState<number | undefined>(undefined);
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const newest = useRef(data);
  newest.current = data;
  const heading = useId();
  // What must be there before the first point; all else is data.
  const layout = `${theme} ${axis} ${logX} ${logY} ${data.columns.map(({ run, metric, role }) => `${run.id}/${run.style.color}/${run.style.dash}/${metric.name}/${role}`)}`;

  useEffect(() => {
    const element = holder.current!;
    const made = createPlot(element, newest.current, {
      axis,
      logX,
      logY,
      zoom: () => model.zoom,
      onZoom: (zoom) => model.zoomTo(zoom),
      onCursor: setIndex,
    });
    plot.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: element.clientHeight }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = undefined;
    };
  }, [layout]);

  useEffect(() => {
    // The same columns as the plot has, or the effect above has made it with these data.
    if (plot.current?.series.length === data.columns.length + 1) plot.current.setData(data.table, true);
  }, [data]);

  useEffect(() => plot.current?.setData(newest.current.table, true), [model.zoom]);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "l") model.set({ logY: { ...model.settings.logY, [spec.id]: !logY } });
    else if (event.key === "Escape") model.zoomTo(undefined);
    else if (plot.current === undefined || !moved(plot.current, event.key, (zoom) => model.zoomTo(zoom))) return;
    event.preventDefault();
  };

  const at = index === undefined ? undefined : data.table[0][index];
  const focused = holder.current !== null && document.activeElement === holder.current;
  return (
    <section class="chart card" aria-labelledby={heading} data-chart={spec.id}>
      <header>
        <h3 id={heading}>{spec.title}</h3>
        <button
          type="button"
          class="small"
          aria-pressed={logY}
          title="logarithmic y axis"
          onClick={() => model.set({ logY: { ...model.settings.logY, [spec.id]: !logY } })}
        >
          log
        </button>
        <p class="about">{at === undefined ? spec.about : `at ${axisName(axis)} ${axisValue(axis, at)}`}</p>
      </header>
      <Readout data={data} index={index} spoken={focused} />
      <div
        class="plot"
        ref={holder}
        role="img"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: the arrow keys move its cursor
        tabIndex={0}
        aria-label={describe(spec, data, axis)}
        onKeyDown={onKeyDown}
      />
    </section>
  );
}

interface ReadoutProps {
  readonly data: ChartData;
  readonly index: number | undefined;
  /** They change because of a key. */
  readonly spoken: boolean;
}

/**
 * The legend: of each run its name and, of each of its curves, the value at the cursor, or the last
 * one.
 */
function Readout({ data, index, spoken }: ReadoutProps) {
  const values = Array.from(valuesAt(data, index));
  const runs = new Map(values.map(([{ run }]) => [run.id, run]));
  return (
    <ul class="readout" aria-live={spoken ? "polite" : "off"}>
      {Array.from(runs.values(), (run) => {
        const curves = values.filter(([column]) => column.run.id === run.id);
        return (
          <li key={run.id} title={run.name} class={curves.length > 2 ? "many" : ""}>
            <span class="name">{run.name}</span>
            {curves.map(([{ metric }, value]) => (
              <span class="curve" key={metric.name}>
                <Swatch style={run.style} sparse={metric.sparse} shade={metric.shade} />
                {metric.label !== "" && <span class="label">{metric.label}</span>}
                <span class="value">{figure(value)}</span>
              </span>
            ))}
          </li>
        );
      })}
    </ul>
  );
}

/** The chart in words: where each curve began and where it is. */
function describe(spec: ChartSpec, data: ChartData, axis: ChartProps["model"]["settings"]["axis"]): string {
  const last = data.table[0].at(-1);
  const first = valuesAt(data, 0);
  const parts = Array.from(valuesAt(data, undefined), ([column, value]) => {
    const began = first.get(column);
    const label = [column.run.name, column.metric.label].filter((text) => text !== "").join(", ");
    return `${label}: ${began === undefined || began === null ? "" : `from ${figure(began)} to `}${figure(value)}`;
  });
  const where = last === undefined ? "no data yet" : `up to ${axisName(axis)} ${axisValue(axis, last)}`;
  return `${spec.title}, ${spec.about}; ${where}; ${parts.join("; ")}. Arrow keys move along it, plus and minus zoom, L changes to a logarithmic axis.`;
}

/** The page: runs at the side, what they did in the middle. */

import { useEffect, useMemo, useReducer, useRef } from "preact/hooks";
import { Chart } from "./chart.tsx";
import type { ShownRun } from "./chart-data.ts";
import { chartsFor } from "./charts.ts";
import { Compare } from "./compare.tsx";
import { Config } from "./config.tsx";
import { Brand, Controls, Top } from "./controls.tsx";
import { DensityChart } from "./density.tsx";
import { mountAsk, mountFeatures, useOffer } from "./features.ts";
import { Model } from "./model.ts";
import { styleOf } from "./palette.ts";
import { RunList } from "./runs.tsx";
import { Summary } from "./summary.tsx";
import { useTheme } from "./theme.ts";

export function App() {
  const model = useMemo(() => new Model(), []);
  const [revision, changed] = useReducer((count: number) => count + 1, 0);
  useEffect(() => model.subscribe(() => changed(undefined)), [model]);
  useEffect(() => () => model.close(), [model]);
  const theme = useTheme(model.settings.theme);
  const styled = model.shown.map(({ id, place }) => ({
    id,
    name: model.runs.get(id)?.name ?? id,
    style: styleOf(place, theme),
  }));
  const runs = styled.flatMap((run): ShownRun[] => {
    const series = model.series(run.id);
    return series === undefined ? [] : [{ ...run, series }];
  });
  const names = styled.map(({ name }) => name).join(", ");
  document.title = names === "" ? "Saetta" : `${names} – Saetta`;
  return (
    <>
      <Top model={model} />
      <div class="page">
        <aside aria-label="runs">
          <RunList model={model} theme={theme} />
        </aside>
        <main>
          <Compare model={model} theme={theme} />
          <Summary model={model} theme={theme} />
          <Controls model={model} />
          <h2 class="visually-hidden">Charts</h2>
          <div class="charts">
            {chartsFor(model.extents).map((spec) => (
              <Chart key={spec.id} model={model} spec={spec} runs={runs} theme={theme} revision={revision} />
            ))}
            {styled.length > 0 && <DensityChart model={model} runs={styled} />}
          </div>
          <Config model={model} runs={styled} />
        </main>
      </div>
      <footer class="muted">
        Saetta {model.version}; arrow keys, plus, minus and L work on a chart, dragging zooms, a double click shows
        everything.
      </footer>
    </>
  );
}

/** What is at /features/RUN. */
export function Features({ run }: { run: string }) {
  const holder = useRef<HTMLDivElement>(null);
  const { model } = useOffer();
  useTheme("auto");
  useEffect(() => mountFeatures(holder.current!, `/api/features/${encodeURIComponent(run)}`), [run]);
  document.title = `features of ${run} – Saetta`;
  return (
    <>
      <header class="top">
        <Brand />
        <a href={`/?${new URLSearchParams({ run })}`}>how {run} was trained</a>
        {model !== null && <a href={`/ask/${encodeURIComponent(run)}`}>your own text</a>}
      </header>
      <main ref={holder} />
    </>
  );
}

/** What is at /ask/RUN. */
export function Ask({ run }: { run: string }) {
  const holder = useRef<HTMLDivElement>(null);
  const { model, others } = useOffer();
  const isRun = model !== null && !others.includes(run);
  useTheme("auto");
  useEffect(() => mountAsk(holder.current!, run), [run]);
  document.title = `your own text in ${run} – Saetta`;
  return (
    <>
      <header class="top">
        <Brand />
        {isRun && <a href={`/?${new URLSearchParams({ run })}`}>how {run} was trained</a>}
        {isRun && <a href={`/features/${encodeURIComponent(run)}`}>features</a>}
      </header>
      <main ref={holder} />
    </>
  );
}

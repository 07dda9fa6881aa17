/** Where the shown runs are now: figures of one, a table of several. */

import type { RunSummary } from "../api.ts";
import { figure, formatCount, formatDuration, percent } from "./format.ts";
import type { Model } from "./model.ts";
import { type RunStyle, styleOf } from "./palette.ts";
import { Bar, STATES, shareDone } from "./runs.tsx";
import { Swatch } from "./swatch.tsx";

interface Figure {
  readonly name: string;
  readonly of: (run: RunSummary, last: ReadonlyMap<string, number>) => string;
  /** More of it, in small letters. */
  readonly note?: (run: RunSummary, last: ReadonlyMap<string, number>) => string;
}

const FIGURES: readonly Figure[] = [
  {
    name: "held-out FVU",
    of: (_, last) => figure(last.get("holdout_fvu")),
    note: (_, last) => `training ${figure(last.get("fvu"))}`,
  },
  { name: "loss", of: (_, last) => figure(last.get("loss")), note: (_, last) => `MSE ${figure(last.get("mse"))}` },
  {
    name: "L0",
    of: (_, last) => figure(last.get("l0")),
    note: (_, last) =>
      last.has("holdout_l0") ? `${figure(last.get("holdout_l0"))} by threshold, held-out` : "latents per row",
  },
  {
    name: "dead",
    of: (_, last) => figure(last.get("dead")),
    note: (_, last) => (last.has("dead_fraction") ? `${percent(last.get("dead_fraction")!)} of latents` : ""),
  },
  {
    name: "rows",
    of: ({ tokens }) => (tokens === null ? "–" : formatCount(tokens)),
    note: ({ budget }) => (budget === null ? "" : `of ${formatCount(budget)}`),
  },
  {
    name: "rows/s",
    of: ({ rate }) => (rate === null ? "–" : formatCount(rate)),
    note: ({ elapsed_s }) => (elapsed_s === null ? "" : `for ${formatDuration(elapsed_s)}`),
  },
];

export function Summary({ model, theme }: { model: Model; theme: "light" | "dark" }) {
  const shown = model.shown.flatMap(({ id, place }) => {
    const run = model.runs.get(id);
    return run === undefined ? [] : [{ run, style: styleOf(place, theme) }];
  });
  if (shown.length === 0) {
    return <p class="card muted empty">{model.listed ? "Choose a run to see it." : "Connecting…"}</p>;
  }
  return shown.length === 1 ? <Tiles run={shown[0]!.run} style={shown[0]!.style} /> : <Table shown={shown} />;
}

function Tiles({ run, style }: { run: RunSummary; style: RunStyle }) {
  const last = new Map(run.last);
  const share = shareDone(run);
  const time = run.left_s === null ? STATES[run.state] : `${formatDuration(run.left_s)} left`;
  return (
    <section class="now card" aria-labelledby="now-heading">
      <header>
        <Swatch style={style} />
        <h2 id="now-heading">{run.name}</h2>
        <p class="left" role="status">
          <span class={`state ${run.state}`}>{time}</span>
          {share !== null && run.state !== "done" && <span class="muted"> {percent(share)}</span>}
        </p>
      </header>
      {run.state !== "done" && <Bar run={run} />}
      <dl>
        {FIGURES.map(({ name, of, note }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{of(run, last)}</dd>
            <dd class="note">{note?.(run, last)}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function Table({ shown }: { shown: readonly { run: RunSummary; style: RunStyle }[] }) {
  return (
    <section class="now card" aria-labelledby="now-heading">
      <header>
        <h2 id="now-heading">Side by side</h2>
      </header>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a table that is too wide is scrolled by keys */}
      <section class="scroll" tabIndex={0} aria-label="runs side by side">
        <table>
          <thead>
            <tr>
              <th scope="col">run</th>
              <th scope="col">state</th>
              {FIGURES.map(({ name }) => (
                <th scope="col" class="number" key={name}>
                  {name}
                </th>
              ))}
              <th scope="col" class="number">
                time left
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ run, style }) => (
              <tr key={run.id}>
                <th scope="row">
                  <Swatch style={style} /> {run.name}
                </th>
                <td>
                  <span class={`state ${run.state}`}>{STATES[run.state]}</span>
                </td>
                {FIGURES.map(({ name, of }) => (
                  <td class="number" key={name}>
                    {of(run, new Map(run.last))}
                  </td>
                ))}
                <td class="number">{run.left_s === null ? "–" : formatDuration(run.left_s)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </section>
  );
}

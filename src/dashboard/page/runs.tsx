/** The list of runs: which there are, how far they are, and which are shown. */

import { useState } from "preact/hooks";
import type { RunState, RunSummary } from "../api.ts";
import { useOffer } from "./features.ts";
import { figure, formatDuration, percent } from "./format.ts";
import type { Model } from "./model.ts";
import { styleOf } from "./palette.ts";
import { Swatch } from "./swatch.tsx";

export const STATES: Readonly<Record<RunState, string>> = {
  running: "running",
  done: "done",
  stopped: "stopped",
  quiet: "nothing new",
  waiting: "not begun",
  halved: "ended early",
  failed: "failed",
};

/** How much of its budget a run has trained on; null where nobody knows. */
export function shareDone({ state, tokens, budget }: RunSummary): number | null {
  if (state === "done") return 1;
  return tokens === null || budget === null || budget <= 0 ? null : Math.min(1, tokens / budget);
}

export function RunList({ model, theme }: { model: Model; theme: "light" | "dark" }) {
  const [open, setOpen] = useState(() => !window.matchMedia("(max-width: 860px)").matches);
  const runs = Array.from(model.runs.values()).toSorted((a, b) =>
    a.name.localeCompare(b.name, "en", { numeric: true }),
  );
  const places = new Map(model.shown.map(({ id, place }) => [id, place]));
  const { model: languageModel, others } = useOffer();
  const several = runs.length > 1;
  return (
    <details class="runs card" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <h2>Runs</h2>
        <span class="muted">{runs.length > 0 ? `${places.size} of ${runs.length} shown` : ""}</span>
      </summary>
      {runs.length === 0 && (
        <p class="muted">
          {model.listed ? "There are no runs here yet. They appear by themselves." : "Looking for runs…"}
        </p>
      )}
      <ul>
        {runs.map((run) => {
          const place = places.get(run.id);
          const style = place === undefined ? undefined : styleOf(place, theme);
          return (
            <li key={run.id} class={place === undefined ? "run" : "run shown"}>
              <div class="title">
                <label>
                  <input
                    type="checkbox"
                    checked={place !== undefined}
                    onChange={(event) => model.show(run.id, event.currentTarget.checked)}
                  />
                  {style && <Swatch style={style} />}
                  <span class="name">{run.name}</span>
                </label>
                {run.features && <a href={`/features/${encodeURIComponent(run.id)}`}>features</a>}
                {languageModel !== null && <a href={`/ask/${encodeURIComponent(run.id)}`}>your own text</a>}
                {several && (
                  <button type="button" class="link" onClick={() => model.showOnly(run.id)}>
                    only<span class="visually-hidden"> {run.name}</span>
                  </button>
                )}
              </div>
              <p class="facts">
                {factsOf(run).map((fact, i) => (
                  <span key={fact} class={i === 0 ? `state ${run.state}` : ""}>
                    {fact}
                  </span>
                ))}
              </p>
              {run.state === "running" && <Bar run={run} />}
              {run.problem !== null && <p class="problem">{run.problem}</p>}
            </li>
          );
        })}
        {others.map((id) => (
          <li key={id} class="run">
            <div class="title">
              <span class="name">{id}</span>
              <a href={`/ask/${encodeURIComponent(id)}`}>your own text</a>
            </div>
          </li>
        ))}
      </ul>
    </details>
  );
}

export function Bar({ run }: { run: RunSummary }) {
  const share = shareDone(run);
  if (share === null) return null;
  return <progress max={1} value={share} aria-label={`${run.name}: ${percent(share)} done`} />;
}

/** The state first. */
function factsOf(run: RunSummary): readonly string[] {
  const last = new Map(run.last);
  const fvu = last.get("holdout_fvu") ?? last.get("fvu");
  const share = shareDone(run);
  return [
    STATES[run.state],
    ...(share === null || run.state === "done" ? [] : [percent(share)]),
    ...(run.left_s === null ? [] : [`${formatDuration(run.left_s)} left`]),
    ...(fvu === undefined ? [] : [`FVU ${figure(fvu)}`]),
  ];
}

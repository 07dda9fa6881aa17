/** How often latents fire: the histogram of their densities at an evaluation. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { Density } from "../api.ts";
import type { ShownRun } from "./chart-data.ts";
import { extentOf, medianDensity, outline } from "./density-shape.ts";
import { counted, formatCount, percent } from "./format.ts";
import type { Model } from "./model.ts";
import { Swatch } from "./swatch.tsx";

const HEIGHT = 210;
/** Room for the bar of those that never fire, the axes and their labels. */
const NEVER = 72;
const LEFT = 44;
const BOTTOM = 24;
const TOP = 8;
/** What a label on the x axis takes. */
const LABEL = 58;

type Run = Pick<ShownRun, "id" | "name" | "style">;

export function DensityChart({ model, runs }: { model: Model; runs: readonly Run[] }) {
  /** How many evaluations before the last. */
  const [back, setBack] = useState(0);
  const known = runs.flatMap((run) => {
    const entries = model.details.get(run.id)?.density ?? [];
    const density = entries[Math.max(0, entries.length - 1 - back)];
    return density === undefined ? [] : [{ run, density, entries }];
  });
  const most = Math.max(0, ...known.map(({ entries }) => entries.length - 1));
  return (
    <section class="density card" aria-labelledby="density-heading">
      <header>
        <h3 id="density-heading">Latent density</h3>
        <p class="about">share of held-out rows on which latents fire</p>
      </header>
      {known.length === 0 ? (
        <p class="muted">It comes with the first evaluation on held-out rows.</p>
      ) : (
        <>
          <ul class="readout">
            {known.map(({ run, density }) => (
              <li key={run.id} title={run.name}>
                <Swatch style={run.style} />
                <span class="name">{run.name}</span> <span class="label">step</span>{" "}
                <span class="value">{formatCount(density.step)}</span> <span class="label">median</span>{" "}
                <span class="value">{shareText(medianDensity(density))}</span>
              </li>
            ))}
          </ul>
          <Histogram known={known} />
          {most > 0 && (
            <label class="back">
              evaluation
              <input
                type="range"
                min={0}
                max={most}
                value={most - Math.min(back, most)}
                aria-valuetext={`step ${known.map(({ density }) => formatCount(density.step)).join(", ")}`}
                onInput={(event) => setBack(most - event.currentTarget.valueAsNumber)}
              />
              <span>{back === 0 ? "newest" : `${back} before`}</span>
            </label>
          )}
        </>
      )}
    </section>
  );
}

function Histogram({ known }: { known: readonly { run: Run; density: Density; entries: readonly Density[] }[] }) {
  // Over all evaluations, so that the axes stay as they are while one goes through them.
  const { from, to, most } = extentOf(known.flatMap(({ entries }) => entries));
  const holder = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(() => setWidth(holder.current?.clientWidth ?? 0));
    observer.observe(holder.current!);
    return () => observer.disconnect();
  }, []);
  const right = Math.max(width, LEFT + NEVER + 80) - 22;
  const x = (exponent: number) => LEFT + NEVER + ((exponent - from) / (to - from)) * (right - LEFT - NEVER);
  const y = (share: number) => HEIGHT - BOTTOM - (share / most) * (HEIGHT - BOTTOM - TOP);
  const decades = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const every = Math.ceil(LABEL / (x(1) - x(0))); // decades from one label to the next
  const shares = [0, 0.5, 1].map((part) => part * most);
  const bar = (NEVER - 44) / known.length;
  return (
    <div class="histogram" ref={holder}>
      <svg
        width={width}
        height={HEIGHT}
        role="img"
        aria-label={known.map(({ run, density }) => inWords(run.name, density)).join("; ")}
      >
        {shares.map((share) => (
          <g key={share}>
            <line class="grid" x1={LEFT} x2={right} y1={y(share)} y2={y(share)} />
            <text x={LEFT - 6} y={y(share) + 4} text-anchor="end">
              {percent(share)}
            </text>
          </g>
        ))}
        {decades.map((exponent) => (
          <g key={exponent}>
            <line class="grid" x1={x(exponent)} x2={x(exponent)} y1={TOP} y2={HEIGHT - BOTTOM} />
            {(to - exponent) % every === 0 && (
              <text x={x(exponent)} y={HEIGHT - 7} text-anchor="middle">
                {percent(10 ** exponent)}
              </text>
            )}
          </g>
        ))}
        <text x={LEFT + 4 + (NEVER - 44) / 2} y={HEIGHT - 7} text-anchor="middle">
          never
        </text>
        {known.map(({ run, density }, i) => {
          const share = density.never / Math.max(1, density.latents);
          return (
            <g key={run.id}>
              <rect x={LEFT + 4 + i * bar} width={bar} y={y(share)} height={y(0) - y(share)} fill={run.style.color} />
              <path
                d={outline(density, x, y)}
                fill={run.style.color}
                fill-opacity={known.length > 2 ? 0 : 0.2}
                stroke={run.style.color}
                stroke-width="2"
                stroke-dasharray={run.style.dash.join(" ")}
              />
            </g>
          );
        })}
      </svg>
    </div>
  );
}

function inWords(name: string, density: Density): string {
  const median = medianDensity(density);
  const never = `${formatCount(density.never)} of ${counted(density.latents, "latent")} never ${density.never === 1 ? "fires" : "fire"} on ${counted(density.rows, "row")}`;
  return `${name}, step ${formatCount(density.step)}: ${never}${median === null ? "" : `, the median latent on ${percent(median)}`}`;
}

function shareText(share: number | null): string {
  return share === null ? "never" : percent(share);
}

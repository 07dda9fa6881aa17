/** Small charts: bars, drawn as SVG without inline styles. */

import type { DensityBin } from "../../run-files/density.ts";
import type { StoredLatent } from "../shared/format.ts";
import { Save } from "./save.tsx";
import { amount, count, counted, level, percent } from "./words.ts";

const WIDTH = 320;
const HEIGHT = 96;

export interface Bar {
  readonly value: number;
  readonly title: string;
  readonly class: string;
}

/**
 * `label` says in words what the picture shows; `ends`: what stands below its left and right end.
 */
export function Bars({
  bars,
  label,
  ends,
}: {
  readonly bars: readonly Bar[];
  readonly label: string;
  readonly ends: readonly [string, string];
}) {
  const most = Math.max(1, ...bars.map(({ value }) => value));
  const step = WIDTH / Math.max(1, bars.length);
  return (
    <figure class="chart">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label} preserveAspectRatio="none">
        {bars.map((bar, i) => {
          // A single one is still to be seen.
          const height = bar.value === 0 ? 0 : Math.max(1.5, (bar.value / most) * HEIGHT);
          return (
            <rect
              key={bar.title}
              class={bar.class}
              x={i * step}
              y={HEIGHT - height}
              width={Math.max(0.5, step - 1)}
              height={height}
            >
              <title>{bar.title}</title>
            </rect>
          );
        })}
      </svg>
      <figcaption>
        <span>{ends[0]}</span>
        <Save name={label} />
        <span>{ends[1]}</span>
      </figcaption>
    </figure>
  );
}

/** How often a latent takes which values; the bars have the colours of the text. */
export function Histogram({ histogram, max }: { readonly histogram: StoredLatent["histogram"]; readonly max: number }) {
  const { width, counts } = histogram;
  const bars = counts.map((value, i) => ({
    value,
    title: `${amount(i * width)} to ${amount((i + 1) * width)}: ${count(value)}`,
    class: `h${level((i + 0.5) * width, max)}`,
  }));
  const total = counts.reduce((sum, each) => sum + each, 0);
  const tallest = counts.indexOf(Math.max(...counts));
  const label = `Histogram of ${counted(total, "firing")} by value, from 0 to ${amount(max)}; most are near ${amount((tallest + 0.5) * width)}`;
  return <Bars bars={bars} label={label} ends={["0", amount(max)]} />;
}

/** How many latents fire how often. */
export function DensityChart({
  density,
  dead,
  unit,
}: {
  readonly density: readonly DensityBin[];
  readonly dead: number;
  /** What latents fire on: "token", or "row" where there is no text. */
  readonly unit: string;
}) {
  const bars = [
    { value: dead, title: `never: ${counted(dead, "latent")}`, class: "dead" },
    ...density.map(({ from, to, latents }) => ({
      value: latents,
      title: `${percent(10 ** from)} to ${percent(10 ** to)}: ${counted(latents, "latent")}`,
      class: "plain",
    })),
  ];
  const label = `Latents by the share of ${unit}s on which they fire: ${bars.map(({ title }) => title).join("; ")}`;
  return <Bars bars={bars} label={label} ends={["never", "always"]} />;
}

/** What the shades stand for: from 0 to the most, in words. */
export function Legend({ most }: { readonly most: string }) {
  return (
    <span class="legend">
      <span>0</span>
      <span class="scale" aria-hidden="true">
        {[1, 2, 3, 4, 5, 6, 7, 8].map((each) => (
          <span key={each} class={`h${each}`} />
        ))}
      </span>
      <span>{most}</span>
    </span>
  );
}

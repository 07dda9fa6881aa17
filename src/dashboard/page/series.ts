/** What the page has of a run: series as they came, one after another. */

import type { Series } from "../api.ts";

export type Values = (number | null)[];

export interface MetricValues {
  readonly mean: Values;
  readonly min: Values;
  readonly max: Values;
}

export interface RunSeries {
  readonly step: number[];
  readonly tokens: Values;
  readonly elapsed_s: Values;
  readonly metrics: Map<string, MetricValues>;
}

export function seriesOf(sent: Series): RunSeries {
  const series: RunSeries = { step: [], tokens: [], elapsed_s: [], metrics: new Map() };
  append(series, sent);
  return series;
}

/** Adds what came after. Metrics that one of the two does not have are null there. */
export function append(series: RunSeries, sent: Series): void {
  const before = series.step.length;
  const added = sent.step.length;
  series.step.push(...sent.step);
  series.tokens.push(...sent.tokens);
  series.elapsed_s.push(...sent.elapsed_s);
  const names = new Set([...series.metrics.keys(), ...sent.metrics.map(({ name }) => name)]);
  const incoming = new Map(sent.metrics.map((metric) => [metric.name, metric]));
  for (const name of names) {
    const values = series.metrics.get(name) ?? { mean: nulls(before), min: nulls(before), max: nulls(before) };
    const more = incoming.get(name);
    const mean = more?.mean ?? nulls(added);
    values.mean.push(...mean);
    values.min.push(...(more?.min ?? mean));
    values.max.push(...(more?.max ?? mean));
    series.metrics.set(name, values);
  }
}

function nulls(count: number): Values {
  return new Array<number | null>(count).fill(null);
}

/**
 * The step at which a run had come to `value` of the given axis, between the steps that are known.
 */
export function stepAt(series: RunSeries, axis: "step" | "tokens" | "elapsed_s", value: number): number {
  if (axis === "step") return value;
  const known = series[axis].flatMap((at, i) => (at === null ? [] : [{ at, step: series.step[i]! }]));
  const after = known.findIndex(({ at }) => at >= value);
  if (after === 0 || known.length === 0) return known[0]?.step ?? value;
  if (after < 0) return known.at(-1)!.step;
  const [a, b] = [known[after - 1]!, known[after]!];
  return b.at === a.at ? b.step : a.step + ((b.step - a.step) * (value - a.at)) / (b.at - a.at);
}

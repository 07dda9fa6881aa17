/** An evaluation as text for people. */

import { counted, formatPercent } from "../util/format.ts";
import { formatCount } from "../util/progress.ts";
import type { Evaluation } from "./evaluate.ts";
import type { EvalReport } from "./report.ts";

/** What the autoencoder and the rows are, its metrics and the density of its latents. */
export function reportText(report: EvalReport): string {
  const { autoencoder, step, weights, engine, data, metrics, fvuWithoutUnitDecoder } = report;
  const about = [
    `autoencoder  ${autoencoder}${step === null ? "" : `, step ${formatCount(step)}`}`,
    `weights      ${weights === "ema" ? "running average (ema), bias-corrected, decoder rows of norm 1" : "raw, of the last step"}`,
    `engine       ${engine}`,
    `data         ${counted(metrics.rows, "row")} of ${data}`,
    ...(metrics.normalization === "none"
      ? []
      : [`rows         normalised as in training: ${metrics.normalization}; x below are normalised rows`]),
  ];
  const parts = [about, metricLines(metrics, fvuWithoutUnitDecoder), densityLines(metrics)];
  return parts.map((lines) => lines.join("\n")).join("\n\n");
}

/** What the metrics mean, for people. */
export const METRIC_MEANINGS = {
  fvu: "fraction of variance unexplained: sum (x - x_hat)^2 / sum (x - mean of x)^2",
  normalizedMse: "sum (x - x_hat)^2 / sum x^2",
  l0: "mean number of latents with a value above 0 in a row",
  dead: "latents that have no value above 0 in any of these rows",
} as const;

function metricLines(metrics: Evaluation, fvuShort: number | null): string[] {
  const { fvu, rawFvu, normalizedMse, mse, l0, l0Training, prefixFvu, dead, deadFraction, latents } = metrics;
  const line = (name: string, value: string, meaning: string) => `${name.padEnd(15)}${value.padStart(10)}   ${meaning}`;
  const number = (value: number | null) => (value === null ? "undefined" : value.toPrecision(4));
  return [
    line("FVU", number(fvu), METRIC_MEANINGS.fvu),
    ...(rawFvu === null ? [] : [line("", number(rawFvu), "the same of the rows as they are, normalisation undone")]),
    ...(fvuShort === null
      ? []
      : [line("", number(fvuShort), "the same with the averaged decoder rows left shorter than 1")]),
    line("normalised MSE", number(normalizedMse), METRIC_MEANINGS.normalizedMse),
    line("MSE", number(mse), "mean of (x_hat - x)^2 over all elements"),
    ...prefixFvu.map((each, i) =>
      line(i === 0 ? "FVU of prefix" : "", number(each.fvu), `by the first ${formatCount(each.latents)} latents alone`),
    ),
    line("L0", l0.toFixed(2), l0Training === null ? METRIC_MEANINGS.l0 : `${METRIC_MEANINGS.l0}, by the threshold`),
    ...(l0Training === null ? [] : [line("", l0Training.toFixed(2), "the same in training: k of a batch")]),
    line(
      "dead",
      formatCount(dead),
      `of ${formatCount(latents)} latents (${formatPercent(deadFraction)}) have no value above 0 in any of these rows`,
    ),
  ];
}

const BAR = 40;

function densityLines({ density, dead, latents }: Evaluation): string[] {
  const most = Math.max(1, dead, ...density.map((bin) => bin.latents));
  const bar = (count: number) => "█".repeat(count === 0 ? 0 : Math.max(1, Math.round((count / most) * BAR)));
  const line = (name: string, count: number) =>
    `  ${name.padEnd(20)}${formatCount(count).padStart(8)}  ${bar(count)}`.trimEnd();
  return [
    `density of the ${counted(latents, "latent")}: the share of rows in which the value is above 0`,
    line("never", dead),
    ...density.map(({ from, to, latents: count }) => line(`${share(from)} to ${share(to)}`, count)),
  ];
}

/** 10^exponent as a percentage of two digits. */
function share(exponent: number): string {
  return formatPercent(10 ** exponent);
}

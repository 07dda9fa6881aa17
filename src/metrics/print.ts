/** An evaluation as text for people. */

import { counted, formatPercent } from "../util/format.ts";
import { formatCount } from "../util/progress.ts";
import { bare, visible } from "../util/visible.ts";
import type { Evaluation } from "./evaluate.ts";
import type { EvalReport, ShownFeature } from "./report.ts";

export interface Page {
  /** Characters a line. */
  readonly columns: number;
  /** Whether the terminal can set the activating token in bold; else it stands between ›‹. */
  readonly bold: boolean;
}

/** The page for a stream: its width, and bold on a terminal unless NO_COLOR is set. */
export function pageOf(stream: { readonly isTTY?: boolean; readonly columns?: number }): Page {
  const bold = stream.isTTY === true && (process.env.NO_COLOR ?? "") === "" && process.env.TERM !== "dumb";
  return { columns: Math.min(160, Math.max(60, stream.columns ?? 110)), bold };
}

/** Everything that `saetta eval` prints. */
export function reportText(report: EvalReport, page: Page): string {
  const { autoencoder, step, weights, engine, data, metrics, fvuWithoutUnitDecoder, features, featuresNote } = report;
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
  if (features.length > 0) parts.push(featureHead(features), ...features.map((feature) => featureLines(feature, page)));
  if (featuresNote !== null) parts.push([featuresNote]);
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
  const { fvu, rawFvu, normalizedMse, mse, l0, dead, deadFraction, latents } = metrics;
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
    line("L0", l0.toFixed(2), METRIC_MEANINGS.l0),
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

function featureHead(features: readonly ShownFeature[]): string[] {
  return [
    features.length === 1 ? "a latent in its text" : `${features.length} latents in their text`,
    "  the most readable of as many bands of density; the strongest firings of each in different contexts,",
    "  at most two on the same token; the value of the latent on the marked token in front;",
    "  on: the tokens with most of its energy, each with firings / occurrences",
  ];
}

function featureLines(
  { latent, density, firings, contexts, energyShare, tokens, examples }: ShownFeature,
  page: Page,
): string[] {
  const head = `latent ${latent}   fires on ${formatPercent(density)} of the tokens (${formatCount(firings)}, in ${counted(contexts, "context")}), ${formatPercent(energyShare)} of all energy`;
  const lines = [page.bold ? `\u001b[1m${head}\u001b[22m` : head];
  lines.push(`  on: ${clipList(usesOf(tokens), page.columns - 6)}`);
  // The marked tokens stand below each other, as in a concordance.
  const width = Math.floor((page.columns - 12 - Math.max(...examples.map(({ token }) => visible(token).length))) / 2);
  for (const { value, before, token, after } of examples) {
    const shown = visible(token);
    const space = shown.startsWith(" ") ? " " : "";
    const left = takeEnd(`${visible(before)}${space}`, width);
    const right = takeStart(visible(after), width);
    const marked = page.bold ? `\u001b[1m${shown.trimStart()}\u001b[22m` : `›${shown.trimStart()}‹`;
    lines.push(`  ${value.toFixed(2).padStart(6)}  ${left.padStart(width)}${marked}${right}`.trimEnd());
  }
  return lines;
}

/** "can 19/19": 19 firings on 19 occurrences. */
function usesOf(tokens: ShownFeature["tokens"]): string[] {
  return tokens.map(({ text, firings, occurrences }) => `${bare(text)} ${firings}/${occurrences}`);
}

function takeEnd(text: string, width: number): string {
  const chars = [...text];
  return chars.length <= width ? text : `…${chars.slice(chars.length - width + 1).join("")}`;
}

function takeStart(text: string, width: number): string {
  const chars = [...text];
  return chars.length <= width ? text : `${chars.slice(0, width - 1).join("")}…`;
}

/** As many items as fit, at least one. */
function clipList(items: readonly string[], width: number): string {
  let text = items[0] ?? "";
  for (const item of items.slice(1)) {
    if (text.length + 3 + item.length > width) break;
    text += `   ${item}`;
  }
  return text;
}

/** What `saetta eval` prints of one autoencoder with its loss, and of several in one table. */

import type { ReportWithFeatures } from "../features/in-text.ts";
import { featuresText, type Page } from "../features/print.ts";
import type { AblationResult } from "../metrics/ablation.ts";
import type { LossRecovered } from "../metrics/loss.ts";
import { METRIC_MEANINGS, reportText } from "../metrics/print.ts";
import { flatValues } from "../run-files/metrics.ts";
import { csv } from "../util/csv.ts";
import { snakeCase } from "../util/json.ts";
import { markdownTable } from "../util/markdown.ts";
import { formatCount } from "../util/progress.ts";

/** An autoencoder on held-out rows, and in its language model where that was asked for. */
export type Judged = ReportWithFeatures & { readonly loss: LossRecovered | null };

/** One autoencoder in full, or a table of several. */
export function resultText(judged: readonly Judged[], page: Page): string {
  const [only, ...more] = judged;
  if (only !== undefined && more.length === 0) {
    const parts = [
      reportText(only),
      featuresText(only, page),
      only.loss === null ? undefined : lossLines(only.loss).join("\n"),
      only.loss?.ablation && removedLines(only.loss.ablation).join("\n"),
    ];
    return parts.filter((part) => part !== undefined).join("\n\n");
  }
  const columns = columnsOf(judged);
  const cells = [columns.map(({ name }) => name), ...judged.map((it) => columns.map(({ value }) => value(it)))];
  return [
    aboutLines(judged).join("\n"),
    aligned(cells).join("\n"),
    meanings(columns)
      .map(([name, meaning]) => `${name.padEnd(15)}${meaning}`)
      .join("\n"),
  ].join("\n\n");
}

/** Lines of cells in columns: the first to the left, the others to the right. */
function aligned(cells: readonly (readonly string[])[]): string[] {
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((row) => [...row[i]!].length)));
  return cells.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  "),
  );
}

/** The table, and under it what its columns mean. */
export function markdown(judged: readonly Judged[]): string {
  const columns = columnsOf(judged);
  return [
    markdownTable(
      columns.map(({ name }) => name),
      judged.map((it) => columns.map(({ value }) => value(it))),
    ),
    "",
    ...aboutLines(judged).map((line) => `- ${line.replace(/ {2,}/, ": ")}`),
    ...meanings(columns).map(([name, meaning]) => `- ${name}: ${meaning}`),
    ...judged.flatMap(({ loss }) => (loss?.ablation === undefined ? [] : removedMarkdown(loss.ablation))),
  ].join("\n");
}

function removedMarkdown(ablation: AblationResult): string[] {
  const meaning = removedMeanings(ablation).map(([name, words]) => `- ${name}: ${words}`);
  return ["", markdownTable(REMOVED, removedCells(ablation)), "", ...meaning];
}

/** Every number of the autoencoders, by its name in `--json`, as comma-separated values. */
export function judgedCsv(judged: readonly Judged[]): string {
  const values = judged.map(({ autoencoder, weights, metrics, loss }) => {
    const found = snakeCase({ autoencoder, weights, ...metrics, ...loss }) as Record<string, unknown>;
    return new Map(flatValues(found).filter((entry): entry is [string, CsvValue] => isCsvValue(entry[1])));
  });
  const names = [...new Set(values.flatMap((of) => [...of.keys()]))];
  return csv([names, ...values.map((of) => names.map((name) => of.get(name)))]);
}

type CsvValue = string | number | boolean | null;

function isCsvValue(value: unknown): value is CsvValue {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}

/** What the model loses, of one autoencoder. */
function lossLines({ model, tensor, text, predictions, splicedRows, ...loss }: LossRecovered): string[] {
  const { crossEntropy, klDivergence, lossRecovered, identityDifference, definitions } = loss;
  const line = (name: string, value: number | null, meaning: string) =>
    `${name.padEnd(15)}${(value === null ? "undefined" : value.toFixed(4)).padStart(10)}   ${meaning}`;
  return [
    `model        ${model}, tensor ${tensor}`,
    `text         ${text}: ${formatCount(predictions)} predictions, ${formatCount(splicedRows)} rows spliced`,
    ...(identityDifference === 0
      ? []
      : [`note         with its own values spliced in, logits differ by up to ${identityDifference.toPrecision(2)}`]),
    "",
    line("CE", crossEntropy.original, `${definitions.original}: ${definitions.crossEntropy}`),
    line("", crossEntropy.reconstruction, definitions.reconstruction),
    line("", crossEntropy.zero, definitions.zero),
    line("", crossEntropy.mean, definitions.mean),
    line("KL", klDivergence.reconstruction, definitions.klDivergence),
    line("", klDivergence.zero, "the same with zeros"),
    line("", klDivergence.mean, "the same with the mean"),
    line("loss recovered", lossRecovered.fromZero, definitions.fromZero.replace("loss recovered: ", "")),
    line("", lossRecovered.fromMean, definitions.fromMean),
  ];
}

const REMOVED = ["without latent", "fires", "CE", "loss increase", "where active", "KL"] as const;

/** What removing latents costs: a row of cells per latent, and one for all together. */
function removedCells({ effects }: AblationResult): string[][] {
  return effects.map(({ latents, firings, crossEntropy, lossIncrease, lossIncreaseWhereActive, klDivergence }) => [
    latents.length > 1 ? "all of them" : String(latents[0]),
    formatCount(firings),
    crossEntropy.toFixed(4),
    lossIncrease.toFixed(4),
    lossIncreaseWhereActive?.toFixed(4) ?? "-",
    klDivergence.toFixed(4),
  ]);
}

/** What the columns of removed latents mean. */
function removedMeanings({ definitions }: AblationResult): [string, string][] {
  return [
    ["without latent", definitions.removed],
    ["fires", definitions.firings],
    ["loss increase", definitions.lossIncrease],
    ["where active", definitions.lossIncreaseWhereActive],
    ["KL", definitions.klDivergence],
  ];
}

function removedLines(ablation: AblationResult): string[] {
  const meaning = removedMeanings(ablation).map(([name, words]) => `${name.padEnd(15)}${words}`);
  return [...aligned([REMOVED, ...removedCells(ablation)]), "", ...meaning];
}

interface Column {
  readonly name: string;
  readonly meaning?: string;
  readonly value: (judged: Judged) => string;
}

function columnsOf(judged: readonly Judged[]): Column[] {
  const number = (value: number | null | undefined) => (value === null || value === undefined ? "-" : value.toFixed(4));
  const columns: Column[] = [
    { name: "autoencoder", value: ({ autoencoder, weights }) => `${autoencoder}${weights === "ema" ? " (ema)" : ""}` },
    { name: "latents", value: ({ metrics }) => formatCount(metrics.latents) },
    { name: "L0", meaning: METRIC_MEANINGS.l0, value: ({ metrics }) => metrics.l0.toFixed(2) },
    ...(judged.some(({ metrics }) => metrics.l0Training !== null)
      ? [
          {
            name: "L0 training",
            meaning: "the same in training, which selects by batch: L0 is by the threshold",
            value: ({ metrics }: Judged) => metrics.l0Training?.toFixed(2) ?? metrics.l0.toFixed(2),
          },
        ]
      : []),
    { name: "FVU", meaning: METRIC_MEANINGS.fvu, value: ({ metrics }) => number(metrics.fvu) },
    { name: "nMSE", meaning: METRIC_MEANINGS.normalizedMse, value: ({ metrics }) => number(metrics.normalizedMse) },
    { name: "dead", meaning: METRIC_MEANINGS.dead, value: ({ metrics }) => formatCount(metrics.dead) },
  ];
  const definitions = judged.find(({ loss }) => loss !== null)?.loss?.definitions;
  if (definitions === undefined) return columns;
  return [
    ...columns,
    {
      name: "CE",
      meaning: `${definitions.crossEntropy}, ${definitions.reconstruction}`,
      value: ({ loss }) => number(loss?.crossEntropy.reconstruction),
    },
    { name: "KL", meaning: definitions.klDivergence, value: ({ loss }) => number(loss?.klDivergence.reconstruction) },
    { name: "recovered", meaning: definitions.fromZero, value: ({ loss }) => number(loss?.lossRecovered.fromZero) },
    { name: "from mean", meaning: definitions.fromMean, value: ({ loss }) => number(loss?.lossRecovered.fromMean) },
  ];
}

function meanings(columns: readonly Column[]): [string, string][] {
  return columns.flatMap(({ name, meaning }) =>
    meaning === undefined ? [] : ([[name, meaning]] satisfies [string, string][]),
  );
}

/** What all of them share. */
function aboutLines(judged: readonly Judged[]): string[] {
  const [first] = judged;
  if (first === undefined) return [];
  const { loss } = first;
  const normalized = judged
    .filter(({ metrics }) => metrics.normalization !== "none")
    .map(({ autoencoder, metrics }) => `${autoencoder} (${metrics.normalization})`);
  return [
    `data         ${formatCount(first.metrics.rows)} rows of ${first.data}`,
    `engine       ${first.engine}`,
    ...(normalized.length === 0
      ? []
      : [
          `rows         normalised as in training for ${normalized.join(", ")}: FVU and nMSE are of normalised rows there`,
        ]),
    ...(loss === null
      ? []
      : [
          `model        ${loss.model}, tensor ${loss.tensor}`,
          `text         ${loss.text}: ${formatCount(loss.predictions)} predictions, ${formatCount(loss.splicedRows)} rows spliced`,
          `CE           ${loss.crossEntropy.original.toFixed(4)} as it is, ${loss.crossEntropy.zero.toFixed(4)} with zeros, ${loss.crossEntropy.mean.toFixed(4)} with the mean (--ablate ${loss.ablate})`,
        ]),
  ];
}

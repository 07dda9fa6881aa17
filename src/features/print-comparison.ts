/** A comparison of two autoencoders, for people and for tables. */

import {
  CLASSES,
  COMPARISON_DEFINITIONS,
  type Comparison,
  countsOf,
  MEASURES,
  type Side,
} from "../explorer/shared/comparison.ts";
import { csv } from "../util/csv.ts";
import { counted, formatCount, formatPercent } from "../util/format.ts";

const SIDES: readonly Side[] = ["a", "b"];

/** How many latents are of each class, by each measure, and what the words mean. */
export function comparisonText(comparison: Comparison): string {
  const { names, least, rows, data } = comparison;
  const head = [
    `A              ${names.a}: ${counted(comparison.a.latents, "latent")}`,
    `B              ${names.b}: ${counted(comparison.b.latents, "latent")}`,
    ...(rows === null ? [] : [`rows           ${formatCount(rows)} of ${data}`]),
    `least value    ${least}`,
  ];
  const tables = MEASURES.flatMap((measure) => {
    const lines = SIDES.flatMap((side) => {
      const column = comparison[side].by[measure];
      if (column === undefined) return [];
      const total = comparison[side].latents;
      const counts = Object.entries(countsOf(side, column)).map(
        ([name, count]) => `${name} ${formatCount(count)} (${formatPercent(count / total)})`,
      );
      return [`  ${side.toUpperCase()}  ${counts.join(", ")}; median of the best ${median(column.value).toFixed(3)}`];
    });
    return lines.length === 0 ? [] : [[`by ${measure}`, ...lines].join("\n")];
  });
  const meanings = Object.entries(COMPARISON_DEFINITIONS)
    .filter(([name]) => name !== "correlation" || rows !== null)
    .map(([name, meaning]) => `${name.padEnd(15)}${meaning}`);
  return [head.join("\n"), ...tables, meanings.join("\n")].join("\n\n");
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted.length === 0 ? 0 : (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** A line per latent of either side. */
export function comparisonCsv(comparison: Comparison): string {
  const measures = MEASURES.filter((measure) => comparison.a.by[measure] !== undefined);
  const head = [
    "side",
    "latent",
    ...measures.flatMap((name) => [`best_by_${name}`, name, `class_by_${name}`]),
    "density",
  ];
  const lines = SIDES.flatMap((side) => {
    const { latents, by, density } = comparison[side];
    return Array.from({ length: latents }, (_, latent) => [
      side,
      latent,
      ...measures.flatMap((measure) => {
        const column = by[measure]!;
        return [column.best[latent], column.value[latent], CLASSES[side][column.class[latent]]];
      }),
      density?.[latent],
    ]);
  });
  return csv([head, ...lines]);
}

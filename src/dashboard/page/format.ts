/** Numbers of charts and tables. */

import { counted, formatCount, formatDuration, formatPercent } from "../../util/format.ts";

export { counted, formatCount, formatDuration, formatPercent as percent };

/** A value in as few characters as tell it: "0.1318", "71,559", "3.2e-5". */
export function figure(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return formatCount(value);
  if (Number.isInteger(value)) return String(value);
  if (size < 1e-3 && size > 0) return value.toExponential(2).replace("e-", "e−");
  return String(Number(value.toPrecision(4)));
}

/** A count on an axis: "2k", "1.5M". */
export function brief(value: number): string {
  for (const [unit, size] of [
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ] as const) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(4))}${unit}`;
  }
  return String(Number(value.toPrecision(4)));
}

/** Seconds on an axis: "40 s", "5 min", "1.5 h". */
export function briefDuration(seconds: number): string {
  if (seconds === 0) return "0";
  const [size, unit] = seconds < 60 ? [1, "s"] : seconds < 3600 ? [60, "min"] : [3600, "h"];
  return `${Number((seconds / size).toPrecision(3))} ${unit}`;
}

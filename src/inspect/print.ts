/** An inspection as text for people. */

import { formatBytes } from "../util/bytes.ts";
import { formatCount } from "../util/progress.ts";
import type { Fact, Facts, Inspection } from "./inspection.ts";

/** The lines of `saetta inspect`. */
export function inspectionText({ path, kind, bytes, facts, advice = [] }: Inspection): string {
  const head = `${path}: ${kind}${bytes === undefined ? "" : `, ${formatBytes(bytes)}`}`;
  return [head, ...factLines(facts, "  "), ...advice.map((each) => `  note: ${each}`)].join("\n");
}

function factLines(facts: Facts, indent: string): string[] {
  const entries = Object.entries(facts).filter(([, value]) => value !== undefined);
  const width = Math.max(0, ...entries.filter(([, value]) => !isNested(value)).map(([name]) => name.length));
  return entries.flatMap(([name, value]) => {
    if (isTable(value))
      return value.length === 0 ? [] : [`${indent}${name}`, ...tableLines(value, `${indent}  `, name === HEADED)];
    if (isNested(value))
      return Object.keys(value).length === 0 ? [] : [`${indent}${name}`, ...factLines(value, `${indent}  `)];
    return [`${indent}${name.padEnd(width)}  ${shown(name, value)}`];
  });
}

/** The table whose columns are not clear without their names. */
const HEADED = "autoencoders";

function tableLines(rows: readonly Facts[], indent: string, isHeaded: boolean): string[] {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) =>
    rows.some((row) => row[name] !== undefined),
  );
  const cells = rows.map((row) => names.map((name) => shown(name, row[name] as Fact)));
  if (isHeaded) cells.unshift(names.map((name) => (name === "l0" ? "L0" : name)));
  const widths = names.map((_, column) => Math.max(...cells.map((row) => row[column].length)));
  return cells.map((row) => `${indent}${row.map((cell, column) => cell.padEnd(widths[column])).join("  ")}`.trimEnd());
}

function shown(name: string, value: Fact): string {
  if (value === undefined) return "";
  if (Array.isArray(value))
    return value.every((item) => typeof item === "number") ? `[${value.join(", ")}]` : value.join(", ");
  if (name === "bytes") return formatBytes(Number(value));
  if (typeof value === "number")
    return Number.isSafeInteger(value) && name !== "step" ? formatCount(value) : String(value);
  return String(value).replace(/\s*[\r\n]+\s*/g, " ");
}

function isTable(value: Facts[string]): value is readonly Facts[] {
  return Array.isArray(value) && value.every((item) => typeof item === "object");
}

function isNested(value: Facts[string]): value is Facts {
  return typeof value === "object" && !Array.isArray(value);
}

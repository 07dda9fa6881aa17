/** Tables of measurements, as text and as Markdown. */

export interface Table {
  readonly title: string;
  /** The first column is names, the others are numbers. */
  readonly columns: readonly string[];
  /** As many cells as columns; a missing or undefined one is empty. */
  readonly rows: readonly (readonly (string | undefined)[])[];
  /** What a reader must know, below the table. */
  readonly notes?: readonly string[];
}

/** Names left, numbers right, as wide as they must be. */
export function tableText({ title, columns, rows, notes = [] }: Table): string {
  const lines = [columns, ...rows].map((cells) => columns.map((_, i) => cells[i] ?? ""));
  const widths = columns.map((_, i) => Math.max(...lines.map((cells) => cells[i].length)));
  const text = lines.map((cells) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[i]))).join("  "),
  );
  return [title, "-".repeat(title.length), ...text.map((line) => line.trimEnd()), ...notes].join("\n");
}

export function tableMarkdown({ title, columns, rows, notes = [] }: Table): string {
  const line = (cells: readonly (string | undefined)[]) =>
    `| ${columns.map((_, i) => (cells[i] ?? "").replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = `| ${columns.map((_, i) => (i === 0 ? "---" : "---:")).join(" | ")} |`;
  const below = notes.length === 0 ? [] : ["", ...notes.map((note) => `- ${note}`)];
  return [`## ${title}`, "", line(columns), rule, ...rows.map(line), ...below].join("\n");
}

/**
 * Three or four digits that mean something: "0.532", "31.4", "317", "12,345"; undefined (an empty
 * cell) for what is not finite.
 */
export function figure(value: number): string | undefined {
  if (!Number.isFinite(value)) return undefined;
  const decimals = Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
  return Number(value.toFixed(decimals)).toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
}

/**
 * "7.93 x", "98 %", "1.93": a ratio, a share and a plain number with two decimals; undefined for
 * what is not finite.
 */
export const times = (value: number): string | undefined =>
  Number.isFinite(value) ? `${value.toFixed(2)} x` : undefined;
export const percent = (value: number): string | undefined =>
  Number.isFinite(value) ? `${(100 * value).toFixed(0)} %` : undefined;
export const decimals = (value: number): string | undefined => (Number.isFinite(value) ? value.toFixed(2) : undefined);

/** A curve in a terminal, out of the block characters. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

const EIGHTHS = " ▁▂▃▄▅▆▇█";

/**
 * The curve as lines of text, the y axis logarithmic: filled columns under the mean of the points
 * that fall into each. Points whose y is not above 0 are left out; no lines when fewer than two
 * places are left.
 */
export function plot(points: readonly Point[], { width = 60, height = 7 } = {}): string[] {
  const shown = points.filter(({ y }) => y > 0 && Number.isFinite(y));
  const from = shown[0]?.x ?? 0;
  const to = shown.at(-1)?.x ?? 0;
  if (!(from < to)) return [];
  const columns: (number | undefined)[] = [];
  for (let column = 0; column < width; column++) {
    const inside = shown.filter(
      ({ x }) => Math.min(width - 1, Math.floor(((x - from) / (to - from)) * width)) === column,
    );
    columns.push(
      inside.length > 0 ? inside.reduce((sum, { y }) => sum + Math.log(y), 0) / inside.length : columns.at(-1),
    );
  }
  const logs = columns.filter((y) => y !== undefined);
  const low = Math.min(...logs);
  const high = Math.max(...logs);
  // One eighth stays visible at the lowest point.
  const eighths = columns.map((y) =>
    y === undefined ? 0 : 1 + Math.round(((y - low) / (high - low || 1)) * (8 * height - 1)),
  );
  const marked = low === high ? [(height - 1) >> 1] : [...new Set([0, (height - 1) >> 1, height - 1])];
  const labels = distinct(marked.map((line) => Math.exp(low + ((high - low) * (line + 0.5)) / height)));
  const lines: string[] = [];
  for (let line = height - 1; line >= 0; line--) {
    const axis = labels[marked.indexOf(line)] ?? "";
    lines.push(
      `${axis.padStart(8)} │${eighths.map((full) => EIGHTHS[Math.min(8, Math.max(0, full - 8 * line))]).join("")}`.trimEnd(),
    );
  }
  const left = from.toLocaleString("en-US");
  const right = to.toLocaleString("en-US");
  lines.push(
    `${"".padStart(8)} └${"─".repeat(width)}`,
    `${"".padStart(10)}${left}${right.padStart(width - left.length)}`,
  );
  return lines;
}

/**
 * The values in as few digits as tell them apart, two at least; the same number of digits in each.
 */
function distinct(values: readonly number[]): string[] {
  for (let digits = 2; ; digits++) {
    const labels = values.map((value) => value.toPrecision(digits));
    if (digits === 7 || new Set(labels).size === labels.length) return labels;
  }
}

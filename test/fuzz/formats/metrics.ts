/**
 * The logs of a run folder, metrics.jsonl and density.jsonl, as the dashboard reads them. It
 * refuses nothing: what makes no sense is left out, or is the run's `problem`.
 */

import { readFile, truncate, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { Series } from "../../../src/dashboard/api.ts";
import { Run } from "../../../src/dashboard/run.ts";
import { densityLine, type Line, linesOf, metricsLine } from "../../support/run-folder.ts";
import { type FuzzFormat, jsonBoundaries, type Sample, WHOLE_FILE } from "../format.ts";

const textOf = (lines: readonly Line[]): Buffer =>
  Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));

const beside = {
  "config.json": JSON.stringify({ latents: 64, batch: 32, tokens: 6400 }),
  lock: "process 1 on nowhere",
};
const METRICS = textOf(linesOf(1, 30));
const DENSITY = textOf([densityLine(10), densityLine(20)]);
const RESUMED = textOf([...linesOf(1, 12), ...linesOf(9, 16)]);
/** What sums of these come to is no number. */
const VAST = textOf(
  [1e308, 1.2e308, 1.5e308].flatMap((vast, i) => [
    metricsLine(i + 1, 0, { tokens: vast, loss: vast }),
    metricsLine(vast),
  ]),
);

const sample = (name: string, bytes: Buffer): Sample => ({
  name,
  file: "metrics.jsonl",
  bytes,
  beside: { ...beside, "density.jsonl": DENSITY },
});

/** Throws unless the page, which gets it as JSON, finds what `Series` promises. */
function check(sent: Series): void {
  const { step, tokens, elapsed_s, metrics: all } = JSON.parse(JSON.stringify(sent)) as Series;
  const columns = [step, tokens, elapsed_s, ...all.flatMap(({ mean, min, max }) => [mean, min ?? mean, max ?? mean])];
  if (columns.some((column) => column.length !== step.length)) throw new Error("columns of different lengths");
  if (!step.every((value, i) => typeof value === "number" && value >= (step[i - 1] ?? value)))
    throw new Error("steps that do not rise");
}

/** All that a page could be told of the run. */
async function told(run: Run): Promise<string> {
  const { columns } = run;
  const parts = [columns.range(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY), columns.range(5, 20)];
  const series = parts.flatMap(([begin, end]) =>
    [2, 8, 500].flatMap((points) =>
      (["linear", "log"] as const).map((scale) => columns.pieces("run", points, scale, begin, end)),
    ),
  );
  for (const each of series) check(each);
  return JSON.stringify([series, columns.newest(), run.details, await run.summary()]);
}

export const metrics: FuzzFormat = {
  name: "metrics",
  samples: () => [
    sample("whole", METRICS),
    sample("resumed", RESUMED),
    sample("vast", VAST),
    { name: "density", file: "density.jsonl", bytes: DENSITY, beside: { ...beside, "metrics.jsonl": METRICS } },
  ],
  boundaries: (bytes) => jsonBoundaries(bytes),
  json: WHOLE_FILE,
  // A file that is read while it grows must come to the same as one that is read when it is whole.
  async read(path) {
    const bytes = await readFile(path);
    const [growing, whole] = [new Run("run", "run", dirname(path)), new Run("run", "run", dirname(path))];
    await truncate(path, bytes.length >> 1);
    await growing.update();
    await writeFile(path, bytes);
    await growing.update();
    await whole.update();
    if ((await told(growing)) !== (await told(whole))) throw new Error("read while it grew, it says something else");
  },
};

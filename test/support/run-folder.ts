/** Run folders as training would leave them, without training. */

import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CONFIG, type DENSITY, METRICS } from "../../src/run-files/names.ts";

export type Line = Readonly<Record<string, unknown>>;

/**
 * A line of metrics.jsonl; what falls falls as 1 / sqrt(step), by half for each unit of `better`.
 */
export function metricsLine(step: number, better = 0, more: Line = {}): Line {
  const level = 2 ** -better / Math.sqrt(step);
  return {
    step,
    tokens: step * 32,
    epoch: (step * 32) / 6400,
    elapsed_s: step / 10,
    loss: level,
    mse: level / 2,
    fvu: level,
    auxk_loss: 0,
    l0: 8,
    dead: step % 7,
    dead_fraction: (step % 7) / 64,
    grad_norm: 0.1 + level,
    skipped: 0,
    lr: 1e-3,
    loss_scale: 1,
    skipped_rows: 0,
    tokens_per_second: 320,
    ...(step % 20 === 0 ? { holdout_fvu: level * 1.1, holdout_mse: level * 0.55 } : {}),
    ...more,
  };
}

export function densityLine(step: number): Line {
  const density = Array.from({ length: 10 }, (_, i) => ({
    from: (i - 10) / 5,
    to: (i - 9) / 5,
    latents: 6 - Math.abs(i - 5),
  }));
  return { step, rows: 320, latents: 64, never: 64 - density.reduce((sum, { latents }) => sum + latents, 0), density };
}

export function writeRun(folder: string, lines: readonly Line[], config: Line = {}): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, CONFIG),
    JSON.stringify({ data: ["acts.h5"], latents: 64, k: 8, batch: 32, tokens: 6400, drop_last: true, ...config }),
  );
  writeFileSync(join(folder, METRICS), "");
  appendLines(folder, METRICS, lines);
  return folder;
}

export function appendLines(folder: string, name: typeof METRICS | typeof DENSITY, lines: readonly Line[]): void {
  appendFileSync(join(folder, name), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

/** Lines of steps `from` to `to`. */
export function linesOf(from: number, to: number, better = 0): Line[] {
  return Array.from({ length: to - from + 1 }, (_, i) => metricsLine(from + i, better));
}

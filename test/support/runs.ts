/** What a run left on the disk, for comparing two of them. */

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** The lines of metrics.jsonl without what depends on the clock. */
export async function metricsOf(run: string): Promise<Record<string, unknown>[]> {
  const lines = (await readFile(join(run, "metrics.jsonl"), "utf8")).trimEnd().split("\n");
  return lines.map((line) => {
    const { elapsed_s, tokens_per_second, ...rest } = JSON.parse(line) as Record<string, unknown>;
    if (typeof elapsed_s !== "number" || typeof tokens_per_second !== "number") throw new Error(`no times in ${line}`);
    return rest;
  });
}

export async function checkpointsOf(run: string): Promise<string[]> {
  return (await readdir(join(run, "checkpoints"))).toSorted();
}

/**
 * Every tensor file of a checkpoint, byte for byte, and what state.json says of the place in the
 * data.
 */
export async function checkpointOf(run: string, name: string): Promise<Record<string, unknown>> {
  const folder = join(run, "checkpoints", name);
  const found: Record<string, unknown> = {};
  for (const file of (await readdir(folder)).toSorted()) {
    if (file.endsWith(".safetensors")) found[file] = (await readFile(join(folder, file))).toString("base64");
  }
  const { progress } = JSON.parse(await readFile(join(folder, "state.json"), "utf8")) as {
    progress: Record<string, unknown>;
  };
  return {
    ...found,
    position: progress.position,
    tokens: progress.tokens,
    mse_scale: progress.mse_scale,
    loss_scale: progress.loss_scale,
  };
}

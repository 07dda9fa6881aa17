/** The run that is tortured: small, and with everything that a checkpoint must remember in use. */

import { createHash } from "node:crypto";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { flagOf, type TrainOptions } from "../../src/config.ts";
import { openSource } from "../../src/data/open.ts";
import { resume } from "../../src/train/resume.ts";
import { train } from "../../src/train/train.ts";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { checkpointOf, metricsOf } from "../support/runs.ts";

const WIDTH = 16;
const SEQUENCES = 32;
const LENGTH = 20;

/** Rows that are read in several epochs. */
export function writeData(folder: string): Promise<string> {
  return writeActivations(join(folder, "acts.h5"), learnableRows(SEQUENCES * LENGTH, WIDTH, 24), [
    SEQUENCES,
    LENGTH,
    WIDTH,
  ]);
}

const BATCH = 16;

/**
 * `steps` steps with an average, clipping, dead latents, warm-up, decay, shuffled epochs and
 * evaluations, saved every `checkpointEvery`.
 */
export function optionsOf(steps: number, checkpointEvery: number, more: TrainOptions = {}): TrainOptions {
  return {
    engine: "reference",
    latents: 64,
    k: 4,
    auxk: 8,
    batch: BATCH,
    tokens: BATCH * steps,
    lr: 3e-3,
    ema: 0.9,
    clip: 0.2,
    deadTokens: 64,
    warmup: 5,
    logEvery: 1,
    evalEvery: Math.ceil(steps / 4),
    checkpointEvery,
    keep: 3,
    statisticsRows: 256,
    ...more,
  };
}

/** The same as flags of the command line. */
export function flagsOf(options: TrainOptions): string[] {
  return Object.entries(options).flatMap(([name, value]) => [flagOf(name), String(value)]);
}

/**
 * Trains into `out`, or goes on there where a run is already: what somebody does whose run was
 * ended, however often.
 */
export async function trainOrResume(
  data: string,
  out: string,
  options: TrainOptions,
  onNote?: (note: string) => void,
): Promise<void> {
  const begun = await exists(join(out, "config.json"));
  const source = begun ? undefined : await openSource([data]);
  try {
    const run = source === undefined ? await resume(out, { onNote }) : await train(source, { ...options, out, onNote });
    const { sae } = await run.finished;
    await sae.close();
  } finally {
    await source?.close();
  }
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/**
 * A hash of everything that a run of `steps` steps leaves: weights, moments, average, ages,
 * counters, place in the data, metrics without their times.
 */
export async function digestOf(run: string, steps: number): Promise<string> {
  const checkpoint = await checkpointOf(run, `step-${String(steps).padStart(8, "0")}`);
  return createHash("sha256")
    .update(JSON.stringify([checkpoint, await metricsOf(run)]))
    .digest("hex");
}

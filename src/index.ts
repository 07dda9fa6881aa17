/**
 * The library. What the command line does, from TypeScript:
 *
 *     const acts = await openActivations("acts.h5");
 *     const run = await train(acts, { latents: 4096, k: 32, out: "runs/a" });
 *     for await (const report of run) console.log(report.step, report.fvu);
 *     await run.finished;
 *     const sae = await loadSae("runs/a");
 *     const codes = await sae.encode(rows); // Float32Array [B*d] -> { k, latent [B*k], value [B*k] }
 */

import { openSource } from "./data/open.ts";
import type { Source } from "./data/source.ts";

export type { Config, TrainOptions } from "./config.ts";
export type { Origin, RowDType, Source } from "./data/source.ts";
export { type EngineName, selectEngine } from "./engine/select.ts";
export { type HarvestOptions, type HarvestResult, harvest } from "./harvest/harvest.ts";
export { type LoadOptions, loadSae, type Sae, type SparseCodes } from "./inference/sae.ts";
export type { Report } from "./train/report.ts";
export type { TrainResult, TrainRun } from "./train/run.ts";
export { type RunOptions, resume, type TrainArguments, train } from "./train/train.ts";
export { FormatError, SaettaError, UsageError } from "./util/errors.ts";

/** Opens one or many HDF5 files of activations, 3-D [n_seq, T, d] or 2-D [n, d], as one source of rows. Close it when done. */
export function openActivations(paths: string | readonly string[], options: { readonly dataset?: string } = {}): Promise<Source> {
  return openSource(typeof paths === "string" ? [paths] : paths, options);
}

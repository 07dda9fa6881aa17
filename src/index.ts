/**
 * The library. What the command line does, from TypeScript:
 *
 *     // or fromRows(() => myRows(), { dIn: 64, rows: 2560 })
 *     const acts = await openActivations("acts.h5");
 *     const run = await train(acts, { latents: 4096, k: 32, out: "runs/a", signal });
 *     for await (const s of run) if (s.fvu < 0.1) await run.stop();
 *     const { sae, reason } = await run.finished;
 *     // Float32Array [B*d] -> { k, latent [B*k], value [B*k] }
 *     const z = await (await loadSae("runs/a")).encode(rows);
 *
 * Whatever holds files, memory or threads has `close()`, and is closed by `await using` too. Errors
 * are those of the command line: UsageError for what was asked for, FormatError for a file,
 * SaettaError (of which both are kinds) for all else that is expected; their messages are one line
 * that says how to mend it.
 */

export type { Report } from "./run-files/metrics.ts";

import { type OpenOptions, openData } from "./data/open.ts";
import type { Source } from "./data/source.ts";

export type { Config, TrainOptions } from "./config.ts";
export { pairSources } from "./data/pair.ts";
export { fromRows, type RowChunk, type Rows, type RowsOptions } from "./data/rows-source.ts";
export type { Origin, RowDType, Source } from "./data/source.ts";
export { type Dims, type Engine, NONE } from "./engine/engine.ts";
export { type EngineName, type SelectOptions, selectEngine } from "./engine/select.ts";
export { type HarvestOptions, type HarvestResult, harvest } from "./harvest/harvest.ts";
export { type EncodeOptions, type EncodeResult, encode } from "./inference/encode.ts";
export { type Exchange, type ExportOptions, exportSae, type ImportOptions, importSae } from "./inference/exchange.ts";
export { type LoadOptions, loadSae, type RowStatistics, type Sae, type SparseCodes } from "./inference/sae.ts";
export type { Comparison } from "./inference/verify.ts";
export type { WeightsKind } from "./inference/weights.ts";
export type { FormatName } from "./interchange/format.ts";
export { type ResumeArguments, resume } from "./train/resume.ts";
export type { DataInUse, TrainResult, TrainRun } from "./train/run.ts";
export { type ResumeSweepArguments, resumeSweep } from "./train/sweep/resume-sweep.ts";
export { type SweepArguments, sweep } from "./train/sweep/sweep.ts";
export type {
  MemberReport,
  MemberResult,
  SweepMember,
  SweepReport,
  SweepResult,
  SweepRun,
} from "./train/sweep/sweep-run.ts";
export { type RunOptions, type TrainArguments, train } from "./train/train.ts";
export { FormatError, SaettaError, UsageError } from "./util/errors.ts";

/**
 * Activations as `openActivations` and `fromRows` give them: a source of rows that `await using`
 * closes.
 */
export type Activations = Source & AsyncDisposable;

/** How `openActivations` opens files. */
export interface ActivationsOptions extends OpenOptions {
  /** Files of the targets of a transcoder, with the same rows. */
  readonly target?: string | readonly string[] | undefined;
  /** Name of their array; default: `dataset`. */
  readonly targetDataset?: string | undefined;
}

/**
 * Opens files of activations as one source of rows [rows, d]: 3-D arrays [n_seq, T, d] or 2-D ones
 * [n, d], of one width and dtype, in HDF5, npy, safetensors, Arrow (Hugging Face datasets) or torch
 * files. `dataset` names the array in files that name theirs, `as` the type of 2-byte elements that
 * the file gives no float type. With `target` rows are pairs (data/pair.ts). The result's `notes`
 * say what was taken for granted or left out. Rejects with SaettaError or FormatError, naming the
 * file, when one cannot be read. Close it when done.
 */
export async function openActivations(
  paths: string | readonly string[],
  options: ActivationsOptions = {},
): Promise<Activations> {
  const list = (files: string | readonly string[]) => (typeof files === "string" ? [files] : files);
  const { target, ...rest } = options;
  const source = await openData(list(paths), { ...rest, target: target === undefined ? undefined : list(target) });
  return { ...source, [Symbol.asyncDispose]: () => source.close() };
}

/**
 * Names of files and folders in run folders and checkpoint folders, and what short texts in them
 * look like. Part of the Contract.
 */

/** In the folder of a sweep, next to the run folders of its members. */
export const SWEEP = "sweep.json";

/** In a run folder. */
export const CONFIG = "config.json";
export const METRICS = "metrics.jsonl";
export const DENSITY = "density.jsonl";
export const CHECKPOINTS = "checkpoints";
/**
 * The file that is locked while a process writes to the folder; its text only says who holds it.
 */
export const LOCK = "lock";
/** The folder in which `saetta report` leaves the features file. */
export const FEATURES = "features";

/** Names and notes of latents, next to what they are of: in a run folder or an autoencoder's. */
export const LABELS = "labels.jsonl";

/** In the folder FEATURES. */
export const FEATURES_FILE = "features.saetta";

/** In a checkpoint folder. */
export const MANIFEST = "manifest.json";
export const CFG = "cfg.json";
export const WEIGHTS = "sae.safetensors";
/**
 * In place of WEIGHTS where rows must be normalised first, so that readers that would not do it do
 * not open it.
 */
export const OWN_WEIGHTS = "saetta.safetensors";
export const AVERAGE = "ema.safetensors";
export const OPTIMIZER = "optimizer.safetensors";
export const STATE = "state.json";

/** The checkpoint folder of a step, in the folder CHECKPOINTS: step-00001000. */
export function stepName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** The text of the file LOCK. */
export function lockText(pid: number, host: string): string {
  return `process ${pid} on ${host}\n`;
}

/** What a text of the file LOCK says; undefined where it is none. */
export function holderOf(text: string | undefined): { readonly pid: number; readonly host: string } | undefined {
  const [, pid, host] = /^process (\d{1,10}) on (.{1,255})$/.exec(text?.trim() ?? "") ?? [];
  return pid === undefined || host === undefined ? undefined : { pid: Number(pid), host };
}

/** The step of a checkpoint folder's name; undefined for any other name. */
export function stepOf(name: string): number | undefined {
  const step = Number(/^step-(\d{8,15})$/.exec(name)?.[1] ?? Number.NaN);
  return stepName(step) === name ? step : undefined;
}

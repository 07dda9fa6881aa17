/** File names in run and checkpoint folders. */

import { join } from "node:path";
import { architectureNamed } from "../sae/architectures/index.ts";
import { normalizationOf, type SaeDescription } from "../sae/description.ts";
import { disk, type Storage } from "./storage.ts";

/** Files of a checkpoint folder, beside manifest.json. */
export const CFG = "cfg.json";
export const WEIGHTS = "sae.safetensors";
/** In place of WEIGHTS where rows must be normalised first: other readers, which would not, do not take it for what it is not. */
export const OWN_WEIGHTS = "saetta.safetensors";
export const AVERAGE = "ema.safetensors";
export const OPTIMIZER = "optimizer.safetensors";
export const STATE = "state.json";

/** Before the names of parameters, in optimizer.safetensors: as training has them, where the weights file holds them divided (fold.ts). */
export const TRAINED = "train.";

/** The file that holds the weights of an autoencoder. */
export function weightsFile(description: SaeDescription): string {
  const { kind } = normalizationOf(description);
  const { isOfSparsify } = architectureNamed(description.spec.architecture).cfg;
  return isOfSparsify && (kind === "none" || kind === "scale") ? WEIGHTS : OWN_WEIGHTS;
}

export function checkpointsFolder(runDir: string): string {
  return join(runDir, "checkpoints");
}

export function stepName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** Whether the folder is of a run of Saetta: by what it holds, since others have folders called "checkpoints" too. `names`: those in the folder. */
export async function isRunFolder(path: string, names: ReadonlySet<string>): Promise<boolean> {
  if (names.has("metrics.jsonl")) return true;
  if (!names.has("checkpoints")) return false;
  for (const step of await savedSteps(path)) {
    const files = await disk.list(join(checkpointsFolder(path), stepName(step))).catch((): string[] => []);
    if (files.includes("manifest.json")) return true;
  }
  return false;
}

/** The steps that have a checkpoint in the run folder, the newest first. */
export async function savedSteps(runDir: string, storage: Storage = disk): Promise<number[]> {
  const steps = (await storage.list(checkpointsFolder(runDir))).flatMap((name) => {
    const step = Number(/^step-(\d{8,15})$/.exec(name)?.[1] ?? Number.NaN);
    return stepName(step) === name ? [step] : [];
  });
  return steps.sort((a, b) => b - a);
}

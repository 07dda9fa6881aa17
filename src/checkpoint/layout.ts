/** Where things are in run and checkpoint folders. */

import { basename, dirname, join } from "node:path";
import { CHECKPOINTS, MANIFEST, METRICS, OWN_WEIGHTS, stepName, stepOf, WEIGHTS } from "../run-files/names.ts";
import { architectureNamed } from "../sae/architectures/index.ts";
import { normalizationOf, type SaeDescription } from "../sae/description.ts";
import { disk, type Storage } from "./storage.ts";

/**
 * Before the names of parameters, in optimizer.safetensors: as training has them, where the weights
 * file holds them divided (fold.ts).
 */
export const TRAINED = "train.";

/** The file that holds the weights: sparsify's, where it computes the same from them. */
export function weightsFile(description: SaeDescription): string {
  const { kind } = normalizationOf(description);
  const { isOfSparsify } = architectureNamed(description.spec.architecture).cfg;
  const { dIn, dOut } = description.dims; // its transcoders write as many numbers as they read
  return isOfSparsify && dIn === dOut && (kind === "none" || kind === "scale") ? WEIGHTS : OWN_WEIGHTS;
}

export function checkpointsFolder(runDir: string): string {
  return join(runDir, CHECKPOINTS);
}

/** The run folder that a checkpoint folder belongs to; undefined where it is in none. */
export function runFolderOf(checkpoint: string): string | undefined {
  const parent = dirname(checkpoint);
  return basename(parent) === CHECKPOINTS ? dirname(parent) : undefined;
}

/**
 * Whether the folder is of a run of Saetta: by what it holds, since others have folders called
 * "checkpoints" too. `names`: those in the folder.
 */
export async function isRunFolder(path: string, names: ReadonlySet<string>): Promise<boolean> {
  if (names.has(METRICS)) return true;
  if (!names.has(CHECKPOINTS)) return false;
  for (const step of await savedSteps(path)) {
    const files = await disk.list(join(checkpointsFolder(path), stepName(step))).catch((): string[] => []);
    if (files.includes(MANIFEST)) return true;
  }
  return false;
}

/** The steps that have a checkpoint in the run folder, the newest first. */
export async function savedSteps(runDir: string, storage: Storage = disk): Promise<number[]> {
  const steps = (await storage.list(checkpointsFolder(runDir))).flatMap((name) => stepOf(name) ?? []);
  return steps.sort((a, b) => b - a);
}

/** What stands where in a run folder and in a checkpoint folder, and under which names. */

import { join } from "node:path";
import type { Params } from "../engine/engine.ts";
import { disk, type Storage } from "./storage.ts";

/** Files of a checkpoint folder, beside manifest.json. */
export const CFG = "cfg.json";
export const WEIGHTS = "sae.safetensors";
export const AVERAGE = "ema.safetensors";
export const OPTIMIZER = "optimizer.safetensors";
export const STATE = "state.json";

/** Name of each parameter in safetensors files: sparsify's. */
export const TENSOR_NAMES: { readonly [K in keyof Params]: string } = {
  encoder: "encoder.weight",
  latentBias: "encoder.bias",
  decoder: "W_dec",
  preBias: "b_dec",
};

export function checkpointsFolder(runDir: string): string {
  return join(runDir, "checkpoints");
}

export function stepName(step: number): string {
  return `step-${String(step).padStart(8, "0")}`;
}

/** The steps that have a checkpoint in the run folder, the newest first. */
export async function savedSteps(runDir: string, storage: Storage = disk): Promise<number[]> {
  const steps = (await storage.list(checkpointsFolder(runDir))).flatMap((name) => {
    const step = Number(/^step-(\d{8,15})$/.exec(name)?.[1] ?? Number.NaN);
    return stepName(step) === name ? [step] : [];
  });
  return steps.sort((a, b) => b - a);
}

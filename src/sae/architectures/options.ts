/** Options of `saetta train` that several architectures have, by the names of the library. */

import { z } from "zod";
import { FormatError, UsageError } from "../../util/errors.ts";
import type { Fields } from "../../util/json.ts";

export const kOption = {
  k: z.number().positive().describe("active latents per row; batchtopk: mean, may be fractional"),
};

export const auxkOptions = {
  auxk: z.number().int().nonnegative().describe("dead latents per row that the auxiliary loss may use; 0 turns it off"),
  auxkCoef: z.number().nonnegative().describe("weight of the auxiliary loss"),
};

export const annealOption = {
  kAnneal: z
    .string()
    .regex(/^\d+(\.\d+)?:\d+$/)
    .describe("FROM:STEPS, k falls in a straight line from FROM to --k over so many steps")
    .meta({ placeholder: "FROM:STEPS", default: "off" }),
};

export const multiOption = {
  multiTopk: z
    .number()
    .positive()
    .describe("multi-TopK, weight of the loss of a second reconstruction, by 4 k latents; not with AuxK")
    .meta({ placeholder: "WEIGHT", bare: "0.125", default: "off" }),
};

export const cutOptions = {
  thresholdDecay: z
    .number()
    .min(0)
    .lt(1)
    .describe("decay per step of the running mean of the lowest kept value, the threshold of inference"),
  thresholdStart: z.number().int().nonnegative().describe("steps before that running mean begins"),
  thresholdFrom: z
    .enum(["first", "zero"])
    .describe(
      "what that running mean begins with: its first value, or 0, which takes some hundred steps to be forgotten",
    )
    .meta({ default: "first, or the threshold of --init" }),
};

/** k at a step from 0. Throws UsageError where it does not fall. */
export function annealedK(k: number, anneal: string | undefined, step: number): number {
  if (anneal === undefined) return k;
  const [from = k, steps = 0] = anneal.split(":").map(Number);
  if (from < k) throw new UsageError(`--k-anneal ${anneal} begins below --k ${k}`, { mend: "begin above it" });
  return step >= steps ? k : from + ((k - from) * step) / steps;
}

/** The largest k of a run. */
export function largestK(k: number, anneal: string | undefined): number {
  return annealedK(k, anneal, 0);
}

/** Throws UsageError unless k is at most `latents` in every step. */
export function atMostLatents(k: number, latents: number, anneal?: string): void {
  if (k > latents)
    throw new UsageError(`--k ${k} is more than the ${latents} latents`, { mend: "lower --k or raise --latents" });
  if (largestK(k, anneal) > latents)
    throw new UsageError(`--k-anneal ${anneal} begins above the ${latents} latents`, {
      mend: `begin at ${latents} or below`,
    });
}

/**
 * What BatchTopK keeps of a step on `rows` rows, one code at least, and how its threshold moves. It
 * begins with the first value, or with 0 if asked for, or with that of an autoencoder (`init`).
 */
export function batchNumbers(
  {
    k,
    kAnneal,
    thresholdDecay,
    thresholdStart,
    init,
    thresholdFrom,
  }: {
    readonly k: number;
    readonly kAnneal?: string | undefined;
    readonly thresholdDecay: number;
    readonly thresholdStart: number;
    readonly init?: string | undefined;
    readonly thresholdFrom?: "first" | "zero" | undefined;
  },
  step: number,
  rows: number,
): { readonly kept: number; readonly cutDecay: number } {
  const from = thresholdFrom ?? (init === undefined ? "first" : "init");
  const replaces = step === thresholdStart && from === "first";
  return {
    kept: Math.max(1, Math.floor(annealedK(k, kAnneal, step) * rows)),
    cutDecay: step < thresholdStart ? 1 : replaces ? 0 : thresholdDecay,
  };
}

/** k of a cfg.json where it is a mean, which may be fractional. Throws unless it is above 0. */
export function readMeanK(cfg: Fields): number {
  const k = cfg.number("k");
  if (k > 0) return k;
  throw new FormatError(`"k" must be above 0, but is ${k}`, { where: cfg.where });
}

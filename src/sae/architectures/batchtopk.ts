/**
 * BatchTopK: Bussmann et al. 2024 (arXiv 2412.06410). Training keeps the k B highest values of a
 * batch of B rows, so that hard rows get more latents than easy ones. Inference looks at one row at
 * a time: a latent is active above a threshold, the running mean of the lowest value kept.
 */

import { CORE_PARAMS } from "../params.ts";
import type { Architecture } from "./architecture.ts";
import { annealOption, atMostLatents, auxkOptions, batchNumbers, cutOptions, kOption, readMeanK } from "./options.ts";

export interface BatchTopkSpec {
  readonly architecture: "batchtopk";
  /** Mean of the active latents per row; may be fractional. */
  readonly k: number;
  readonly auxk: number;
}

export const batchtopk = {
  name: "batchtopk",
  options: { ...kOption, ...auxkOptions, ...annealOption, ...cutOptions },
  defaults: { k: 32, auxk: 256, auxkCoef: 1 / 32, thresholdDecay: 0.99, thresholdStart: 0 },
  params: () => [...CORE_PARAMS, "cut"],
  rules: ({ k, auxk }) => ({
    live: { kind: "batchtopk", k },
    dead: auxk > 0 ? { kind: "topk", k: auxk } : undefined,
    inference: { kind: "threshold", param: "cut" },
  }),
  spec: (options, latents) => {
    const { k, auxk, kAnneal } = options as { readonly k: number; readonly auxk: number; readonly kAnneal?: string };
    atMostLatents(k, latents, kAnneal);
    return { architecture: "batchtopk", k, auxk };
  },
  stepHyper: (options, { step, rows }) => batchNumbers(options as never, step, rows),
  numbers: ({ k, auxk }) => ({ k, auxk }),
  called: { sparsify: "batchtopk", dictionary_learning: "BatchTopKSAE" },
  cfg: {
    isOfSparsify: false,
    write: ({ k, auxk }) => ({ sparsify: { k }, own: { auxk } }),
    read: (sparsify, own) => ({
      architecture: "batchtopk",
      k: readMeanK(sparsify),
      auxk: own?.integer("auxk") ?? 0,
    }),
  },
} as const satisfies Architecture<BatchTopkSpec>;

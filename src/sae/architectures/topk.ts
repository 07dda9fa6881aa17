/**
 * TopK with the auxiliary loss over dead latents (AuxK): Gao et al. 2024, "Scaling and evaluating
 * sparse autoencoders" (arXiv 2406.04093). The k highest latents of a row are active; the auxk
 * highest dead ones reconstruct the residual.
 */

import { z } from "zod";
import type { Architecture } from "./architecture.ts";

export interface TopkSpec {
  readonly architecture: "topk";
  /** Active latents per row. */
  readonly k: number;
  /** Dead latents per row that the auxiliary loss may use; 0: no auxiliary loss. */
  readonly auxk: number;
}

export const topk = {
  name: "topk",
  options: {
    k: z.number().int().positive().describe("active latents per row"),
    auxk: z
      .number()
      .int()
      .nonnegative()
      .describe("dead latents per row that the auxiliary loss may use; 0 turns it off"),
    auxkCoef: z.number().nonnegative().describe("weight of the auxiliary loss"),
  },
  defaults: { k: 32, auxk: 256, auxkCoef: 1 / 32 },
  params: ["encoder", "latentBias", "decoder", "preBias"],
  rules: ({ k, auxk }) => ({
    live: { kind: "topk", k },
    dead: auxk > 0 ? { kind: "topk", k: auxk } : undefined,
    inference: { kind: "topk", k },
  }),
  numbers: ({ k, auxk }) => ({ k, auxk }),
  called: { sparsify: "topk", saelens: "topk", openai: "TopK", dictionary_learning: "AutoEncoderTopK" },
  cfg: {
    isOfSparsify: true,
    write: ({ k, auxk }) => ({ sparsify: { k, multi_topk: false }, own: { auxk } }),
    read: (sparsify, own) => ({ architecture: "topk", k: sparsify.integer("k", 1), auxk: own?.integer("auxk") ?? 0 }),
  },
} as const satisfies Architecture<TopkSpec>;

/**
 * TopK with the auxiliary loss over dead latents (AuxK): Gao et al. 2024, "Scaling and evaluating
 * sparse autoencoders" (arXiv 2406.04093). The k highest latents of a row are active; the auxk
 * highest dead ones reconstruct the residual. Multi-TopK (the same paper, section 5.3) also has the
 * loss of a reconstruction by the 4 k highest.
 */

import { UsageError } from "../../util/errors.ts";
import { CORE_PARAMS } from "../params.ts";
import type { Architecture } from "./architecture.ts";
import { annealedK, annealOption, atMostLatents, auxkOptions, kOption, largestK, multiOption } from "./options.ts";

export interface TopkSpec {
  readonly architecture: "topk";
  /** Active latents per row. */
  readonly k: number;
  /** Dead latents per row that the auxiliary loss may use; 0: no auxiliary loss. */
  readonly auxk: number;
  /** Where k falls while training: the k that it starts from. */
  readonly startK?: number | undefined;
  /** Latents per row of the second reconstruction in the loss of multi-TopK; default: none. */
  readonly wideK?: number | undefined;
}

interface Options {
  readonly k: number;
  readonly auxk: number;
  readonly kAnneal?: string | undefined;
  readonly multiTopk?: number | undefined;
  readonly skip?: boolean | undefined;
}

/** So many times k latents reconstruct in the second loss of multi-TopK. */
const WIDER = 4;

export const topk = {
  name: "topk",
  options: { ...kOption, ...auxkOptions, ...annealOption, ...multiOption },
  defaults: { k: 32, auxk: 256, auxkCoef: 1 / 32 },
  params: () => CORE_PARAMS,
  rules: ({ k, auxk, startK = k, wideK }) => ({
    live: { kind: "topk", k: startK },
    dead: auxk > 0 ? { kind: "topk", k: auxk } : undefined,
    wide: wideK === undefined ? undefined : { kind: "topk", k: wideK },
    inference: { kind: "topk", k },
  }),
  spec: (options, latents) => {
    const { k, auxk, kAnneal, multiTopk, skip } = options as unknown as Options;
    wholeK(k, latents, kAnneal);
    const rival = auxk > 0 ? `--auxk ${auxk}` : skip ? "--skip" : undefined;
    if (multiTopk !== undefined && rival !== undefined)
      throw new UsageError(`--multi-topk and ${rival} exclude each other`, { mend: "leave out one of them" });
    const startK = Math.ceil(largestK(k, kAnneal));
    return {
      ...{ architecture: "topk", k, auxk },
      ...(startK === k ? {} : { startK }),
      ...(multiTopk === undefined ? {} : { wideK: Math.min(WIDER * k, latents) }),
    };
  },
  hyper: (options) => ({ wideCoef: (options as unknown as Options).multiTopk ?? 0 }),
  stepHyper: (options, { step }) => {
    const { k, kAnneal } = options as unknown as Options;
    return { rowK: Math.round(annealedK(k, kAnneal, step)) };
  },
  numbers: ({ k, auxk }) => ({ k, auxk }),
  called: { sparsify: "topk", saelens: "topk", openai: "TopK", dictionary_learning: "AutoEncoderTopK" },
  cfg: {
    isOfSparsify: true,
    write: ({ k, auxk, wideK }) => ({ sparsify: { k, multi_topk: wideK !== undefined }, own: { auxk } }),
    read: (sparsify, own) => ({ architecture: "topk", k: sparsify.integer("k", 1), auxk: own?.integer("auxk") ?? 0 }),
  },
} as const satisfies Architecture<TopkSpec>;

/** Throws UsageError unless k is a whole number, and in every step at most `latents`. */
export function wholeK(k: number, latents: number, anneal?: string): void {
  if (!Number.isInteger(k))
    throw new UsageError(`--k ${k} is not a whole number`, { mend: "round it, or use --architecture batchtopk" });
  atMostLatents(k, latents, anneal);
}

/**
 * JumpReLU: Rajamanoharan et al. 2024 (arXiv 2407.14435). A latent is active above a threshold of
 * its own, which is trained by straight-through gradients in a window around it. What keeps the
 * codes sparse is a loss; with a target L0 a controller moves the coefficient of that loss.
 */

import { z } from "zod";
import { UsageError } from "../../util/errors.ts";
import { PENALTIES } from "../math/sparsity.ts";
import { CORE_PARAMS } from "../params.ts";
import type { Architecture } from "./architecture.ts";

export interface JumpReluSpec {
  readonly architecture: "jumprelu";
  /** Mean L0 that training steers to; 0: none. */
  readonly targetL0: number;
}

interface Options {
  readonly targetL0: number;
  readonly sparsityPenalty: (typeof LOSSES)[number];
  readonly sparsityCoef?: number | undefined;
  readonly sparsityWarmup: number;
  readonly bandwidth: number;
  readonly tanhScale: number;
  readonly deadPenalty: number;
}

/** Those that bring the L0 down. */
const [, ...LOSSES] = PENALTIES;

/** How fast log(coefficient) follows the L0, per step. */
const GAIN = 0.02;

export const jumprelu = {
  name: "jumprelu",
  options: {
    targetL0: z
      .number()
      .nonnegative()
      .describe(
        "mean active latents per row to steer to, by the coefficient of the sparsity loss; 0: fixed coefficient",
      ),
    sparsityPenalty: z
      .enum(LOSSES)
      .describe("sparsity loss: the L0 (step), the sum of tanh(scale f), or (L0 / target - 1)^2 (quadratic)"),
    sparsityCoef: z
      .number()
      .nonnegative()
      .describe("coefficient of the sparsity loss; with --target-l0 where it starts")
      .meta({ default: "0.1 / target L0" }),
    sparsityWarmup: z.number().min(0).max(1).describe("share of the steps over which the coefficient rises from 0"),
    bandwidth: z.number().positive().describe("width of the window in which a threshold has a gradient"),
    initialThreshold: z
      .union([z.literal("auto"), z.number().nonnegative()])
      .describe("what thresholds start from; auto: what gives the target L0 on a sample"),
    tanhScale: z.number().positive().describe("scale of the penalty tanh"),
    deadPenalty: z.number().nonnegative().describe("weight of the loss that pulls dead latents up to their threshold"),
  },
  defaults: {
    ...{ targetL0: 32, sparsityPenalty: "step", sparsityWarmup: 0, bandwidth: 0.1 },
    ...{ initialThreshold: "auto", tanhScale: 4, deadPenalty: 3e-6 },
  },
  params: () => [...CORE_PARAMS, "threshold", "sparsity"],
  rules: () => ({
    live: { kind: "threshold", param: "threshold" },
    band: { kind: "band" },
    inference: { kind: "threshold", param: "threshold" },
  }),
  spec: (options, latents) => {
    const { targetL0, sparsityPenalty, sparsityCoef } = options as unknown as Options;
    if (targetL0 === 0 && (sparsityPenalty === "quadratic" || sparsityCoef === undefined))
      throw new UsageError(`--target-l0 0 leaves the sparsity loss without a size`, {
        mend: "give --target-l0, or --sparsity-coef with the penalty step or tanh",
      });
    if (targetL0 > 0 && sparsityCoef === 0)
      throw new UsageError(`--sparsity-coef 0 leaves --target-l0 ${targetL0} without a loss to steer by`, {
        mend: "raise it, or give --target-l0 0",
      });
    if (targetL0 > latents)
      throw new UsageError(`--target-l0 ${targetL0} is more than the ${latents} latents`, {
        mend: "lower it or raise --latents",
      });
    return { architecture: "jumprelu", targetL0 };
  },
  hyper: (options) => {
    const { targetL0, sparsityPenalty, bandwidth, tanhScale, deadPenalty } = options as unknown as Options;
    return {
      ...{ penalty: PENALTIES.indexOf(sparsityPenalty), bandwidth, tanhScale, targetL0, deadPenalty },
      gain: targetL0 > 0 && sparsityPenalty !== "quadratic" ? GAIN : 0,
    };
  },
  stepHyper: (options, { step, steps }) => {
    const { targetL0, sparsityCoef, sparsityWarmup, sparsityPenalty } = options as unknown as Options;
    const coefficient = sparsityCoef ?? (sparsityPenalty === "quadratic" ? 1 : 0.1 / targetL0);
    const warm = sparsityWarmup === 0 ? 1 : Math.min(1, (step + 1) / Math.max(1, sparsityWarmup * steps));
    return { sparsity: coefficient * warm };
  },
  // No L0 has been seen yet.
  start: () => ({ sparsity: [1, 0] }),
  like: ({ targetL0 }) => (targetL0 > 0 ? { targetL0 } : {}),
  numbers: ({ targetL0 }) => ({ target_l0: targetL0 }),
  called: { sparsify: "jumprelu", saelens: "jumprelu", dictionary_learning: "JumpReluAutoEncoder" },
  cfg: {
    isOfSparsify: false,
    write: ({ targetL0 }) => ({ sparsify: {}, own: { target_l0: targetL0 } }),
    read: (_, own) => ({ architecture: "jumprelu", targetL0: own?.has("target_l0") ? own.number("target_l0") : 0 }),
  },
} as const satisfies Architecture<JumpReluSpec>;

/** Options of `saetta train` for the update of the weights; `config.ts` has them in its schema. */

import { z } from "zod";

const positive = z.number().positive();
const average = z.number().min(0).lt(1);

export const optimizerOptions = {
  lr: z
    .union([z.literal("auto"), positive])
    .describe("peak learning rate of Adam; auto: by latents, width and k (docs/choosing.md)")
    .meta({ default: "auto" }),
  warmup: z
    .number()
    .int()
    .nonnegative()
    .describe("steps of linear warm-up")
    .meta({ default: "5 % of the steps, at most 1000" }),
  decay: z.number().min(0).max(1).describe("share of the steps, at the end, over which the learning rate falls to 0"),
  eps: positive.describe("epsilon of Adam, outside the bias-corrected root"),
  beta1: average.describe("decay per step of Adam's running mean of the gradient"),
  beta2: average.describe("decay per step of Adam's running mean of its squares"),
  clip: z.number().nonnegative().describe("largest global norm of the gradient; 0 is off"),
  ema: average.describe("decay of the running average of the weights, such as 0.999; 0 is off"),
} as const;

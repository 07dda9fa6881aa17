/** The learning rate that `saetta train` takes where none is given. */

export interface RateFacts {
  /** Width of the rows. */
  readonly dIn: number;
  readonly latents: number;
  /** Active latents per row: k, or the target L0. */
  readonly active: number;
  readonly isTranscoder: boolean;
}

/** The options that the rate follows from. */
export interface RateOptions {
  readonly lr?: number | "auto" | undefined;
  readonly architecture: string;
  readonly k?: number | undefined;
  readonly targetL0?: number | undefined;
}

/** What `--lr` says, which is `auto` where it says nothing. */
export function rateOf(options: RateOptions, facts: Omit<RateFacts, "active">): number {
  const { lr = "auto", architecture, k, targetL0 } = options;
  if (lr !== "auto") return lr;
  const active = (architecture === "jumprelu" && targetL0) || (k ?? facts.latents);
  return defaultLearningRate({ ...facts, active: Math.min(facts.latents, active) });
}

/** Near the highest that any measured case wanted. */
const MOST = 6e-3;

/**
 * Peak rate of Adam. Fitted to grids of rates in 18 cases of 1k to 65k latents, 0.3M to 100M
 * rows, k 16 to 128 and widths 64 to 768 (docs/choosing.md): within 2.2 % of the best held-out FVU
 * of each. It falls with the width and a little with the latents, and rises with k; the budget
 * hardly matters. Rows are taken as `--normalize scale` leaves them. A transcoder, which was not
 * measured, has the rule of sparsify, 2e-4 / sqrt(latents / 16384).
 */
export function defaultLearningRate({ dIn, latents, active, isTranscoder }: RateFacts): number {
  if (isTranscoder) return 2e-4 / Math.sqrt(latents / 16384);
  const ofWidth = (dIn / 256) ** (dIn < 256 ? -0.25 : -0.6);
  return Math.min(MOST, 3e-3 * (latents / 8192) ** -0.2 * ofWidth * (active / 32) ** 0.25);
}

/** The values that everything not given starts from, by the name of `--preset`. */

/**
 * Both scripts of the reference, with their constant learning rate and nothing excluded; the recipe
 * of Anthropic for JumpReLU, whose coefficient rises over the whole run; and what is recommended,
 * which is the defaults.
 */
export const PRESETS = {
  default: {},
  openai: {
    latents: 32768,
    batch: 131072,
    lr: 1e-4,
    warmup: 0,
    decay: 0,
    deadTokens: 10_000_000,
    encoderRescale: true,
    normalize: "none",
    excludeTokens: "none",
    zeroRows: "keep",
  },
  simple: {
    latents: 32768,
    batch: 4096,
    lr: 1e-4,
    warmup: 0,
    decay: 0,
    eps: 1e-8,
    clip: 1,
    deadTokens: 10_000_000,
    normalize: "none",
    excludeTokens: "none",
    zeroRows: "keep",
    statisticsRows: 65536,
  },
  anthropic: {
    architecture: "jumprelu",
    sparsityPenalty: "tanh",
    tanhScale: 4,
    bandwidth: 2,
    initialThreshold: 0.1,
    deadPenalty: 3e-6,
    sparsityWarmup: 1,
    normalize: "scale",
    decay: 0.2,
  },
} as const;

export function presetNames(): [keyof typeof PRESETS, ...(keyof typeof PRESETS)[]] {
  return Object.keys(PRESETS) as [keyof typeof PRESETS];
}

import { describe, expect, it } from "vitest";
import { defaultLearningRate } from "./learning-rate.ts";

const rate = (dIn: number, latents: number, active: number, isTranscoder = false) =>
  defaultLearningRate({ dIn, latents, active, isTranscoder });

describe("the default learning rate", () => {
  it("is between the rates next to the best of each measured grid", () => {
    // Width, latents, k; the rates below and above the best (bench/results/learning-rates.md).
    const measured = [
      [256, 8192, 32, 1.8e-3, 4e-3],
      [256, 32768, 32, 8e-4, 3.2e-3],
      [256, 65536, 32, 8e-4, 3.2e-3],
      [256, 2048, 16, 3.2e-3, 6.4e-3],
      [256, 16384, 64, 2.26e-3, 6.4e-3],
      [768, 16384, 32, 8e-4, 3.2e-3],
      [768, 32768, 32, 1.13e-3, 2.26e-3],
      [768, 8192, 64, 1.13e-3, 2.26e-3],
      [64, 2048, 32, 4.5e-3, 6.4e-3],
    ] as const;
    for (const [dIn, latents, k, below, above] of measured) {
      expect(rate(dIn, latents, k)).toBeGreaterThan(below);
      expect(rate(dIn, latents, k)).toBeLessThan(above);
    }
  });

  it("falls with the width and the latents, rises with k, and has a limit", () => {
    expect(rate(256, 8192, 32)).toBeCloseTo(3e-3, 12);
    expect(rate(1024, 8192, 32)).toBeCloseTo(3e-3 * 4 ** -0.6, 12);
    expect(rate(256, 65536, 32)).toBeCloseTo(3e-3 * 8 ** -0.2, 12);
    expect(rate(256, 8192, 128)).toBeCloseTo(3e-3 * Math.SQRT2, 12);
    expect(rate(16, 64, 32)).toBe(6e-3);
  });

  it("of a transcoder is the rule of sparsify", () => {
    expect(rate(256, 65536, 32, true)).toBeCloseTo(1e-4, 12);
  });
});

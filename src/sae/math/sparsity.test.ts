import { describe, expect, it } from "vitest";
import { Rng } from "../../util/rng.ts";
import * as maths from "../math.ts";

const [B, N, D] = [16, 6, 5];
const SCALE = 2 / (B * D);

/** Pre-activations z [B,n] of latents with thresholds [n], and what they reconstruct [B,d]. */
interface Problem {
  readonly z: Float64Array;
  readonly threshold: Float64Array;
  readonly decoder: Float64Array;
  readonly target: Float64Array;
  readonly sparsity: Omit<maths.Sparsity, "l0">;
}

function draw(seed: number, kind: maths.PenaltyKind, bandwidth: number): Problem {
  const rng = new Rng(31, seed);
  const array = (length: number) => Float64Array.from({ length }, () => rng.normal());
  const sparsity = { kind, coefficient: 0.7, scale: 2, target: 3, deadPenalty: 0, bandwidth, rows: B };
  const threshold = Float64Array.from({ length: N }, () => 0.2 + 0.5 * rng.uniform());
  return { z: array(B * N), threshold, decoder: array(N * D), target: array(B * D), sparsity };
}

function select(choose: (row: Float64Array, latent: Uint32Array, value: Float64Array) => number, z: Float64Array) {
  const [latent, value] = [new Uint32Array(B * N).fill(maths.NO_LATENT), new Float64Array(B * N)];
  for (let row = 0; row < B; row++) {
    const part = [row * N, (row + 1) * N] as const;
    choose(z.subarray(...part), latent.subarray(...part), value.subarray(...part));
  }
  return { capacity: N, latent, value, grad: new Float64Array(B * N) };
}

function activeAt({ z }: Problem, threshold: Float64Array): maths.Pairs {
  return select((pre, latent, value) => maths.aboveThreshold(pre, threshold, latent, value), z);
}

function countOf({ latent }: maths.Pairs): number {
  return latent.filter((j) => j !== maths.NO_LATENT).length;
}

function residual({ decoder, target }: Problem, codes: maths.Pairs): Float64Array {
  const err = new Float64Array(B * D);
  maths.decode(decoder, codes, err);
  return err.map((value, e) => value - target[e]!);
}

/** Straight-through, as `thresholdGradients` has it. */
function gradient(p: Problem, scale: number): Float64Array {
  const { z, threshold, decoder, sparsity } = p;
  const codes = activeAt(p, threshold);
  const { bandwidth } = sparsity;
  const band = select((pre, latent, value) => maths.inBand(pre, threshold, bandwidth, latent, value), z);
  maths.codeGradients(decoder, band, residual(p, codes));
  const g = new Float64Array(N);
  maths.thresholdGradients(threshold, band, scale, { ...sparsity, l0: countOf(codes) / B }, g);
  return g;
}

/** The loss of the codes f [B,n] with so many active per row: mean squared error and sparsity. */
function loss({ decoder, target, sparsity }: Problem, f: Float64Array, l0: number, scale: number): number {
  let [square, tanh] = [0, 0];
  for (let row = 0; row < B; row++) {
    for (let i = 0; i < D; i++) {
      let sum = -target[row * D + i]!;
      for (let j = 0; j < N; j++) sum += f[row * N + j]! * decoder[j * D + i]!;
      square += sum * sum;
    }
    for (let j = 0; j < N; j++) tanh += Math.tanh(sparsity.scale * f[row * N + j]!);
  }
  return (scale / 2) * square + maths.sparsityLoss({ ...sparsity, l0 }, tanh);
}

function lossAt(p: Problem, threshold: Float64Array, scale: number): number {
  const on = (at: number) => p.z[at]! > 0 && p.z[at]! > threshold[at % N]!;
  const f = p.z.map((value, at) => (on(at) ? value : 0));
  return loss(p, f, f.filter((value) => value !== 0).length / B, scale);
}

function moved(threshold: Float64Array, j: number, by: number): Float64Array {
  return threshold.with(j, threshold[j]! + by);
}

/**
 * d / d theta_j of the loss averaged over thresholds theta_j' in theta_j +- e/2, all else as it is.
 * The derivative of (1 / e) times the integral of a function over such a window is the difference
 * of the function at its ends, divided by e.
 */
function smoothedSlope(p: Problem, j: number, scale: number): number {
  const e = p.sparsity.bandwidth;
  return (lossAt(p, moved(p.threshold, j, e / 2), scale) - lossAt(p, moved(p.threshold, j, -e / 2), scale)) / e;
}

describe("straight-through gradient of a threshold", () => {
  it("of the L0 is the slope of the smoothed loss, in any window", () => {
    for (let seed = 0; seed < 50; seed++) {
      const p = draw(seed, "step", 0.3);
      gradient(p, 0).forEach((slope, j) => {
        expect(slope).toBeCloseTo(smoothedSlope(p, j, 0), 12);
      });
      expect(gradient(p, 0).some((slope) => slope !== 0)).toBe(true);
    }
  });

  /**
   * A row whose z is in the window contributes -(1 / e) (loss with f = z - loss with f = 0), which
   * is -(z / e) dL/df at f = z / 2, as the squared error is quadratic. The straight-through
   * estimate has theta for z, and dL/df at f = z or 0 by which side of theta z is on. Rows that lie
   * evenly around theta have the right slope on average, up to the distance of z from theta.
   */
  it("of the squared error tends to the slope of the smoothed loss as the window narrows", () => {
    const errorsOf = (e: number) =>
      Array.from({ length: 20 }, (_, seed) => {
        const p = draw(seed, "step", e);
        const [rng, j] = [new Rng(32, seed), seed % N];
        // Nothing else is in a window, and each row has a twin with z as far on the other side.
        for (let row = 0; row < B; row += 2) {
          for (let other = 0; other < N; other++) {
            const value = p.threshold[other]! + (rng.below(2) === 0 ? 1 : -1) * (0.1 + rng.uniform());
            p.z.fill(value, row * N + other, row * N + other + 1);
            p.z.fill(value, (row + 1) * N + other, (row + 1) * N + other + 1);
          }
          const offset = (rng.uniform() * e) / 2;
          p.z[row * N + j] = p.threshold[j]! + offset;
          p.z[(row + 1) * N + j] = p.threshold[j]! - offset;
          p.target.copyWithin((row + 1) * D, row * D, (row + 1) * D);
        }
        const slope = smoothedSlope(p, j, SCALE);
        return Math.abs(gradient(p, SCALE)[j]! - slope) / Math.abs(slope);
      });
    expect(Math.max(...errorsOf(1e-2))).toBeLessThan(0.3);
    expect(Math.max(...errorsOf(1e-4))).toBeLessThan(0.003);
    expect(Math.max(...errorsOf(1e-6))).toBeLessThan(0.00003);
  });

  /**
   * Equations 11 and 12 as one sentence: at its threshold f jumps by theta and the count by 1, and
   * the jump is averaged over the window, which makes a ramp of it; everything behind it has its
   * value and slope at the codes as they are.
   */
  it.each(["none", "step", "tanh", "quadratic"] as const)("with the penalty %s is that of a ramp", (kind) => {
    for (let seed = 0; seed < 50; seed++) {
      const p = draw(seed, kind, 0.3);
      const { z, threshold, sparsity } = p;
      const ramp = (at: number, theta: number) => Math.max(0, Math.min(1, (z[at]! - theta) / sparsity.bandwidth + 0.5));
      const on = z.map((value, at) => (value > 0 && value > threshold[at % N]! ? 1 : 0));
      const ramped = (j: number, by: number) => {
        const change = z.map((_, at) => (at % N === j ? ramp(at, threshold[j]! + by) - ramp(at, threshold[j]!) : 0));
        const f = z.map((value, at) => on[at]! * value + threshold[at % N]! * change[at]!);
        return loss(p, f, on.reduce((sum, value, at) => sum + value + change[at]!, 0) / B, SCALE);
      };
      const step = 1e-6;
      gradient(p, SCALE).forEach((slope, j) => {
        expect(slope).toBeCloseTo((ramped(j, step) - ramped(j, -step)) / (2 * step), 7);
      });
    }
  });

  it("counts a value below 0 in the window as off, also above a threshold below 0", () => {
    const p = draw(1, "tanh", 0.4);
    p.threshold.fill(-0.1);
    p.z.fill(-5);
    p.z[0] = -0.05;
    expect(gradient(p, 0)[0]).toBeCloseTo((0.1 / 0.4) * ((0.7 * 2) / B), 14);
  });
});

describe("sparsity loss", () => {
  const base = { coefficient: 0.5, scale: 3, target: 4, deadPenalty: 0, bandwidth: 1, rows: 10, l0: 6 };
  it("is the L0, the mean of tanh, or the squared distance from the target", () => {
    const values = maths.PENALTIES.map((kind) => maths.sparsityLoss({ ...base, kind }, 20));
    expect(values).toEqual([0, 3, 1, 0.125]);
  });

  it("has the slopes of its finite differences", () => {
    const step = 1e-6;
    for (const kind of maths.PENALTIES) {
      const sparsity = { ...base, kind };
      const counted = (by: number) => maths.sparsityLoss({ ...sparsity, l0: base.l0 + by / base.rows }, 0);
      expect(maths.countSlope(sparsity)).toBeCloseTo((counted(step) - counted(-step)) / (2 * step), 7);
      const valued = (f: number) => maths.sparsityLoss(sparsity, Math.tanh(base.scale * f));
      expect(maths.penaltySlope(sparsity, 0.2)).toBeCloseTo((valued(0.2 + step) - valued(0.2 - step)) / (2 * step), 7);
    }
  });
});

describe("controller", () => {
  const controlled = (start: readonly [number, number], l0: number, gain = 0.5) => {
    const sparsity = Float64Array.from(start);
    maths.control(sparsity, l0, 10, gain);
    return [...sparsity];
  };

  const { CONTROLLER_DAMPING: damping, CONTROLLER_STEP: step } = maths;

  it("starts from the first L0, smooths the next ones, and follows them", () => {
    const [first, l0] = controlled([1, 0], 10.5);
    expect(first).toBeCloseTo(Math.sinh(Math.asinh(1) + 0.5 * 0.05) + damping * 0.05, 12);
    expect(l0).toBe(10.5);
    const [multiplier, smoothed] = controlled([2, 10], 11);
    expect(smoothed).toBeCloseTo(10.1, 14);
    expect(multiplier).toBeCloseTo(Math.sinh(Math.asinh(2) + 0.5 * 0.01) + damping * 0.01, 12);
    // The part in proportion to the last error is taken out again: of 12, 0.2 times the damping.
    const [next] = controlled([2 + 0.2 * damping, 12], 12);
    expect(next).toBeCloseTo(Math.sinh(Math.asinh(2) + step) + 0.2 * damping, 12);
  });

  it("pulls up where the L0 is too low, through 0", () => {
    let sparsity: readonly number[] = [0.01, 10];
    const multipliers = Array.from({ length: 50 }, () => {
      sparsity = controlled(sparsity as [number, number], 9.5);
      return sparsity[0]!;
    });
    expect(multipliers.every((each, i) => each < (multipliers[i - 1] ?? 0.01))).toBe(true);
    expect(multipliers.at(-1)).toBeLessThan(-damping * 0.04);
  });

  it("is limited per step and in range, and off without a gain", () => {
    expect(controlled([1, 0], 1000)[0]).toBeCloseTo(Math.sinh(Math.asinh(1) + step) + damping * 99, 9);
    expect(controlled([1, 0], 1)[0]).toBeCloseTo(Math.sinh(Math.asinh(1) - step) - damping * 0.9, 9);
    expect(controlled([1e4, 10], 1000)[0]).toBe(1e4);
    expect(controlled([-1e4, 10], 0)[0]).toBe(-1e4);
    expect(controlled([1, 0], 1000, 0)).toEqual([1, 0]);
  });
});

/** The sparsity loss of JumpReLU. */

import { eachPair, type Pairs } from "./types.ts";

/** What JumpReLU adds to the loss, per row and divided by the rows of the batch. */
export const PENALTIES = ["none", "step", "tanh", "quadratic"] as const;
export type PenaltyKind = (typeof PENALTIES)[number];

/** The sparsity loss of JumpReLU. Decoder rows have norm 1. */
export interface Sparsity {
  readonly kind: PenaltyKind;
  /** lambda. */
  readonly coefficient: number;
  /** Of "tanh". */
  readonly scale: number;
  /** Of "quadratic": the L0 to reach. */
  readonly target: number;
  /** Weight of the pre-activation loss of dead latents. */
  readonly deadPenalty: number;
  /** Width of the window in which a threshold has a gradient. */
  readonly bandwidth: number;
  /** Rows of the global batch, and its mean L0. */
  readonly rows: number;
  readonly l0: number;
}

/**
 * lambda times: "step", the mean L0; "tanh", the mean over rows of sum_i tanh(scale f_i);
 * "quadratic", (L0 / target - 1)^2. `tanhSum`: of tanh(scale f) over all values of the batch.
 */
export function sparsityLoss({ kind, coefficient, target, rows, l0 }: Sparsity, tanhSum: number): number {
  switch (kind) {
    case "none":
      return 0;
    case "step":
      return coefficient * l0;
    case "tanh":
      return (coefficient * tanhSum) / rows;
    case "quadratic":
      return coefficient * (l0 / target - 1) ** 2;
  }
}

/** d sparsity loss / d f of one value, other than through L0. */
export function penaltySlope({ kind, coefficient, scale, rows }: Sparsity, f: number): number {
  return kind === "tanh" ? ((coefficient * scale) / rows) * (1 - Math.tanh(scale * f) ** 2) : 0;
}

/** d sparsity loss / d (L0 of one row). */
export function countSlope({ kind, coefficient, target, rows, l0 }: Sparsity): number {
  if (kind === "step") return coefficient / rows;
  return kind === "quadratic" ? (2 * coefficient * (l0 / target - 1)) / (target * rows) : 0;
}

/**
 * -> threshold gradient [n], by the straight-through estimate of JumpReLU (Rajamanoharan et al.
 * 2024, equations 11 and 12): for each pre-activation z in the band of width e around theta,
 * -(theta / e) dL/df - (1 / e) dL/dL0, where dL/df is `scale` times the gradient of the band's code
 * plus the slope of the penalty.
 */
export function thresholdGradients(
  threshold: Float64Array,
  band: Pairs,
  scale: number,
  sparsity: Sparsity,
  g: Float64Array,
): void {
  g.fill(0);
  const count = countSlope(sparsity);
  eachPair(band, (_, j, slot) => {
    const z = band.value[slot]!;
    const f = z > threshold[j]! && z > 0 ? z : 0;
    const slope = scale * band.grad[slot]! + penaltySlope(sparsity, f);
    g[j]! -= (threshold[j]! * slope + count) / sparsity.bandwidth;
  });
}

/** The learning rate as a pure function of the step. */

export interface Schedule {
  readonly lr: number;
  /** Steps of linear warm-up. */
  readonly warmup: number;
  /** Share of the steps, at the end, over which the rate falls linearly to 0. */
  readonly decay: number;
  readonly steps: number;
}

/** The learning rate of step 0, 1, ... steps - 1. The first step of a warm-up of w steps has lr / w; the last step of a decay of D steps has lr / D. */
export function learningRate({ lr, warmup, decay, steps }: Schedule, step: number): number {
  const rising = step < warmup ? (step + 1) / warmup : 1;
  const last = Math.round(decay * steps);
  const falling = last > 0 ? Math.min(1, (steps - step) / last) : 1;
  return lr * Math.min(rising, falling);
}

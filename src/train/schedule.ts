/** The learning rate as a pure function of the step. */

export interface Schedule {
  readonly lr: number;
  /** Steps of linear warm-up. */
  readonly warmup: number;
  /** Share of the steps, at the end, over which the rate falls linearly to 0. */
  readonly decay: number;
  readonly steps: number;
  /**
   * Extensions made after the rate had begun to fall, oldest first. `steps` is the end of the last
   * one.
   */
  readonly legs?: readonly Leg[];
}

/**
 * A part of a run that was added when the rate was falling already: it rises again, and falls at
 * the new end.
 */
export interface Leg {
  /** Steps done before the leg. */
  readonly from: number;
  /** Steps that the run was to have before it was extended. */
  readonly before: number;
  /** Steps over which the rate rises linearly from that of step `from - 1` to `lr`. */
  readonly rise: number;
}

/**
 * The learning rate of step 0, 1, ... steps - 1. The first step of a warm-up of w steps has lr / w;
 * the last step of a decay of D steps has lr / D. In a leg the rise replaces the warm-up, and the
 * decay takes its share of all steps, at most those that the rise leaves of the leg.
 */
export function learningRate(schedule: Schedule, step: number): number {
  const { rising, falling } = factors(schedule, step);
  return schedule.lr * Math.min(rising, falling);
}

/** Whether the rate of step `step - 1` was below its peak because the end was near. */
export function isFalling(schedule: Schedule, step: number): boolean {
  return step > 0 && factors(schedule, step - 1).falling < 1;
}

/** Steps at the end of the run over which the rate falls. */
export function decaySteps({ decay, steps, legs = [] }: Schedule): number {
  const leg = legs.at(-1);
  const most = leg === undefined ? steps : Math.max(0, steps - leg.from - leg.rise);
  return Math.min(Math.round(decay * steps), most);
}

/** Shares of the peak rate that the rise and the decay allow at a step. */
function factors(
  { lr, warmup, decay, steps, legs = [] }: Schedule,
  step: number,
): { readonly rising: number; readonly falling: number } {
  const later = legs.findIndex(({ from }) => from > step);
  const [current, end] = later < 0 ? [legs.length - 1, steps] : [later - 1, legs[later]!.before];
  const leg = legs[current];
  let rising = step < warmup ? (step + 1) / warmup : 1;
  if (leg !== undefined) {
    const { from, before, rise } = leg;
    const start = learningRate({ lr, warmup, decay, steps: before, legs: legs.slice(0, current) }, from - 1) / lr;
    rising = step - from < rise ? start + ((1 - start) * (step - from + 1)) / rise : 1;
  }
  const last = decaySteps({ lr, warmup, decay, steps: end, legs: legs.slice(0, current + 1) });
  return { rising, falling: last > 0 ? Math.min(1, (end - step) / last) : 1 };
}

/**
 * The dynamic loss scale of runs whose ranks exchange gradients as fp16 (`--wire fp16`): gradients
 * are multiplied by it while they are on the wire, so that small ones do not become 0. A step whose
 * scaled gradients do not fit is skipped by all ranks and halves the scale; many steps that do fit
 * double it (Micikevicius et al. 2018, "Mixed precision training").
 */

/** Where the scale is after some steps. */
export interface LossScaleState {
  readonly scale: number;
  /** Steps that fit since it last changed. */
  readonly fitting: number;
  /** Whether the last step, which `scale` does not know yet, did not fit. */
  readonly overflowed: boolean;
}

const FIRST = 2 ** 16;
const [LEAST, MOST] = [2 ** -14, 2 ** 24];
/** Steps in a row that fit before the scale is doubled. */
const GROWTH = 2000;

export const FIRST_SCALE: LossScaleState = { scale: FIRST, fitting: 0, overflowed: false };

/**
 * A step is queued before the one before it is done, so each step's scale follows from the steps up
 * to the last but one: the same for a run that waits in between or is resumed.
 */
export class LossScale {
  #scale: number;
  #fitting: number;
  /** Steps that the scale does not know yet: whether they overflowed. */
  readonly #waiting = new Map<number, boolean>();
  readonly #growth: number;

  /** `step`: steps done. `growth`: steps in a row that fit before the scale is doubled. */
  constructor({ scale, fitting, overflowed }: LossScaleState, step: number, growth = GROWTH) {
    this.#scale = scale;
    this.#fitting = fitting;
    this.#growth = growth;
    if (step > 0) this.#waiting.set(step, overflowed);
  }

  /** Of the step, counted from 1. Precondition: those up to the last but one have settled. */
  of(step: number): number {
    for (const [settled, overflowed] of this.#waiting) {
      if (settled > step - 2) continue;
      this.#waiting.delete(settled);
      this.#fitting = overflowed ? 0 : this.#fitting + 1;
      if (overflowed) this.#scale = Math.max(LEAST, this.#scale / 2);
      else if (this.#fitting % this.#growth === 0) this.#scale = Math.min(MOST, this.#scale * 2);
    }
    return this.#scale;
  }

  /** The step is done. Steps settle in their order. */
  settle(step: number, overflowed: boolean): void {
    this.#waiting.set(step, overflowed);
  }

  /** As it is when the step, and none after it, has settled. */
  after(step: number): LossScaleState {
    const scale = this.of(step + 1);
    return { scale, fitting: this.#fitting, overflowed: this.#waiting.get(step) === true };
  }
}

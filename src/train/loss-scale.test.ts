import { describe, expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { solo } from "../collective/solo.ts";
import { FIRST_SCALE, LossScale, type LossScaleState } from "./loss-scale.ts";
import { planRun } from "./plan.ts";

/** The scale of each step; `overflows`: whether a step does not fit at its scale. */
function scalesOf(steps: number, overflows: (scale: number) => boolean, from = FIRST_SCALE, first = 0, growth = 5) {
  const scales = new LossScale(from, first, growth);
  const found: number[] = [];
  let after: LossScaleState = from;
  for (let step = first + 1; step <= first + steps; step++) {
    // As in the loop: the step is queued before the last one has settled.
    found.push(scales.of(step));
    if (step > first + 1) scales.settle(step - 1, overflows(found.at(-2)!));
  }
  scales.settle(first + steps, overflows(found.at(-1)!));
  after = scales.after(first + steps);
  return { found, after };
}

describe("the loss scale", () => {
  it("is halved by steps that do not fit until they do, and doubled after many that fit", () => {
    const { found } = scalesOf(14, (scale) => scale > 2 ** 14);
    const powers = found.map(Math.log2);
    // Each step knows those up to the last but one: step 3 overflows, too, and halves once more.
    expect(powers.slice(0, 6)).toEqual([16, 16, 15, 14, 13, 13]);
    expect(powers.slice(6)).toEqual([13, 13, 13, 14, 14, 14, 14, 14]);
  });

  it("goes on from a checkpoint after any step as if there had been none", () => {
    const overflows = (scale: number) => scale > 2 ** 15;
    const whole = scalesOf(40, overflows).found;
    for (let done = 1; done < 40; done++) {
      const { found, after } = scalesOf(done, overflows);
      expect(found).toEqual(whole.slice(0, done));
      expect(scalesOf(40 - done, overflows, after, done).found).toEqual(whole.slice(done));
    }
  });

  it("stays within what makes sense", () => {
    expect(Math.log2(scalesOf(100, () => true).found.at(-1)!)).toBe(-14);
    expect(Math.log2(scalesOf(100, () => false).found.at(-1)!)).toBe(24);
  });
});

it("ranks on cards refuse a narrow wire", async () => {
  const cards = { ...solo(), kind: "nccl" } as const;
  const planned = planRun(memorySource(numberedRows(100, 2), 2), { wire: "bf16" }, cards, { onNote: () => undefined });
  await expect(planned).rejects.toThrow(/^--wire bf16: ranks on cards .*; leave --wire out, or choose --engine cpu$/);
});

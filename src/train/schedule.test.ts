import { describe, expect, it } from "vitest";
import { isFalling, learningRate } from "./schedule.ts";

const rates = (warmup: number, decay: number, steps: number) =>
  Array.from({ length: steps }, (_, step) => learningRate({ lr: 1, warmup, decay, steps }, step));

it("rises over the warm-up, stays, and falls over the end, never to 0", () => {
  expect(rates(4, 0.4, 10)).toEqual([0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5, 0.25]);
});

it("is constant without warm-up and decay", () => {
  expect(rates(0, 0, 5)).toEqual([1, 1, 1, 1, 1]);
  expect(learningRate({ lr: 0.3, warmup: 1, decay: 0, steps: 2 }, 0)).toBe(0.3);
});

it("is the lower of both where warm-up and decay meet", () => {
  expect(rates(4, 1, 4)).toEqual([0.25, 0.5, 0.5, 0.25]);
  expect(rates(10, 0, 3)).toEqual([0.1, 0.2, 0.3]);
});

describe("a leg", () => {
  it("rises from the rate of the last step, stays, and falls at the new end", () => {
    const schedule = { lr: 1, warmup: 0, decay: 0.4, steps: 20, legs: [{ from: 10, before: 10, rise: 2 }] };
    const all = Array.from({ length: 20 }, (_, step) => learningRate(schedule, step));
    expect(all.slice(0, 10)).toEqual([1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]);
    expect(all.slice(10)).toEqual([0.625, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
  });

  it("falls over what the rise leaves of it, where its share is more", () => {
    const schedule = { lr: 1, warmup: 0, decay: 0.5, steps: 12, legs: [{ from: 8, before: 8, rise: 2 }] };
    expect([8, 9, 10, 11].map((step) => learningRate(schedule, step))).toEqual([0.625, 1, 1, 0.5]);
  });

  it("may follow another, and changes nothing before it", () => {
    const first = { from: 10, before: 10, rise: 2 };
    const schedule = { lr: 1, warmup: 0, decay: 0.4, steps: 20, legs: [first] };
    const again = { ...schedule, steps: 40, legs: [first, { from: 18, before: 20, rise: 1 }] };
    for (let step = 0; step < 18; step++) expect(learningRate(again, step)).toBe(learningRate(schedule, step));
    expect([18, 23, 24, 39].map((step) => learningRate(again, step))).toEqual([1, 1, 1, 1 / 16]);
  });

  it("is needed where the rate falls, and not in a warm-up or a plateau", () => {
    const schedule = { lr: 1, warmup: 4, decay: 0.4, steps: 10 };
    expect([0, 2, 4, 7].map((step) => isFalling(schedule, step))).toEqual([false, false, false, false]);
    expect([8, 10].map((step) => isFalling(schedule, step))).toEqual([true, true]);
    expect(isFalling({ ...schedule, decay: 0 }, 10)).toBe(false);
    const leg = { ...schedule, steps: 20, legs: [{ from: 10, before: 10, rise: 4 }] };
    expect(isFalling(leg, 16)).toBe(true);
    expect([11, 12, 13, 14].map((step) => isFalling(leg, step))).toEqual([false, false, false, false]);
  });
});

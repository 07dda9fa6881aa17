import { expect, it } from "vitest";
import { learningRate } from "./schedule.ts";

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

import { expect, it } from "vitest";
import { amount, bare, count, level, percent } from "./page/words.ts";

it("says numbers as people do", () => {
  expect([0, 0.5, 0.0191, 0.00076, 1e-7].map(percent)).toEqual(["0 %", "50 %", "1.9 %", "0.076 %", "< 0.0001 %"]);
  expect([0, 0.0123, 7.346, 12.34, 812.3, 1e-4, 3e7].map(amount)).toEqual([
    "0",
    "0.012",
    "7.35",
    "12.3",
    "812",
    "1.0e-4",
    "3.0e+7",
  ]);
  expect(count(1234567)).toBe("1,234,567");
});

it("shows a token by itself, whatever it is", () => {
  expect([" the", "  ", "\n", "", "\u200f"].map(bare)).toEqual(["the", "␣␣", "⏎", "␣", "·"]);
});

it("shades by eighths of the maximum", () => {
  expect([0, 0.01, 1, 1.01, 7.99, 8, 9].map((value) => level(value, 8))).toEqual([0, 1, 1, 2, 8, 8, 8]);
});

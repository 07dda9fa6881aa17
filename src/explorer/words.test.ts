import { expect, it } from "vitest";
import { amount, atATime, bare, count, joined, level, percent } from "./page/words.ts";

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
  expect([32, 1200, 116.8].map(atATime)).toEqual(["32 at a time", "1,200 at a time", "117 at a time on average"]);
});

it("shows a token by itself, whatever it is", () => {
  expect([" the", "  ", "\n", "", "\u200f"].map(bare)).toEqual(["the", "␣␣", "⏎", "␣", "·"]);
});

it("shows a token that is a part of a character with the whole of it", () => {
  const passage = {
    value: 3,
    row: 7,
    tokens: [" a", "", "", "日", "", "é", ""],
    values: [0, 3, 0, 1, 0, 2, 0.5],
    at: 1,
  };
  expect(joined(passage)).toEqual({
    ...passage,
    tokens: [" a", "日", "é", ""],
    values: [0, 3, 2, 0.5],
    at: 1,
  });
  expect(joined({ ...passage, at: 5 }).at).toBe(2);
  expect(joined({ ...passage, tokens: [], values: [], at: 0 })).toMatchObject({ tokens: [], values: [], at: 0 });
});

it("shades by eighths of the maximum", () => {
  expect([0, 0.01, 1, 1.01, 7.99, 8, 9].map((value) => level(value, 8))).toEqual([0, 1, 1, 2, 8, 8, 8]);
});

import { expect, it } from "vitest";
import { searchFor } from "./shared/search.ts";
import type { LatentRow } from "./shared/source.ts";

const row = (latent: number, on: readonly string[], shares: readonly number[], up: readonly string[] = []) =>
  ({ latent, on, shares, up }) as unknown as LatentRow;
const ROWS = [
  row(0, [" within", " in"], [0.6, 0.1]),
  row(1, [" in", " on"], [0.5, 0.3]),
  row(2, [" began"], [0.9], [" in"]),
  row(3, [" inning", "In"], [0.9, 0.02]),
  row(4, [" wind", "\n", "<0xE2>"], [0.7, 0.1, 0.1]),
  row(12, [" 12th"], [0.4]),
];

/** The latents that are found, the one that fits best first. */
function found(search: string): number[] {
  const { rank } = searchFor(search);
  return ROWS.flatMap((each) => {
    const fit = rank(each);
    return fit === undefined ? [] : [{ latent: each.latent, fit }];
  })
    .sort((a, b) => b.fit - a.fit)
    .map(({ latent }) => latent);
}

it("ranks whole words before parts of words, and each by the share of energy on them", () => {
  expect(found("in")).toEqual([1, 0, 3, 2, 4]);
  expect(found(" IN ")).toEqual(found("in"));
  expect(found("inn")).toEqual([3]);
});

it("finds what has all of several words", () => {
  expect(found("on in")).toEqual([1]);
  expect(found("in within")).toEqual([0]);
  expect(found("in nowhere")).toEqual([]);
});

it("finds what a page shows of tokens that cannot be seen", () => {
  expect(found("⏎")).toEqual([4]);
  expect(found("<0xe2>")).toEqual([4]);
});

it("knows a number, with or without its sign", () => {
  expect([searchFor("12").number, searchFor("#12 ").number, searchFor("12a").number]).toEqual([12, 12, undefined]);
  expect(found("12")).toEqual([12]);
  expect(found("#3")).toEqual([3]);
  expect(found("")).toHaveLength(ROWS.length);
});

it("does without shares, as older files have none", () => {
  const { rank } = searchFor("in");
  expect(rank({ ...ROWS[1]!, shares: undefined } as unknown as LatentRow)).toBe(1);
});

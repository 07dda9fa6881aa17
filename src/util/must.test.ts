import { describe, expect, it } from "vitest";
import { countInWords, eitherOf, mustBe, numberInWords, valueInWords } from "./must.ts";

describe("what a value must be", () => {
  it("is said in one wording", () => {
    expect(mustBe("--k", countInWords(1), "0")).toBe(
      '--k must be a whole number of at least 1, such as 1000, 10k or 1.5M, but is "0"',
    );
    expect(mustBe("engine", eitherOf(["auto", "cpu", "cuda"]), "cudda", ["auto", "cpu", "cuda"])).toBe(
      'engine must be auto, cpu or cuda, but is "cudda"; did you mean cuda?',
    );
    expect([eitherOf([]), eitherOf(["a"]), eitherOf(["a", "b"])]).toEqual(["", "a", "a or b"]);
  });

  it.each([
    [{}, "a number"],
    [{ least: 0 }, "a number of at least 0"],
    [{ least: 0, leastExclusive: true }, "a number above 0"],
    [{ least: 0, most: 0.5 }, "a number from 0 to 0.5"],
    [{ least: 0, most: 1, mostExclusive: true }, "a number of at least 0 and below 1"],
    [{ most: 3 }, "a number of at most 3"],
  ])("%j", (bounds, words) => {
    expect(numberInWords(bounds)).toBe(words);
  });

  it("with an upper bound names both", () => {
    expect(countInWords(0, 65535)).toBe("a whole number from 0 to 65535");
  });

  it.each([
    ["x", '"x"'],
    ["a".repeat(50), `"${"a".repeat(40)}..."`],
    [Number.NaN, "NaN"],
    [Number.POSITIVE_INFINITY, "Infinity"],
    [null, "null"],
    [[1, -2], "[1, -2]"],
    [Array.from({ length: 9 }, (_, i) => [i]), `[${"a list, ".repeat(8)}...]`],
    [{ a: 1 }, "an object"],
    [() => 1, "a function"],
  ])("%j is short", (value, words) => {
    expect(valueInWords(value)).toBe(words);
  });
});

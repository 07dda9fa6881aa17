import { describe, expect, it } from "vitest";
import { UsageError } from "./errors.ts";
import { parseCount } from "./numbers.ts";

describe("parseCount", () => {
  it.each([
    ["1000", 1000],
    ["10k", 10_000],
    ["10M", 10_000_000],
    ["1.1m", 1_100_000],
    ["1.5G", 1_500_000_000],
    ["2B", 2_000_000_000],
    ["1e6", 1_000_000],
    ["2.5e3", 2500],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
  ])("reads %s", (text, value) => {
    expect(parseCount(text, "--tokens")).toBe(value);
  });

  it.each([
    "",
    "x",
    "-1",
    "1.5",
    "0",
    "10 k",
    "10kk",
    "1e",
    "1e400",
    "1e99",
    "0x10",
    "Infinity",
    "NaN",
    "9007199254740992",
    "1,000",
    "1e6k",
  ])("refuses '%s'", (text) => {
    expect(() => parseCount(text, "--tokens")).toThrow(UsageError);
    expect(() => parseCount(text, "--tokens")).toThrow(/^--tokens must be a whole number of at least 1/);
  });

  it("takes 0 where 0 is allowed", () => {
    expect(parseCount("0", "--auxk", 0)).toBe(0);
  });
});

import { describe, expect, it } from "vitest";
import { didYouMean, editDistance } from "./closest.ts";

describe("the distance of two words", () => {
  it.each([
    ["cpu", "cpu", 0],
    ["gpu", "cpu", 1],
    ["latens", "latents", 1],
    ["trian", "train", 1],
    ["kitten", "sitting", 3],
    ["", "abc", 3],
    ["ca", "abc", 3],
  ])("%s and %s: %i", (a, b, distance) => {
    expect(editDistance(a, b, 9)).toBe(distance);
    expect(editDistance(b, a, 9)).toBe(distance);
    expect(editDistance(a, b, 2)).toBe(Math.min(2, distance));
  });
});

describe("what was meant", () => {
  it("is the nearest, whatever its case, and nothing that is far", () => {
    expect(didYouMean("refernce", ["auto", "cpu", "reference"])).toBe("; did you mean reference?");
    expect(didYouMean("CPU", ["auto", "cpu"])).toBe("; did you mean cpu?");
    expect(didYouMean("gpu", ["auto", "cpu"])).toBe("; did you mean cpu?");
    expect(didYouMean("gpu", ["auto", "cpu", "cuda"])).toBe("; did you mean cuda?");
    expect(didYouMean("Float16", ["auto", "f32", "bf16", "fp16"])).toBe("; did you mean fp16?");
    expect(didYouMean("fast", ["auto", "cpu"])).toBe("");
    expect(didYouMean("", ["cpu"])).toBe("");
    expect(didYouMean("cpu", [])).toBe("");
  });
});

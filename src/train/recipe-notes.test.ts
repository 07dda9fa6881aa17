import { describe, expect, it } from "vitest";
import { scaleNotes } from "./recipe-notes.ts";

const usual = { lr: 1e-3, eps: 6.25e-10 };

describe("scaleNotes", () => {
  it("says nothing where rows are scaled", () => {
    expect(scaleNotes(usual, { kind: "scale" }, 0.9, 1e-6)).toEqual([]);
    expect(scaleNotes(usual, { kind: "none" }, 0.9, 1)).toEqual([]);
  });

  it("names the learning rate where the mean is so long that little spread is left", () => {
    expect(scaleNotes(usual, { kind: "scale" }, 0.004, 30)).toEqual([
      "elements vary by 0.004 after normalisation, but each step of Adam moves the biases by up to the learning rate of 0.001: expect dead latents and a high FVU; lower --lr",
    ]);
  });
});

/** What the parts of the page compute before they draw it. */

import { describe, expect, it } from "vitest";
import type { Density, RunSummary } from "../api.ts";
import { configRows, shownValue } from "./config-rows.ts";
import { extentOf, medianDensity, outline } from "./density-shape.ts";
import { brief, briefDuration, figure, percent } from "./format.ts";
import { logSplits } from "./plot.ts";
import { shareDone } from "./runs.tsx";
import { settingsFrom } from "./settings.ts";

describe("options beside each other", () => {
  it("those that differ come first", () => {
    const details = (...config: [string, string][]) => ({ run: "a", config, density: [] });
    const rows = configRows([
      details(["k", "32"], ["lr", "0.1"], ["data", '["a"]']),
      details(["k", "32"], ["lr", "0.2"], ["ema", "0.9"], ["data", '["a"]']),
    ]);
    expect(rows).toEqual([
      { name: "lr", values: ["0.1", "0.2"], differs: true },
      { name: "ema", values: [null, "0.9"], differs: true },
      { name: "k", values: ["32", "32"], differs: false },
      { name: "data", values: ['["a"]', '["a"]'], differs: false },
    ]);
  });

  it.each([
    ['"auto"', "auto"],
    ['["a b", "c"]', "a b, c"],
    ["[1,2]", "1, 2"],
    ["6.25e-10", "6.25e-10"],
    ['{"a":1}', '{"a":1}'],
    ['"cut off', '"cut off'],
    [null, "–"],
  ])("%s is shown as %s", (json, shown) => {
    expect(shownValue(json)).toBe(shown);
  });
});

describe("the histogram of densities", () => {
  const bins = Array.from({ length: 10 }, (_, i) => ({
    from: (i - 10) / 5,
    to: (i - 9) / 5,
    latents: 6 - Math.abs(i - 5),
  }));
  const it10: Density = { step: 10, rows: 320, latents: 64, never: 28, bins };

  it("spans whole powers of ten around what there is", () => {
    expect(extentOf([it10])).toEqual({ from: -2, to: 0, most: Math.max(6, it10.never) / 64 });
    const rare = { ...it10, bins: [{ from: -4.4, to: -4.2, latents: 1 }] };
    expect(extentOf([it10, rare]).from).toBe(-5);
    expect(extentOf([{ ...rare, bins: [{ from: -4.4, to: -4.2, latents: 0 }] }]).from).toBe(-2);
    expect(extentOf([]).from).toBe(-2);
  });

  it("has its median where half of the latents fire less often", () => {
    const half = {
      ...it10,
      never: 10,
      latents: 40,
      bins: [
        { from: -3, to: -2, latents: 10 },
        { from: -2, to: -1, latents: 20 },
      ],
    };
    expect(medianDensity(half)).toBeCloseTo(0.01, 9);
    expect(medianDensity({ ...half, never: 0, latents: 30 })).toBeCloseTo(10 ** -1.75, 9);
    expect(medianDensity({ ...half, never: 25 })).toBeNull();
  });

  it("is drawn from ground to ground", () => {
    const path = outline(
      {
        ...it10,
        latents: 10,
        bins: [
          { from: -2, to: -1, latents: 5 },
          { from: -1, to: 0, latents: 10 },
        ],
      },
      (x) => 10 * x,
      (y) => 100 * (1 - y),
    );
    expect(path).toBe("M-20.0,100.0 L-20.0,50.0 L-10.0,50.0 L-10.0,0.0 L0.0,0.0 L0.0,100.0");
    expect(outline({ ...it10, bins: [] }, Number, Number)).toBe("");
  });
});

it("numbers are as short as tells them", () => {
  expect([0.131812, 71559.4, 32, 0, 1e-5, -0.5, null, Number.NaN].map(figure)).toEqual([
    "0.1318",
    "71,559",
    "32",
    "0",
    "1.00e−5",
    "-0.5",
    "–",
    "–",
  ]);
  expect([0, 950, 1500, 2e6, 3.25e9, 0.0002].map(brief)).toEqual(["0", "950", "1.5k", "2M", "3.25G", "0.0002"]);
  expect([0, 45, 300, 9000].map(briefDuration)).toEqual(["0", "45 s", "5 min", "2.5 h"]);
  expect([0, 0.0123, 0.5, 1e-5].map(percent)).toEqual(["0 %", "1.2 %", "50 %", "0.001 %"]);
});

it("logarithmic axes have some marks, and not too many", () => {
  expect(logSplits(undefined, 0, 0.13, 0.5)).toEqual([0.15, 0.2, 0.3, 0.4]);
  expect(logSplits(undefined, 0, 0.1, 0.12).map((mark) => Number(mark.toFixed(6)))).toEqual([
    0.1, 0.105, 0.11, 0.115, 0.12,
  ]);
  expect(logSplits(undefined, 0, 1, 300)).toEqual([1, 2, 5, 10, 20, 50, 100, 200]);
  for (let from = -12; from < 6; from += 0.37) {
    for (let decades = 0.01; decades < 20; decades *= 1.5) {
      const count = logSplits(undefined, 0, 10 ** from, 10 ** (from + decades)).length;
      expect([from, decades, count >= 1 && count <= 9]).toEqual([from, decades, true]);
    }
  }
});

it("settings of any kind are read, and what makes no sense is as it begins", () => {
  const usual = settingsFrom(null);
  expect(usual).toEqual({ axis: "step", logX: false, smoothing: 0, logY: {}, theme: "auto" });
  for (const text of ["{", "[]", "null", '"text"', '{"axis":"evil","logX":1,"smoothing":1e9,"logY":"no","theme":[]}'])
    expect(settingsFrom(text)).toEqual(usual);
  const chosen = { axis: "tokens", logX: true, smoothing: 35, logY: { fvu: false }, theme: "dark" };
  expect(settingsFrom(JSON.stringify({ ...chosen, logY: { fvu: false, loss: "yes" }, more: 1 }))).toEqual(chosen);
});

it("how much of a run is done is known, or is not", () => {
  const run = { state: "running", tokens: 30, budget: 120 } as RunSummary;
  expect(
    [run, { ...run, state: "done" as const }, { ...run, budget: null }, { ...run, tokens: 500 }].map(shareDone),
  ).toEqual([0.25, 1, null, 1]);
});

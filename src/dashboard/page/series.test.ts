import { describe, expect, it } from "vitest";
import type { Series } from "../api.ts";
import { append, seriesOf, stepAt } from "./series.ts";

const sent: Series = {
  run: "a",
  step: [1, 2],
  tokens: [10, 20],
  elapsed_s: [null, 4],
  metrics: [
    { name: "loss", mean: [3, 2], min: [1, 2], max: [5, 2] },
    { name: "__proto__", mean: [7, 8] },
  ],
};

describe("what comes is put together", () => {
  it("with metrics that come later or not again", () => {
    const series = seriesOf(sent);
    append(series, { run: "a", step: [3], tokens: [30], elapsed_s: [6], metrics: [{ name: "new", mean: [9] }] });
    expect(series.step).toEqual([1, 2, 3]);
    expect(Object.fromEntries(Array.from(series.metrics, ([name, values]) => [`m ${name}`, values]))).toEqual({
      "m loss": { mean: [3, 2, null], min: [1, 2, null], max: [5, 2, null] },
      "m __proto__": { mean: [7, 8, null], min: [7, 8, null], max: [7, 8, null] },
      "m new": { mean: [null, null, 9], min: [null, null, 9], max: [null, null, 9] },
    });
  });
});

describe("a place on an axis is a step", () => {
  const series = seriesOf({
    ...sent,
    step: [10, 20, 40],
    tokens: [100, 200, 400],
    elapsed_s: [null, 1, 5],
    metrics: [],
  });
  it.each([
    ["step", 17, 17],
    ["tokens", 150, 15],
    ["tokens", 300, 30],
    ["tokens", 5, 10],
    ["tokens", 900, 40],
    ["elapsed_s", 3, 30],
    ["elapsed_s", 0.5, 20],
  ] as const)("%s %d", (axis, value, step) => {
    expect(stepAt(series, axis, value)).toBe(step);
  });

  it("of a run that has none, it is itself", () => {
    expect(stepAt(seriesOf({ ...sent, step: [], tokens: [], elapsed_s: [], metrics: [] }), "tokens", 5)).toBe(5);
  });
});

import { describe, expect, it } from "vitest";
import { plot } from "./plot.ts";

describe("plot", () => {
  it("draws a falling curve from the upper left to the lower right", () => {
    const lines = plot(
      Array.from({ length: 100 }, (_, x) => ({ x, y: 10 ** (-x / 50) })),
      { width: 20, height: 4 },
    );
    expect(lines).toHaveLength(6);
    const columns = lines.slice(0, 4).map((line) => line.slice(10));
    expect(columns[0]![0]).toBe("█");
    expect(columns[0]!.trimEnd().length).toBeLessThan(8);
    expect(columns[3]!.length).toBe(20);
    expect(columns[3]![19]).toBe("▁");
    expect(lines[5]!.trim()).toMatch(/^0 +99$/);
  });

  it("is nothing without two points above 0", () => {
    expect(plot([{ x: 1, y: 1 }])).toEqual([]);
    expect(
      plot([
        { x: 1, y: 1 },
        { x: 2, y: 0 },
        { x: 3, y: Number.NaN },
      ]),
    ).toEqual([]);
  });

  it("has no two equal labels on its axis", () => {
    const labels = (from: number, to: number) =>
      plot([
        { x: 0, y: from },
        { x: 9, y: to },
      ])
        .slice(0, 7)
        .map((line) => line.split("│")[0]!.trim())
        .filter((label) => label !== "");
    expect(labels(0.134, 0.131)).toEqual(["0.134", "0.132", "0.131"]);
    expect(labels(0.48, 0.13)).toEqual(["0.44", "0.25", "0.14"]);
    for (const spread of [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]) {
      const found = labels(0.5, 0.5 * (1 - spread));
      expect([spread, new Set(found).size]).toEqual([spread, 3]);
    }
    // A constant has one value.
    expect(labels(2, 2)).toEqual(["2.0"]);
  });

  it("is nothing where all points are at one place", () => {
    expect(
      plot([
        { x: 3, y: 1 },
        { x: 3, y: 2 },
      ]),
    ).toEqual([]);
  });

  it("draws a constant without dividing by zero", () => {
    expect(
      plot([
        { x: 0, y: 2 },
        { x: 9, y: 2 },
      ]).join("\n"),
    ).not.toContain("NaN");
  });
});

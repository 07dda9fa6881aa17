import { describe, expect, it } from "vitest";
import { decimals, figure, percent, tableMarkdown, tableText, times } from "./table.ts";

const TABLE = {
  title: "Steps",
  columns: ["", "ms", "x"],
  rows: [["ours"], ["  no AuxK", "288", "9.15 x"], ["a|b", undefined, "1"]],
  notes: ["So."],
};

describe("a table", () => {
  it("is text with names to the left and numbers to the right", () => {
    expect(tableText(TABLE)).toBe(
      [
        "Steps",
        "-----",
        "            ms       x",
        "ours",
        "  no AuxK  288  9.15 x",
        "a|b                  1",
        "So.",
      ].join("\n"),
    );
  });

  it("is Markdown in which a bar in a cell stays in its cell", () => {
    expect(tableMarkdown(TABLE).split("\n")).toEqual([
      "## Steps",
      "",
      "|  | ms | x |",
      "| --- | ---: | ---: |",
      "| ours |  |  |",
      "|   no AuxK | 288 | 9.15 x |",
      "| a\\|b |  | 1 |",
      "",
      "- So.",
    ]);
  });

  it("shows the digits that mean something, and nothing where there is no number", () => {
    expect([0.0512, 0.5321, 9.251, 10.94, 317.4, 12_345.6, 0].map(figure)).toEqual([
      "0.051",
      "0.532",
      "9.25",
      "10.9",
      "317",
      "12,346",
      "0.00",
    ]);
    expect([times(7.934), percent(0.976), decimals(1.985)]).toEqual(["7.93 x", "98 %", "1.99"]);
    expect([figure, times, percent, decimals].map((format) => format(Number.NaN))).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});

import { describe, expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { excludedRows, RowSet } from "./mask.ts";

describe("a set of rows", () => {
  it("holds what was added, once", () => {
    const set = new RowSet(19);
    for (const row of [0, 7, 8, 18, 7]) set.add(row);
    expect(set.size).toBe(4);
    expect(Array.from({ length: 19 }, (_, row) => row).filter((row) => set.has(row))).toEqual([0, 7, 8, 18]);
    expect(set.countIn(0, 19)).toBe(4);
    expect(set.countIn(1, 7)).toBe(1);
    expect(set.countIn(7, 2)).toBe(2);
    expect(set.countIn(9, 0)).toBe(0);
  });
});

describe("excluded tokens", () => {
  const tokens = [50, 1, 2, 50, 3, 2, -1, 50];
  const rowsOf = async (exclude: Parameters<typeof excludedRows>[1], options: Parameters<typeof memorySource>[2]) => {
    const set = await excludedRows(memorySource(numberedRows(8), 1, options), exclude);
    return Array.from({ length: 8 }, (_, row) => row).filter((row) => set.has(row));
  };

  it("are the start token, none, or those named", async () => {
    expect(await rowsOf("start", { tokens, origin: { startToken: 50 } })).toEqual([0, 3, 7]);
    expect(await rowsOf("none", { tokens, origin: { startToken: 50 } })).toEqual([]);
    expect(await rowsOf([2, 3], { tokens })).toEqual([2, 4, 5]);
    expect(await rowsOf("start", {})).toEqual([]);
  });

  it("cannot be told apart in a file that does not name them", async () => {
    await expect(rowsOf([2], {})).rejects.toThrow(
      "memory.h5: has no tokens, so none can be excluded; leave out --exclude-tokens",
    );
    await expect(rowsOf("start", { tokens })).rejects.toThrow(
      /does not say which of them starts a document.*--exclude-tokens ID/,
    );
  });
});

import { describe, expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { chooseRows } from "./choose.ts";
import { heldOut, isIn, without } from "./holdout.ts";
import { RowSet } from "./mask.ts";

const source = (rows: number, sequence?: number) =>
  memorySource(numberedRows(rows), 1, sequence === undefined ? {} : { sequence });

describe("the hold-out", () => {
  it("is made of whole sequences, in file order", () => {
    const ranges = heldOut(source(10_000, 10), 0.1, 3);
    expect(ranges.length).toBeGreaterThan(60);
    expect(ranges.length).toBeLessThan(140);
    for (const { first, count } of ranges) {
      expect(first % 10).toBe(0);
      expect(count).toBe(10);
    }
    expect(ranges.map(({ first }) => first)).toEqual(ranges.map(({ first }) => first).toSorted((a, b) => a - b));
  });

  it("keeps neighbours of 2-D data together, the short end too", () => {
    const ranges = heldOut(source(64 * 3 + 5), 0.5, 1);
    for (const { first, count } of ranges) {
      expect(first % 64).toBe(0);
      expect(count).toBe(first === 192 ? 5 : 64);
    }
  });

  it("is a function of seed and fraction; a larger fraction holds the smaller", () => {
    expect(heldOut(source(5000, 10), 0.1, 3)).toEqual(heldOut(source(5000, 10), 0.1, 3));
    expect(heldOut(source(5000, 10), 0.1, 4)).not.toEqual(heldOut(source(5000, 10), 0.1, 3));
    const more = heldOut(source(5000, 10), 0.3, 3);
    for (const range of heldOut(source(5000, 10), 0.1, 3)) expect(more).toContainEqual(range);
  });

  it("has at least one sequence and leaves at least one; none of none", () => {
    for (let seed = 0; seed < 50; seed++) {
      expect(heldOut(source(20, 10), 0.001, seed).length).toBe(1);
      expect(heldOut(source(20, 10), 0.5, seed).length).toBe(1);
      expect([1, 2]).toContain(heldOut(source(30, 10), 0.5, seed).length);
    }
    expect(heldOut(source(20, 10), 0, 1)).toEqual([]);
    expect(heldOut(source(10, 10), 0.5, 1)).toEqual([]);
  });
});

describe("without", () => {
  it("cuts rows out of ranges", () => {
    const excluded = new RowSet(40);
    for (const row of [0, 5, 6, 9, 10, 20, 21, 22]) excluded.add(row);
    const ranges = [
      { first: 0, count: 10 },
      { first: 12, count: 3 },
      { first: 20, count: 3 },
    ];
    expect(without(ranges, excluded)).toEqual([
      { first: 1, count: 4 },
      { first: 7, count: 2 },
      { first: 12, count: 3 },
    ]);
  });
});

describe("the choice of rows", () => {
  it("trains on what is neither excluded nor held out, and judges by what is held out and not excluded", async () => {
    const tokens = Array.from({ length: 400 }, (_, row) => (row % 10 === 0 ? 9 : 1));
    const data = memorySource(numberedRows(400), 1, { sequence: 20, tokens, origin: { startToken: 9 } });
    const { untrained, holdout, excluded } = await chooseRows(data, { excludeTokens: "start", holdout: 0.2, seed: 5 });
    expect(excluded).toBe(40);
    const held = new Set(holdout.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i)));
    const sequences = new Set([...held].map((row) => Math.floor(row / 20)));
    expect(held.size).toBe(sequences.size * 18);
    for (let row = 0; row < 400; row++) {
      expect(held.has(row)).toBe(sequences.has(Math.floor(row / 20)) && row % 10 !== 0);
      expect(untrained.has(row)).toBe(sequences.has(Math.floor(row / 20)) || row % 10 === 0);
    }
    expect(untrained.size).toBe(40 + held.size);
  });
});

it("isIn finds the rows of ranges and no others", () => {
  const ranges = [
    { first: 2, count: 3 },
    { first: 5, count: 1 },
    { first: 9, count: 2 },
  ];
  expect(Array.from({ length: 12 }, (_, row) => row).filter((row) => isIn(ranges, row))).toEqual([2, 3, 4, 5, 9, 10]);
  expect(isIn([], 0)).toBe(false);
});

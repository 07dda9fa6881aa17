import { describe, expect, it } from "vitest";
import { RowSet } from "./mask.ts";
import { Order, type OrderOptions } from "./order.ts";

const ROW_BYTES = 8;

function excluding(rows: number, excluded: (row: number) => boolean): RowSet {
  const set = new RowSet(rows);
  for (let row = 0; row < rows; row++) if (excluded(row)) set.add(row);
  return set;
}

/** An order over many small blocks and windows. */
function small(
  rows: number,
  options: Partial<OrderOptions> & { grain?: number; excluded?: (row: number) => boolean } = {},
): Order {
  const { grain = 4, excluded = () => false, ...rest } = options;
  return new Order({ rows, rowBytes: ROW_BYTES, grain }, excluding(rows, excluded), {
    seed: 1,
    shuffle: true,
    batch: 16,
    blockBytes: 8 * ROW_BYTES,
    windowBytes: 64 * ROW_BYTES,
    ...rest,
  });
}

/** The rows of the file that the window at `position` visits, from position on. */
function rowsFrom(order: Order, epoch: number, position: number): number[] {
  const window = order.window(epoch, position);
  const memory = window.blocks
    .flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i))
    .filter((row) => !order.isExcluded(row));
  expect(memory.length).toBe(window.lanes.size);
  return Array.from(window.lanes.inOrder().subarray(position - window.position), (row) => memory[row]!);
}

function epochOf(order: Order, epoch: number): number[] {
  const all: number[] = [];
  while (all.length < order.rowsPerEpoch) all.push(...rowsFrom(order, epoch, all.length));
  return all;
}

const ascending = (rows: Iterable<number>) => [...rows].sort((a, b) => a - b);
const upTo = (rows: number, visited: (row: number) => boolean = () => true) =>
  Array.from({ length: rows }, (_, row) => row).filter(visited);

describe("the order of rows", () => {
  it.each([
    [1, 1, 1],
    [7, 1, 3],
    [63, 4, 16],
    [1000, 4, 16],
    [1001, 3, 30],
    [4096, 16, 64],
    [5000, 7, 100],
    [777, 1000, 5],
  ])("visits each of %i rows once an epoch (grain %i, batch %i)", (rows, grain, batch) => {
    for (const shuffle of [true, false]) {
      const every = small(rows, { grain, batch, shuffle });
      expect(ascending(epochOf(every, 0))).toEqual(upTo(rows));
      expect(ascending(epochOf(every, 3))).toEqual(upTo(rows));
      const visited = (row: number) => row % 5 !== 0 && !(row > 100 && row < 200);
      const some = small(rows, { grain, batch, shuffle, excluded: (row) => !visited(row) });
      expect(some.rowsPerEpoch).toBe(upTo(rows, visited).length);
      if (some.rowsPerEpoch > 0) expect(ascending(epochOf(some, 1))).toEqual(upTo(rows, visited));
    }
  });

  it("is a pure function of seed, epoch and position, in whatever order it is asked", () => {
    const asked = small(2000);
    const whole = new Map([0, 1, 2].map((epoch) => [epoch, epochOf(asked, epoch)]));
    for (const [epoch, position] of [
      [2, 1999],
      [0, 0],
      [1, 777],
      [0, 1234],
      [2, 1],
    ] as const) {
      const rest = rowsFrom(small(2000), epoch, position);
      expect(rest.length).toBeGreaterThan(0);
      expect(rest).toEqual(whole.get(epoch)!.slice(position, position + rest.length));
      expect(rowsFrom(asked, epoch, position)).toEqual(rest);
    }
  });

  it("differs between epochs and seeds", () => {
    const first = epochOf(small(2000), 0);
    expect(epochOf(small(2000), 1)).not.toEqual(first);
    expect(epochOf(small(2000, { seed: 2 }), 0)).not.toEqual(first);
    const one = small(200, { windowBytes: 1e6 });
    expect(one.windows).toBe(1);
    expect(epochOf(one, 1)).not.toEqual(epochOf(one, 0));
  });

  it("without shuffle is the order of the file", () => {
    const order = small(2000, { shuffle: false, excluded: (row) => row % 7 === 0 });
    expect(order.windows).toBeGreaterThan(5);
    expect(epochOf(order, 0)).toEqual(upTo(2000, (row) => row % 7 !== 0));
    expect(epochOf(order, 4)).toEqual(epochOf(order, 0));
  });

  it("has windows of at least a batch and at most windowRows, which begin where others end", () => {
    for (const [rows, grain, batch] of [
      [5000, 4, 16],
      [5000, 16, 200],
      [20_000, 32, 64],
      [3001, 1, 700],
    ] as const) {
      const order = small(rows, { grain, batch, excluded: (row) => row % 3 === 0 });
      for (let epoch = 0; epoch < 5; epoch++) {
        let windows = 0;
        for (let position = 0; position < order.rowsPerEpoch; windows++) {
          const window = order.window(epoch, position);
          expect(window.position).toBe(position);
          expect(window.lanes.size).toBeGreaterThanOrEqual(Math.min(batch, order.rowsPerEpoch));
          expect(window.lanes.size).toBeLessThanOrEqual(order.windowRows);
          position += window.lanes.size;
        }
        expect(windows).toBe(order.windows);
      }
    }
    expect(small(5000).windows).toBeGreaterThan(50);
  });

  it("reads whole grains of neighbouring rows", () => {
    const order = small(1000, { grain: 6, blockBytes: 20 * ROW_BYTES });
    for (let position = 0; position < 1000; ) {
      const { blocks, lanes } = order.window(0, position);
      for (const { first, count } of blocks) {
        expect(first % 6).toBe(0);
        if (first + count !== 1000) expect(count).toBe(18);
      }
      position += lanes.size;
    }
  });

  it("never reads a block of which no row is visited", () => {
    const order = small(1000, { excluded: (row) => row >= 200 && row < 600 });
    for (let position = 0; position < order.rowsPerEpoch; ) {
      const { blocks, lanes } = order.window(0, position);
      expect(blocks.filter(({ first }) => first >= 200 && first < 600)).toEqual([]);
      position += lanes.size;
    }
  });

  it("mixes: where a row comes from says nothing of where it is visited", () => {
    const rows = 8192;
    const order = epochOf(small(rows, { windowBytes: 1024 * ROW_BYTES }), 0);
    const mean = (rows - 1) / 2;
    const correlation = (of: readonly number[], lag: number) => {
      let sum = 0;
      for (let i = 0; i + lag < rows; i++) sum += (of[i]! - mean) * (of[i + lag]! - mean);
      return sum / ((rows - lag) * ((rows ** 2 - 1) / 12));
    };
    expect(correlation(upTo(rows), 1)).toBeGreaterThan(0.99);
    expect(Math.abs(correlation(order, 1))).toBeLessThan(0.1);
    const trend = order.reduce((sum, row, i) => sum + (row - mean) * (i - mean), 0) / (rows * ((rows ** 2 - 1) / 12));
    expect(Math.abs(trend)).toBeLessThan(0.15);
    // Neighbours of the file are no neighbours in a batch: of 16 rows, few share a block of 8.
    let shared = 0;
    for (let i = 0; i < rows; i += 16)
      shared += 16 - new Set(order.slice(i, i + 16).map((row) => Math.floor(row / 8))).size;
    expect(shared / rows).toBeLessThan(0.12);
  });

  it("refuses a position that is none", () => {
    expect(() => small(100).window(0, 100)).toThrow(RangeError);
  });
});

describe("a stream", () => {
  const rows = 4096;
  const options = { seed: 3, batch: 16, blockBytes: 64, windowBytes: 4096 };
  const order = (shuffle: boolean, windowBytes?: number) =>
    new Order({ rows, rowBytes: 8, grain: 1, stream: "again" }, new RowSet(rows), { ...options, windowBytes, shuffle });

  it("is read from the first row to the last in every epoch, and shuffled within its windows", () => {
    const shuffled = order(true, 4096);
    expect(shuffled.windows).toBeGreaterThan(4);
    for (const epoch of [0, 1]) {
      let next = 0;
      for (let position = 0; position < rows; ) {
        const window = shuffled.window(epoch, position);
        for (const { first, count } of window.blocks) {
          expect(first).toBe(next);
          next += count;
        }
        expect(Array.from(window.lanes.inOrder())).not.toEqual(upTo(window.lanes.size));
        position += window.lanes.size;
      }
      expect(next).toBe(rows);
    }
  });

  it("that is not shuffled is not waited for longer than a few batches take", () => {
    expect(order(false).windowRows).toBeLessThan(100);
    expect(order(true).windows).toBe(1);
  });
});

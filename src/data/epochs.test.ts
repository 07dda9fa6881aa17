import { describe, expect, it } from "vitest";
import { heldOutOf, orderOf } from "./epochs.ts";
import { heldOut, isIn } from "./holdout.ts";
import { RowSet } from "./mask.ts";
import { Order, type RowOrder } from "./order.ts";

const ROW_BYTES = 8;
const options = { seed: 3, shuffle: true, batch: 8, blockBytes: 64, windowBytes: 256 };

/** The rows of the source that an epoch visits, in its order. */
function rowsOf(order: RowOrder, epoch: number): number[] {
  const rows: number[] = [];
  while (rows.length < order.rowsIn(epoch)) {
    const window = order.window(epoch, rows.length);
    const inMemory = window.blocks.flatMap(({ first, count }) =>
      order.visited(first, count).flatMap((run) => Array.from({ length: run.count }, (_, i) => run.first + i)),
    );
    rows.push(...Array.from(window.lanes.inOrder(), (row) => inMemory[row]!));
  }
  return rows;
}

const upTo = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const sorted = (rows: number[]) => rows.toSorted((a, b) => a - b);

describe("the order of a run to which files were appended", () => {
  const excluded = new RowSet(1000);
  for (const row of [5, 399, 400, 999]) excluded.add(row);
  const there = (from: number, to: number) => upTo(from, to).filter((row) => !excluded.has(row));

  it("keeps the epochs before, visits the appended rows alone, then all", () => {
    const before = new Order({ rows: 400, rowBytes: ROW_BYTES, grain: 2 }, excluded, options);
    const order = orderOf({ rows: 1000, rowBytes: ROW_BYTES, grain: 4 }, excluded, options, [
      { rows: 400, grain: 2, epoch: 2 },
    ]);
    for (const epoch of [0, 1]) expect(rowsOf(order, epoch)).toEqual(rowsOf(before, epoch));
    expect([0, 1, 2, 3].map((epoch) => order.rowsIn(epoch))).toEqual([398, 398, 598, 996]);
    expect(sorted(rowsOf(order, 2))).toEqual(there(400, 1000));
    expect(rowsOf(order, 2)).not.toEqual(there(400, 1000));
    const all = new Order({ rows: 1000, rowBytes: ROW_BYTES, grain: 4 }, excluded, options);
    for (const epoch of [3, 4]) expect(rowsOf(order, epoch)).toEqual(rowsOf(all, epoch));
  });

  it("twice, keeps what the first append decided", () => {
    const first = { rows: 400, grain: 2, epoch: 1 };
    const once = orderOf({ rows: 700, rowBytes: ROW_BYTES, grain: 2 }, excluded, options, [first]);
    const twice = orderOf({ rows: 1000, rowBytes: ROW_BYTES, grain: 8 }, excluded, options, [
      first,
      { rows: 700, grain: 2, epoch: 4 },
    ]);
    for (const epoch of [0, 1, 2, 3]) expect(rowsOf(twice, epoch)).toEqual(rowsOf(once, epoch));
    expect(sorted(rowsOf(twice, 4))).toEqual(there(700, 1000));
    expect(sorted(rowsOf(twice, 5))).toEqual(there(0, 1000));
  });

  it("never takes a window of one stage for one of another", () => {
    const small = { ...options, windowBytes: 1e6 };
    const order = orderOf({ rows: 1000, rowBytes: ROW_BYTES, grain: 1 }, excluded, small, [
      { rows: 400, grain: 1, epoch: 1 },
    ]);
    expect(order.windows).toBe(3);
    const keys = [0, 1, 2, 3].map((epoch) => order.window(epoch, 0).key);
    expect(new Set(keys.slice(0, 3)).size).toBe(3);
    expect(keys[3]).toBe(keys[2]);
  });
});

describe("the hold-out of a run to which files were appended", () => {
  it("keeps the sequences that were held out, and holds out some of the others", () => {
    // So few that the rule for at least one decides.
    for (const seed of [0, 1, 2, 3, 4, 5]) {
      const before = heldOut({ rows: 80, sequence: 20 }, 0.05, seed);
      const ranges = heldOutOf({ rows: 4000, sequence: 20 }, 0.05, seed, [{ rows: 80, grain: 1, epoch: 1 }]);
      for (let row = 0; row < 80; row++) expect(isIn(ranges, row)).toBe(isIn(before, row));
      const added = ranges.filter(({ first }) => first >= 80).reduce((sum, { count }) => sum + count, 0);
      expect(added).toBeGreaterThan(80);
      expect(added).toBeLessThan(400);
    }
  });
});

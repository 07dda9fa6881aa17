import { describe, expect, it } from "vitest";
import { Rng } from "../util/rng.ts";
import { Lanes, lanesFor, lanesOfSlots } from "./lanes.ts";

const shuffled = (rows: Uint32Array, lane: number) => {
  new Rng(1, lane).shuffle(rows);
};
const cases: readonly (readonly [size: number, count: number, position: number])[] = [
  [1, 1, 0],
  [5, 8, 3],
  [64, 64, 64],
  [1000, 64, 0],
  [1000, 64, 37],
  [1003, 60, 59],
  [777, 7, 700],
];

describe("lanes", () => {
  it.each(cases)("of a window of %i rows in %i lanes from %i on have each row once", (size, count, position) => {
    const lanes = new Lanes(size, count, position, shuffled);
    expect([...lanes.inOrder()].sort((a, b) => a - b)).toEqual(Array.from({ length: size }, (_, row) => row));
    expect([lanes.start(0), lanes.start(count)]).toEqual([0, size]);
  });

  it.each(cases)("of %i rows in %i lanes from %i on take turns", (size, count, position) => {
    const lanes = new Lanes(size, count, position, shuffled);
    const order = lanes.inOrder();
    for (let lane = 0; lane < count; lane++) {
      const own = [...order].filter((_, at) => (position + at) % count === lane);
      expect([...lanes.rows(lane)]).toEqual(own);
      // Neighbours in memory, in an order of their own.
      expect(own.every((row) => lanes.start(lane) <= row && row < lanes.start(lane + 1))).toBe(true);
      for (const [first, end] of [
        [0, size],
        [Math.floor(size / 3), Math.floor(size / 2)],
        [size - 1, size],
      ] as const) {
        const part = lanes.within(lane, { first, end });
        const expected = [...order].filter((_, at) => first <= at && at < end && (position + at) % count === lane);
        expect([...lanes.rows(lane).subarray(part.first, part.end)]).toEqual(expected);
      }
    }
  });

  it("divide the batch, and are divided by the usual numbers of replicas", () => {
    for (const batch of [1, 48, 64, 1000, 1024, 1536, 32_768, 40_320, 65_521]) expect(batch % lanesFor(batch)).toBe(0);
    expect([64, 1024, 32_768].map(lanesFor)).toEqual([64, 64, 64]);
    expect([192, 6 * 1024, 100].map(lanesFor)).toEqual([192, 192, 20]);
  });

  it("are shared by replicas without overlap where they divide", () => {
    const parts = (replicas: number, batch: number) =>
      Array.from({ length: replicas }, (_, r) =>
        lanesOfSlots({ first: (r * batch) / replicas, end: ((r + 1) * batch) / replicas }, batch, lanesFor(batch)),
      );
    expect(parts(4, 1024)).toEqual([0, 16, 32, 48].map((first) => ({ first, end: first + 16 })));
    expect(parts(3, 384)).toEqual([0, 64, 128].map((first) => ({ first, end: first + 64 })));
    // 11 replicas of 64 lanes: neighbours share a lane.
    expect(parts(11, 11 * 64).slice(0, 2)).toEqual([
      { first: 0, end: 6 },
      { first: 5, end: 12 },
    ]);
  });
});

import { expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { float32Of } from "../util/bytes.ts";
import { batches, ringRows, START } from "./batches.ts";
import { RowSet } from "./mask.ts";
import { Order } from "./order.ts";

const WIDTH = 1024;
const ROWS = 640;

/** The rows that 32 batches are made of, and which rows of the file were read for them. */
async function epoch(grain: number, excluded: (row: number) => boolean) {
  const source = memorySource(numberedRows(ROWS, WIDTH), WIDTH, { grain });
  const set = new RowSet(ROWS);
  for (let row = 0; row < ROWS; row++) if (excluded(row)) set.add(row);
  const rowBytes = 4 * WIDTH;
  const order = new Order({ rows: ROWS, rowBytes, grain }, set, {
    ...{ seed: 3, shuffle: true, batch: 16, lanes: 16, blockBytes: 64 * rowBytes, windowBytes: 200 * rowBytes },
  });
  const held = new Float32Array(ringRows(order) * WIDTH);
  const ring = {
    memory: (bytes: number) => new Uint8Array(bytes),
    bring: async (at: number, bytes: Uint8Array) => {
      held.set(float32Of(bytes.slice()), at * WIDTH);
      return [];
    },
  };
  const seen: number[] = [];
  let left = Math.floor(order.rowsPerEpoch / 16);
  const size = () => (left-- > 0 ? 16 : 0);
  for await (const { rows } of batches({ source, order, ring, nonFinite: "stop" }, START, size)) {
    for (const row of rows) {
      const values = held.subarray(row * WIDTH, (row + 1) * WIDTH);
      expect(values.every((value) => value === values[0])).toBe(true);
      seen.push(values[0]!);
    }
  }
  const read = source.reads.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i));
  return { seen, read: new Set(read), reads: source.reads };
}

it.each([
  ["long runs are read to their place", 1, 16, true],
  ["short runs are read with what is between them", 1, 3, false],
  ["chunks are read whole", 64, 16, false],
] as const)("excluded rows are squeezed out: %s", async (_, grain, every, passesOver) => {
  const excluded = (row: number) => row % every === 5 % every;
  const { seen, read, reads } = await epoch(grain, excluded);
  expect(seen.filter(excluded)).toEqual([]);
  expect(new Set(seen).size).toBe(seen.length);
  const unwanted = [...read].filter(excluded);
  if (passesOver) expect(unwanted).toEqual([]);
  else {
    expect(unwanted.length).toBeGreaterThan(0);
    // One read for each of ten blocks, and for those that were read ahead of the next epoch.
    expect(reads.length).toBeLessThanOrEqual(20);
  }
});

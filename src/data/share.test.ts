/** Replicas read their own share of the rows, and train on what one process would train on. */

import { describe, expect, it } from "vitest";
import { memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { float32Of } from "../util/bytes.ts";
import { nonFiniteRows } from "../util/float16.ts";
import { batches, type NonFinite, type Position, ringRows, START } from "./batches.ts";
import { lanesFor } from "./lanes.ts";
import { RowSet } from "./mask.ts";
import { Order } from "./order.ts";

const BLOCK = 8;
const WINDOW = 400;

interface Setting {
  readonly rows: number;
  readonly batch: number;
  readonly nonFinite?: NonFinite;
  readonly excluded?: (row: number) => boolean;
  readonly bad?: (row: number) => boolean;
  readonly zero?: (row: number) => boolean;
  readonly windowRows?: number;
  readonly lanes?: number;
  readonly grain?: number;
  readonly shuffle?: boolean;
}

/** What ranks say to each other: the values of all, once each has given its own. */
function exchangeOf(ranks: number) {
  const rounds: { values: (readonly number[])[]; done: (all: readonly number[]) => void; all: Promise<number[]> }[] =
    [];
  return (rank: number) => {
    let round = 0;
    return (values: readonly number[]): Promise<readonly number[]> => {
      const i = round++;
      if (rounds[i] === undefined) {
        let done: (all: readonly number[]) => void = () => undefined;
        const all = new Promise<number[]>((resolve) => {
          done = (each) => resolve([...each]);
        });
        rounds[i] = { values: [], done, all };
      }
      const current = rounds[i]!;
      current.values[rank] = values;
      if (Object.keys(current.values).length === ranks) current.done(current.values.flat());
      return current.all;
    };
  };
}

interface Taken {
  readonly rows: number[];
  readonly next: Position;
}

/** The batches of each of so many replicas, and how many rows of the file each has read. */
async function replicasOf(setting: Setting, replicas: number, sizes: readonly number[], start: Position = START) {
  const { rows, batch, excluded = () => false, bad = () => false, zero, nonFinite = "stop", grain = 1 } = setting;
  const { lanes = lanesFor(batch), windowRows = WINDOW, shuffle = true } = setting;
  const values = numberedRows(rows);
  const set = new RowSet(rows);
  for (let row = 0; row < rows; row++) {
    if (bad(row)) values[row] = Number.NaN;
    if (excluded(row)) set.add(row);
  }
  const exchange = exchangeOf(replicas);
  return Promise.all(
    Array.from({ length: replicas }, async (_, replica) => {
      const memory = memorySource(values, 1, { grain });
      const leftOut = (raw: Uint8Array) =>
        [...float32Of(raw.slice())].flatMap((value, i) => (zero?.(value) === true ? [i] : []));
      const source = zero === undefined ? memory : { ...memory, leftOut };
      const order = new Order({ rows, rowBytes: 4, grain }, set, {
        ...{ seed: 7, shuffle, batch, lanes, blockBytes: BLOCK * 4, windowBytes: windowRows * 4 },
      });
      const held = new Float32Array(ringRows(order)).fill(-1);
      const ring = {
        memory: (bytes: number) => new Uint8Array(bytes),
        bring: async (at: number, bytes: Uint8Array) => {
          held.set(float32Of(bytes.slice()), at);
          return nonFiniteRows(bytes, "f32", 1, 0, bytes.length / 4);
        },
      };
      const taken: Taken[] = [];
      let asked = 0;
      const share = replicas === 1 ? undefined : { replica, replicas, batch, agree: exchange(replica) };
      const input = { source, order, ring, nonFinite };
      for await (const each of batches(input, start, () => sizes[asked++] ?? 0, { share })) {
        expect(each.size).toBe(sizes[taken.length]);
        taken.push({ rows: Array.from(each.rows, (row) => held[row]!), next: each.next });
      }
      return { taken, read: memory.reads.reduce((sum, [, count]) => sum + count, 0) };
    }),
  );
}

/** The batches of all replicas together, which agree on where each ends. */
async function together(setting: Setting, replicas: number, sizes: readonly number[], start?: Position) {
  const found = await replicasOf(setting, replicas, sizes, start);
  return sizes.map((size, step): Taken => {
    const rows = found.flatMap(({ taken }) => taken[step]!.rows);
    expect(rows).toHaveLength(size);
    const [next] = new Set(found.map(({ taken }) => JSON.stringify(taken[step]!.next)));
    for (const { taken } of found) expect(JSON.stringify(taken[step]!.next)).toBe(next);
    return { rows, next: found[0]!.taken[step]!.next };
  });
}

const BATCH = 192; // divided by 2, 3, 4 and 8
const times = (count: number, size = BATCH) => Array<number>(count).fill(size);
const settings: Record<string, Setting> = {
  "many windows": { rows: 5000, batch: BATCH },
  "one window": { rows: 900, batch: BATCH, windowRows: 5000 },
  "rows excluded": { rows: 5000, batch: BATCH, excluded: (row) => row % 8 === 0 || (row > 500 && row < 700) },
  "chunks of a file": { rows: 5000, batch: BATCH, grain: 20, excluded: (row) => row % 16 === 0 },
  "rows passed over": { rows: 5000, batch: BATCH, nonFinite: "skip", bad: (row) => row % 97 === 0 },
  "rows left out when read": { rows: 5000, batch: BATCH, zero: (row) => row % 103 === 5 },
  "both, in one window": {
    ...{ rows: 900, batch: BATCH, windowRows: 5000, nonFinite: "skip" },
    ...{ bad: (row: number) => row % 97 === 0, zero: (row: number) => row % 103 === 5 },
  },
  "a batch that lanes do not divide by replicas": { rows: 5000, batch: 24 * 11 },
  "the order of earlier versions": { rows: 5000, batch: BATCH, lanes: 1 },
  "the order of the file": { rows: 5000, batch: BATCH, shuffle: false },
};

describe.each(Object.entries(settings))("the rows of every step with %s", (_, setting) => {
  it("are the same for any number of replicas", async () => {
    // Three epochs, and a last batch that is short.
    const sizes = [...times(Math.ceil((3 * setting.rows) / setting.batch), setting.batch), 37];
    const alone = await together(setting, 1, sizes);
    for (const replicas of [2, 3, 4, 8, 11].filter((each) => setting.batch % each === 0))
      expect(await together(setting, replicas, sizes)).toEqual(alone);
  });

  it("are the same when other replicas go on", async () => {
    const sizes = times(40, setting.batch);
    const alone = await together(setting, 1, sizes);
    for (const [done, replicas] of [
      [1, 4],
      [7, 2],
      [26, 3],
      [33, 8],
    ] as const) {
      const rest = await together(setting, replicas, sizes.slice(done), alone[done - 1]!.next);
      expect(rest).toEqual(alone.slice(done));
    }
  });
});

describe("what a replica reads", () => {
  const rows = 24_000;
  const windows = 12;
  const setting: Setting = { rows, batch: BATCH, windowRows: rows / windows };
  /** The epoch, and the window after it, which is read ahead. */
  const all = rows + rows / windows;

  it.each([1, 2, 3, 4, 8])("is its part of the rows, of %i", async (replicas) => {
    const found = await replicasOf(setting, replicas, times(rows / BATCH));
    for (const { read } of found) expect(Math.abs(read - all / replicas)).toBeLessThan((windows + 1) * BLOCK);
    expect(found.reduce((sum, { read }) => sum + read, 0)).toBe(all);
  });

  it("is little more where rows are passed over", async () => {
    const skipping: Setting = { ...setting, nonFinite: "skip", bad: (row) => row % 997 === 0 };
    for (const { read } of await replicasOf(skipping, 4, times(rows / BATCH - 1)))
      expect(read).toBeLessThan(1.1 * (all / 4));
  });

  it("is everything where the order is that of earlier versions", async () => {
    for (const { read } of await replicasOf({ ...setting, lanes: 1 }, 4, times(rows / BATCH))) expect(read).toBe(all);
  });
});

it("an order of one lane is that of earlier versions", async () => {
  const [first] = await together({ rows: 5000, batch: 16, lanes: 1 }, 1, [16]);
  expect(first!.rows).toEqual([
    2780, 911, 3947, 1277, 4387, 4035, 2477, 3781, 3048, 191, 4384, 3493, 2584, 872, 1115, 3782,
  ]);
});

import { describe, expect, it } from "vitest";
import { memorySource } from "../../../test/support/memory-source.ts";
import { type Batch, batches, START } from "../../data/batches.ts";
import { RowSet } from "../../data/mask.ts";
import { Order } from "../../data/order.ts";
import { BatchFeed, type Seat } from "./feed.ts";

const D = 2;
const ROWS = 300;
const BATCH = 16;
const VALUES = Float32Array.from({ length: ROWS * D }, (_, i) => i);
const order = new Order({ rows: ROWS, rowBytes: 4 * D, grain: 1 }, new RowSet(ROWS), {
  ...{ seed: 3, shuffle: true, batch: BATCH },
  ...{ blockBytes: 4 * D * 4, windowBytes: 4 * D * 40 },
});
const ring = { memory: (bytes: number) => new Uint8Array(bytes), bring: async () => [] };

function start(broken?: number) {
  const source = memorySource(VALUES, D, broken === undefined ? {} : { broken });
  const stopping = new AbortController();
  const feed = new BatchFeed({ source, order, ring, nonFinite: "stop", signal: stopping.signal });
  return { source, stopping, feed };
}

async function take({ feed }: Seat, most: number): Promise<Batch[]> {
  const found: Batch[] = [];
  for await (const batch of feed(() => (found.length < most ? BATCH : 0))) found.push(batch);
  return found;
}

async function alone(most: number): Promise<Batch[]> {
  const found: Batch[] = [];
  const size = () => (found.length < most ? BATCH : 0);
  for await (const batch of batches({ source: memorySource(VALUES, D), order, ring, nonFinite: "stop" }, START, size))
    found.push(batch);
  return found;
}

describe("batches for several runs", () => {
  it("are those of a run alone, also for one that ends earlier or is ahead", async () => {
    expect(order.windows).toBeGreaterThan(3);
    const expected = await alone(40);
    const { feed } = start();
    const ahead = { tokens: 5 * BATCH, position: expected[4]!.next };
    const seats = [
      feed.join({ tokens: 0, position: START }),
      feed.join({ tokens: 0, position: START }),
      feed.join(ahead),
    ];
    const [all, few, rest] = await Promise.all([take(seats[0]!, 40), take(seats[1]!, 7), take(seats[2]!, 35)]);
    expect(all).toEqual(expected);
    expect(few).toEqual(expected.slice(0, 7));
    expect(rest).toEqual(expected.slice(5));
    await feed.close();
  });

  it("go on from the place of those that are ahead when the others have left", async () => {
    const expected = await alone(20);
    const { feed } = start();
    const behind = feed.join({ tokens: 0, position: START });
    const ahead = feed.join({ tokens: 9 * BATCH, position: expected[8]!.next });
    const [few, rest] = await Promise.all([take(behind, 3), take(ahead, 11)]);
    expect(few).toEqual(expected.slice(0, 3));
    expect(rest.map(({ next }) => next)).toEqual(expected.slice(9).map(({ next }) => next));
    await feed.close();
  });

  it("end for all after the same one when they are stopped, and for one that leaves alone", async () => {
    const { feed, stopping } = start();
    const seats = Array.from({ length: 3 }, () => feed.join({ tokens: 0, position: START }));
    const counts = [0, 0];
    seats[2]!.leave();
    await Promise.all(
      counts.map(async (_, i) => {
        for await (const _batch of seats[i]!.feed(() => BATCH)) if (++counts[i]! === 6 && i === 0) stopping.abort();
      }),
    );
    expect(counts[0]).toBe(counts[1]);
    await feed.close();
  });

  it("fail for all where a row cannot be read", async () => {
    const { feed } = start(123);
    const seats = [feed.join({ tokens: 0, position: START }), feed.join({ tokens: 0, position: START })];
    const found = await Promise.allSettled(seats.map((seat) => take(seat, 40)));
    for (const each of found) expect(each).toMatchObject({ status: "rejected", reason: new Error("the disk is gone") });
    await feed.close();
  });
});

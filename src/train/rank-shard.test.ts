import { describe, expect, it } from "vitest";
import { type Collective, type Grid, gridOf, rowsOfReplica } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { rulesOf } from "../sae/architectures/index.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { checkBatch, fromFirst, rankShard, sumOverShards } from "./rank-shard.ts";

const WHOLE = autoencoderDims(5, 96);
const shardOf = (grid?: Grid, capacityFactor?: number) =>
  rankShard(WHOLE, rulesOf({ architecture: "topk", k: 8, auxk: 40 }), grid, capacityFactor);

describe("a rank's shard", () => {
  it("alone is the whole", () => {
    expect(shardOf()).toEqual({
      grid: solo().grid,
      whole: WHOLE,
      dims: WHOLE,
      firstLatent: 0,
      live: { rule: { kind: "topk", k: 8 }, among: "all", slots: 8 },
      dead: { rule: { kind: "topk", k: 40 }, among: "dead", slots: 40 },
      inference: { rule: { kind: "topk", k: 8 }, among: "all", slots: 8 },
    });
    expect(shardOf(gridOf(1, 1, 2), 1.5).live.slots).toBe(8);
  });

  it("is the latents of a shard, every one in exactly one, with slots for all that could be selected", () => {
    const shards = [0, 1, 2].map((rank) => shardOf(gridOf(rank, 3, 1)));
    expect(shards.map(({ firstLatent, dims, live, dead }) => [firstLatent, dims.n, live.slots, dead?.slots])).toEqual([
      [0, 32, 8, 32],
      [32, 32, 8, 32],
      [64, 32, 8, 32],
    ]);
  });

  it.each([
    [1, 2, 3, 14], // ceil(8/3), ceil(40/3)
    [1.5, 2, 4, 20],
    [0.01, 2, 3, 14], // never fewer than its share
    [99, 2, 8, 32], // never more than k, or than it has
  ])("with the capacity factor %f has fewer slots", (factor, shard, k, auxk) => {
    const { dims, live, dead } = shardOf(gridOf(shard, 3, 1), factor);
    expect([dims, live.slots, dead?.slots]).toEqual([autoencoderDims(5, 32), k, auxk]);
  });

  it("is refused when the latents do not divide", () => {
    expect(() => shardOf(gridOf(0, 5, 1))).toThrow(
      "96 latents cannot be shared by 5 shards; give a multiple of --shards as --latents",
    );
  });
});

describe("a part of a batch", () => {
  it.each([
    [12, 4],
    [13, 4],
    [3, 3],
    [1000, 7],
  ])("of %i rows for %i replicas: every row in exactly one, in the order of the batch", (rows, replicas) => {
    const parts = Array.from({ length: replicas }, (_, r) => rowsOfReplica(gridOf(2 * r + 1, 2, replicas), rows));
    expect(parts[0]!.first).toBe(0);
    for (let r = 1; r < replicas; r++) expect(parts[r]!.first).toBe(parts[r - 1]!.end);
    expect(parts.at(-1)!.end).toBe(rows);
    const sizes = parts.map(({ first, end }) => end - first);
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
  });

  it("is refused, with the numbers, when it would be uneven or none", () => {
    const grid = gridOf(0, 1, 4);
    expect(() => checkBatch(grid, 64, 4)).not.toThrow();
    expect(() => checkBatch(grid, 64, 0)).not.toThrow();
    expect(() => checkBatch(grid, 62, 0)).toThrow("a batch of 62 rows cannot be shared by 4 replicas");
    expect(() => checkBatch(grid, 64, 3)).toThrow("the last batch has 3 rows for 4 replicas");
  });
});

describe("what ranks agree upon", () => {
  const of = (rank: number, values: readonly unknown[]): Collective => ({
    ...solo(),
    grid: gridOf(rank, 2, 2),
    exchange: async <T>(own: T) => values.map((value, r) => (r === rank ? own : (value as T))),
  });

  it("is what the first says", async () => {
    expect(await fromFirst(of(0, [null, null, null, null]), async () => "decided")).toBe("decided");
    const never = async (): Promise<string> => {
      throw new Error("only rank 0 decides");
    };
    expect(await fromFirst(of(3, ["decided", null, null, null]), never)).toBe("decided");
    expect(await fromFirst(solo(), async () => 1)).toBe(1);
  });

  it("is a sum over the shards of one replica", async () => {
    const values = [
      [1, 10],
      [2, 20],
      [3, 30],
      [4, 40],
    ];
    expect(await sumOverShards(of(1, values), [2, 20])).toEqual([3, 30]);
    expect(await sumOverShards(of(2, values), [3, 30])).toEqual([7, 70]);
    expect(await sumOverShards(solo(), [5])).toEqual([5]);
  });
});

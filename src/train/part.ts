/** What one rank of a grid has of an autoencoder and of a batch: the latents of its shard, the rows of its replica. */

import type { Collective, Grid } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import type { Shape } from "../sae/shape.ts";
import { UsageError } from "../util/errors.ts";

export interface Part {
  readonly grid: Grid;
  /** Of all shards together. */
  readonly whole: Shape;
  /** Of this shard: its latents, and how many of them it may select a row before the shards compare. */
  readonly shape: Shape;
  /** Number of this shard's latent 0 among all. */
  readonly firstLatent: number;
}

/** The part of `grid`'s rank. `capacityFactor`: see `slotsOf`. Throws UsageError with the numbers when the latents do not divide. */
export function partOf(whole: Shape, grid: Grid = solo().grid, capacityFactor?: number): Part {
  const { shards, shard } = grid;
  const n = whole.n / shards;
  if (!Number.isInteger(n)) {
    throw new UsageError(`${whole.n} latents cannot be shared by ${shards} shards`, {
      mend: "give a multiple of --shards as --latents",
    });
  }
  const slots = (k: number) => slotsOf(k, n, shards, capacityFactor);
  return { grid, whole, shape: { ...whole, n, k: slots(whole.k), auxk: slots(whole.auxk) }, firstLatent: shard * n };
}

/**
 * Latents that a shard may select a row. Exact: k, or all that it has. With a capacity factor c, c k / shards, rounded up, within what makes sense (`sharded_topk` of OpenAI's
 * scripts, mended): a row of which more than that are in one shard then loses the weakest of them.
 */
function slotsOf(k: number, n: number, shards: number, capacityFactor: number | undefined): number {
  const most = Math.min(k, n);
  if (shards === 1 || capacityFactor === undefined) return most;
  return Math.min(Math.max(Math.ceil((k * capacityFactor) / shards), Math.ceil(k / shards)), most);
}

/** The rows of a batch that this rank's replica trains on: a part of neighbours, so that the order of all rows is the same for any number of replicas. */
export function rowsOfReplica(
  { replicas, replica }: Grid,
  rows: number,
): { readonly first: number; readonly end: number } {
  return { first: Math.floor((replica * rows) / replicas), end: Math.floor(((replica + 1) * rows) / replicas) };
}

/** Throws UsageError with the numbers when a batch cannot be shared by the replicas. `last`: rows of the last batch, where it is short. */
export function checkBatch({ replicas }: Grid, batch: number, last: number): void {
  if (batch % replicas !== 0) {
    throw new UsageError(`a batch of ${batch} rows cannot be shared by ${replicas} replicas`, {
      mend: "give a multiple of --replicas as --batch",
    });
  }
  if (last > 0 && last < replicas) {
    throw new UsageError(`the last batch has ${last} rows for ${replicas} replicas`, {
      mend: "leave out --no-drop-last, or change --tokens",
    });
  }
}

/** What rank 0 makes of `decide`, on all ranks (as JSON). Where it fails there, the run ends everywhere. */
export async function fromFirst<T>({ grid, exchange }: Collective, decide: () => Promise<T>): Promise<T> {
  if (grid.size === 1) return decide();
  const [first] = await exchange<T | null>(grid.rank === 0 ? await decide() : null);
  return first as T;
}

/** Sums over the ranks of one replica, whose shards have different ones. */
export async function sumOverShards(collective: Collective, values: readonly number[]): Promise<readonly number[]> {
  if (collective.grid.shards === 1) return values;
  const all = await collective.exchange(values);
  const { replica, shards } = collective.grid;
  return values.map((_, i) =>
    all.slice(replica * shards, (replica + 1) * shards).reduce((sum, each) => sum + each[i]!, 0),
  );
}

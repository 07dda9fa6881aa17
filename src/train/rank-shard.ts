/**
 * What one rank of a grid holds: the latents of its shard, and the rows of its replica of each
 * batch.
 */

import type { Collective, Grid } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import type { Prefix, SelectionPlan } from "../engine/engine.ts";
import type { SelectionRules } from "../sae/architectures/architecture.ts";
import type { Dims } from "../sae/dims.ts";
import { type Rule, slotsFor } from "../sae/rule.ts";
import { bytesOf, float64Of } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";

export interface RankShard {
  readonly grid: Grid;
  /** Of all shards together. */
  readonly whole: Dims;
  /** Of this shard. */
  readonly dims: Dims;
  /** Number of this shard's latent 0 among all. */
  readonly firstLatent: number;
  /**
   * The selections of a training step and of inference; the rules are of the whole, the slots are
   * this shard's.
   */
  readonly live: SelectionPlan;
  readonly dead: SelectionPlan | undefined;
  /** Of multi-TopK. */
  readonly wide: SelectionPlan | undefined;
  readonly band: SelectionPlan | undefined;
  readonly inference: SelectionPlan;
  /** Of a Matryoshka autoencoder, as they are in this shard. */
  readonly prefixes: readonly Prefix[] | undefined;
}

/**
 * What the rank of `grid` holds of an autoencoder. `capacityFactor`: see `slotsOfShard`. Throws
 * UsageError with the numbers when the latents do not divide.
 */
export function rankShard(
  whole: Dims,
  rules: SelectionRules,
  grid: Grid = solo().grid,
  capacityFactor?: number,
): RankShard {
  const { shards, shard } = grid;
  const n = whole.n / shards;
  if (!Number.isInteger(n)) {
    throw new UsageError(`${whole.n} latents cannot be shared by ${shards} shards`, {
      mend: "give a multiple of --shards as --latents",
    });
  }
  const plan = (rule: Rule, among: SelectionPlan["among"]): SelectionPlan => ({
    rule,
    among,
    slots: slotsOfShard(rule, n, shards, capacityFactor),
  });
  return {
    grid,
    whole,
    dims: { ...whole, n },
    firstLatent: shard * n,
    live: plan(rules.live, "all"),
    dead: rules.dead && plan(rules.dead, "dead"),
    wide: rules.wide && plan(rules.wide, "wide"),
    band: rules.band && plan(rules.band, "all"),
    inference: plan(rules.inference, "all"),
    prefixes: rules.prefixes?.map(({ end, weight }) => ({
      end: Math.max(0, Math.min(n, end - shard * n)),
      weight,
    })),
  };
}

/** The selections of a training step. */
export function trainingSelections({
  live,
  dead,
  wide,
  band,
}: Pick<RankShard, "live" | "dead" | "wide" | "band">): readonly SelectionPlan[] {
  return [live, dead, wide, band].filter((each) => each !== undefined);
}

/**
 * Slots per row of a shard. Exact: all that the rule may select there. With a capacity factor c and
 * topk: c k / shards, rounded up, within what makes sense (`sharded_topk` of OpenAI's scripts,
 * fixed); a row that has more than that in one shard then loses the weakest of them.
 */
function slotsOfShard(rule: Rule, n: number, shards: number, capacityFactor: number | undefined): number {
  const most = slotsFor(rule, n);
  if (shards === 1 || capacityFactor === undefined || rule.kind !== "topk") return most;
  const { k } = rule;
  return Math.min(Math.max(Math.ceil((k * capacityFactor) / shards), Math.ceil(k / shards)), most);
}

/**
 * Throws UsageError with the numbers when a batch cannot be shared by the replicas. `last`: rows of
 * the last batch, where it is short.
 */
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

/**
 * What rank 0 makes of `decide`, on all ranks (as JSON). Where it fails there, the run ends
 * everywhere.
 */
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

/** The values of all shards of one replica, in the order of their latents. */
export async function ofAllShards(collective: Collective, own: Float32Array | Float64Array): Promise<Float64Array> {
  const values = Float64Array.from(own);
  const { replica, shards } = collective.grid;
  if (shards === 1) return values;
  // As text: JSON would have up to 20 characters for each.
  const all = await collective.exchange(Buffer.from(bytesOf(values)).toString("base64"));
  const parts = all.slice(replica * shards, (replica + 1) * shards).map((text) => Buffer.from(text, "base64"));
  return float64Of(Buffer.concat(parts)).slice();
}

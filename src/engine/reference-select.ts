/** What the reference engine selects: the rules of sae/rule.ts over the plain loops of sae/math. */

import { type Collective, groupOf } from "../collective/collective.ts";
import * as maths from "../sae/math.ts";
import type { Rule } from "../sae/rule.ts";
import { NONE, type Step } from "./engine.ts";
import { type AllHyper, elementsOf, hyperOf, markFull, own, type ReferenceCodes } from "./reference-memory.ts";

/** Applies the rule to one row; slots left over are unused. Returns how many the rule selects. */
export function selectRow(
  rule: Rule,
  z: maths.Pairs,
  row: number,
  pre: Float64Array,
  w: maths.Weights,
  { rowK, bandwidth }: AllHyper,
  isCandidate: (j: number) => boolean,
): number {
  const part = <A extends Uint32Array | Float64Array>(a: A) =>
    a.subarray(row * z.capacity, (row + 1) * z.capacity) as A;
  const latent = part(z.latent);
  const value = part(z.value);
  const select = (): number => {
    switch (rule.kind) {
      case "topk":
        // Among the dead all slots may be used.
        return maths.topK(
          pre,
          isCandidate === ANY ? Math.min(rowK, z.capacity) : z.capacity,
          latent,
          value,
          isCandidate,
        );
      case "batchtopk":
        return maths.topK(pre, z.capacity, latent, value, isCandidate);
      case "threshold":
        return maths.aboveThreshold(pre, w[rule.param]!, latent, value);
      case "band":
        return maths.inBand(pre, w.threshold!, bandwidth, latent, value);
    }
  };
  const on = select();
  const kept = Math.min(on, z.capacity);
  latent.fill(NONE, kept);
  value.fill(0, kept);
  part(z.grad).fill(0);
  return on;
}

export const ANY = () => true;

/** Slots of the row from `kept` on become unused. */
function keepFirst({ latent, value, capacity }: ReferenceCodes, row: number, kept: number): void {
  latent.fill(NONE, row * capacity + kept, (row + 1) * capacity);
  value.fill(0, row * capacity + kept, (row + 1) * capacity);
}

export function fire(
  { latent, value, capacity }: ReferenceCodes,
  row: number,
  above: number,
  fired: Uint32Array,
): void {
  for (let slot = row * capacity; slot < (row + 1) * capacity; slot++)
    if (latent[slot] !== NONE && value[slot]! > above) fired[latent[slot]!] = 1;
}

function fireAll(codes: ReferenceCodes, above: number, t: Step): void {
  const fired = own(t.fired).u32;
  fired.fill(0);
  for (let row = 0; row < codes.rows; row++) fire(codes, row, above, fired);
}

/** "topk": of each row the k highest of all shards. */
export function keepOfShards(collective: Collective, k: number, codes: ReferenceCodes, t: Step, live: boolean): void {
  const { shards, shard } = collective.grid;
  const { value } = codes;
  const all = new Float64Array(shards * value.length);
  collective.allGather(elementsOf(value), elementsOf(all), "shards");
  const hyper = hyperOf(t);
  const most = live ? Math.min(k, hyper.rowK) : k;
  for (let row = 0; row < codes.rows; row++) {
    const first = row * codes.capacity;
    const values = Array.from({ length: shards }, (_, s) =>
      all.subarray(s * value.length + first, s * value.length + first + codes.capacity),
    );
    keepFirst(codes, row, maths.keptOfShard(values, shard, most));
  }
  if (live) fireAll(codes, hyper.firedAbove, t);
}

/** "batchtopk": the highest of all rows and shards. */
export function keepOfBatch(collective: Collective, codes: ReferenceCodes, t: Step): void {
  const { shards, shard, replica } = collective.grid;
  const { kept, firedAbove } = hyperOf(t);
  const ofReplica = gathered(collective, codes.value, "shards");
  // Replicas may have different numbers of rows.
  const longest = Math.max(...gathered(collective, Float64Array.of(ofReplica.length), "replicas"));
  const padded = new Float64Array(longest);
  padded.set(ofReplica);
  const all = gathered(collective, padded, "replicas");
  const { lowest, equal } = maths.batchCut(all, kept);
  own(t.cut).f64[0] = lowest;
  // Rows of earlier replicas come first, and in a row the latents of earlier shards.
  let left = equal;
  for (const value of all.subarray(0, replica * longest)) if (value === lowest) left--;
  for (let row = 0; row < codes.rows; row++) {
    for (let s = 0; s < shards; s++) {
      const first = (s * codes.rows + row) * codes.capacity;
      let on = 0;
      for (const value of ofReplica.subarray(first, first + codes.capacity)) {
        const ties = value === lowest && lowest > 0;
        if ((lowest > 0 && value > lowest) || (ties && left > 0)) on++;
        if (ties) left--;
      }
      if (s !== shard) continue;
      if (on === codes.capacity && codes.capacity < t.fired.shape[0]!) markFull(t);
      keepFirst(codes, row, on);
    }
  }
  fireAll(codes, firedAbove, t);
}

function gathered(collective: Collective, values: Float64Array, over: "shards" | "replicas"): Float64Array {
  const { size } = groupOf(collective.grid, over);
  if (size === 1) return values.slice();
  const all = new Float64Array(size * values.length);
  collective.allGather(elementsOf(values), elementsOf(all), over);
  return all;
}

/**
 * What replicas exchange, and who updates what. Every replica updates the rows of the latents that it owns and gives their copies in the compute type to the others: weights, moments
 * and averages in f32 are right at the owner alone, until `complete` is called. What an owner needs for its gradient rows comes to it in one of two ways, the one with fewer bytes: the rows of
 * all replicas (x - preBias, residuals and codes: no gradient row is ever formed, and sums go over the global batch in its order), or, for batches that are large beside the latents, the
 * replicas' gradient rows, summed on the way.
 */

import { type Elements, groupOf } from "../../collective/collective.ts";
import type { SelectionPlan, State } from "../engine.ts";
import { slotsOf } from "../selections.ts";
import type { Address } from "./driver.ts";
import type { Machine } from "./machine.ts";
import { checked } from "./memory.ts";

/** Latents: those from `first` to before `end`, and those from `rest` on. */
export interface Share {
  readonly first: number;
  readonly end: number;
  readonly rest: number;
}

export type Way = "alone" | "rows" | "gradients";

/** In the order of their rows in kernels. */
export const MATRICES = ["encoder", "decoder"] as const;

/** The latents that this rank updates. What is left over where the replicas do not divide them, all update. */
export function shareOf({ ranks }: Machine, n: number): Share {
  const { rank, size } = groupOf(ranks.collective.grid, "replicas");
  const each = Math.floor(n / size);
  return { first: rank * each, end: (rank + 1) * each, rest: size * each };
}

/** Those of them that count here, where all ranks' are added: what all update counts in the first replica. */
export function countedOf({ ranks }: Machine, share: Share, n: number): Share {
  return ranks.collective.grid.replica === 0 ? share : { ...share, rest: n };
}

/** As [from, to). */
export function rangesOf({ first, end, rest }: Share, n: number): [from: number, to: number][] {
  const ranges: [number, number][] = [
    [first, end],
    [rest, n],
  ];
  return ranges.filter(([from, to]) => from < to);
}

/** `rows`: of the replica that has the most. Gradients that are asked for are each replica's own. */
export function wayOf(
  { ranks, bytes }: Machine,
  n: number,
  d: number,
  selections: readonly SelectionPlan[],
  rows: number,
  dense: boolean,
): Way {
  const replicas = ranks.sizeOf("replicas");
  if (replicas === 1) return "alone";
  // Gradient rows, of which (replicas - 1) / replicas cross the link, are written and read once more besides.
  const gradients = 8 * n * d;
  const k = slotsOf(selections.filter(({ among }) => among === "all"));
  return dense || (replicas - 1) * rows * (2 * d * bytes + 12 * k) > gradients ? "gradients" : "rows";
}

/** A matrix of this rank's rows, all of the same number of bytes. */
export interface Part {
  readonly name: string;
  readonly at: Address;
  readonly width: number;
  /** What rows that other replicas have more are filled with. */
  readonly filler?: number;
}

/** Those of all replicas, replica by replica, `rows` of each, of which this one has B. */
export function gatherRows(m: Machine, parts: readonly Part[], B: number, rows: number): Address[] {
  const { collective } = m.ranks;
  const { rank, size } = groupOf(collective.grid, "replicas");
  const gathered = parts.map(({ name, at, width, filler = 0 }) => {
    const all = m.room.get(`${name} of all replicas`, size * rows * width);
    if (B === rows) return { from: at, all, width };
    const own = all + rank * rows * width;
    m.device.copy(own, at, B * width);
    m.device.fill(own + B * width, filler, (rows - B) * width);
    return { from: own, all, width };
  });
  m.ranks.together(() => {
    for (const { from, all, width } of gathered) {
      collective.allGather(bytesAt(from, rows * width), bytesAt(all, size * rows * width), "replicas", m.device.stream);
    }
  });
  return gathered.map(({ all }) => all);
}

/** Matrices [n,d] with elements of so many bytes, of which every replica has the rows of its share: all rows. */
export function gatherShares(
  m: Machine,
  matrices: readonly Address[],
  n: number,
  width: number,
  stream: Address,
): void {
  const { collective } = m.ranks;
  const { first, end, rest } = shareOf(m, n);
  m.ranks.together(() => {
    for (const at of matrices) {
      collective.allGather(
        bytesAt(at + first * width, (end - first) * width),
        bytesAt(at, rest * width),
        "replicas",
        stream,
      );
    }
  });
}

/** Matrices [n,d] in f32, of which every replica has a part of the sum: the sum, in the rows of this replica's share. */
export function sumShares(m: Machine, at: Address, n: number, d: number, stream: Address): void {
  const { collective } = m.ranks;
  const { first, end, rest } = shareOf(m, n);
  const floats = (from: number, to: number): Elements => ({
    at: at + 4 * from * d,
    count: (to - from) * d,
    dtype: "f32",
  });
  m.ranks.together(() => {
    if (rest > 0) collective.reduceScatter(floats(0, rest), floats(first, end), "sum", "replicas", stream);
    if (rest < n) collective.allReduce(floats(rest, n), "sum", "replicas", stream);
  });
}

/** Weights, moments and averages of all rows, which until now were right at their owners alone. */
export function complete(m: Machine, { params, m: first, v: second, ema }: State): void {
  // Weights that are computed with as they are have been given to all as they were updated.
  const groups = [...(m.bytes === 4 ? [] : [params]), first, second, ...(ema === undefined ? [] : [ema])];
  const matrices = groups.flatMap((group) => MATRICES.map((name) => checked(group[name], "f32")));
  const [n, d] = params.encoder.shape as [number, number];
  gatherShares(
    m,
    matrices.map(({ address }) => address),
    n,
    4 * d,
    m.device.stream,
  );
  // The copies of weights are those of all rows already.
  for (const tensor of matrices) m.wrote(tensor, tensor === params.encoder || tensor === params.decoder);
}

function bytesAt(at: Address, count: number): Elements {
  return { at, count, dtype: "u8" };
}

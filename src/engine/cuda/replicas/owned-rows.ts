/**
 * What replicas exchange, and who updates what. Every replica updates the rows of the latents that
 * it owns and gives their copies in the compute type to the others: weights, moments and averages
 * in f32 are right at the owner alone, until `complete` is called. What an owner needs for its
 * gradient rows comes to it in one of two ways, the one with fewer bytes: the rows of all replicas
 * (x - preBias, residuals and codes: no gradient row is ever formed, and sums go over the global
 * batch in its order), or, for batches that are large next to the latents, the replicas' gradient
 * rows, summed on the way.
 */

import { type Elements, groupOf } from "../../../collective/collective.ts";
import { CORE_PARAMS, PARAMS } from "../../../sae/params.ts";
import type { Dims, SelectionPlan, State } from "../../engine.ts";
import { slotsOf } from "../../selections.ts";
import type { CudaContext } from "../context.ts";
import type { StructOf } from "../contract.ts";
import type { Address } from "../driver/driver.ts";
import { wroteWithCopy } from "../memory/copies.ts";
import { checked } from "../memory/tensor.ts";

/** Latents: [first, end) and those from `rest` on. */
export type Share = StructOf<"Share">;

export type Replication = "alone" | "rows" | "gradients";

/** In the order of their rows in kernels. */
export const MATRICES = CORE_PARAMS.filter(
  (name): name is "encoder" | "decoder" =>
    PARAMS[name].sharded && PARAMS[name].shape({ dIn: 1, n: 1, dOut: 1 }).length === 2,
);

/**
 * The latents that this rank updates. What is left over where the replicas do not divide them, all
 * update.
 */
export function ownedLatents({ exchange }: CudaContext, n: number): Share {
  const { rank, size } = groupOf(exchange.collective.grid, "replicas");
  const each = Math.floor(n / size);
  return { first: rank * each, end: (rank + 1) * each, rest: size * each };
}

/**
 * Those of them that count here, where all ranks' are added: what all update counts in the first
 * replica.
 */
export function countedLatents({ exchange }: CudaContext, share: Share, n: number): Share {
  return exchange.collective.grid.replica === 0 ? share : { ...share, rest: n };
}

/** As [from, to). */
export function rangesOf({ first, end, rest }: Share, n: number): [from: number, to: number][] {
  const ranges: [number, number][] = [
    [first, end],
    [rest, n],
  ];
  return ranges.filter(([from, to]) => from < to);
}

/**
 * `rows`: of the replica that has the most. Gradients that are asked for are each replica's own.
 */
export function replicationOf(
  { exchange, bytes }: CudaContext,
  { dIn, n, dOut }: Dims,
  selections: readonly SelectionPlan[],
  rows: number,
  dense: boolean,
): Replication {
  const replicas = exchange.sizeOf("replicas");
  if (replicas === 1) return "alone";
  // Gradient rows, of which (replicas - 1) / replicas cross the link, are written and read once
  // more besides.
  const gradients = 4 * n * (dIn + dOut);
  const k = slotsOf(selections.filter(({ among }) => among === "all"));
  return dense || (replicas - 1) * rows * ((dIn + dOut) * bytes + 12 * k) > gradients ? "gradients" : "rows";
}

/** A matrix of this rank's rows, all of the same number of bytes. */
export interface RowMatrix {
  readonly name: string;
  readonly at: Address;
  readonly width: number;
  /** Matrices one after the other; default 1. */
  readonly planes?: number;
  /** What rows that other replicas have more are filled with. */
  readonly filler?: number;
}

/**
 * Those of all replicas, replica by replica, `rows` of each (of each plane), of which this one has
 * B.
 */
export function gatherRows(cuda: CudaContext, parts: readonly RowMatrix[], B: number, rows: number): Address[] {
  const { collective } = cuda.exchange;
  const { rank, size } = groupOf(collective.grid, "replicas");
  const gathered = parts.map(({ name, at, width, planes = 1, filler = 0 }) => {
    const bytes = planes * rows * width;
    const all = cuda.scratch.get(`${name} of all replicas`, size * bytes);
    if (B === rows) return { from: at, all, bytes };
    const own = all + rank * bytes;
    for (let plane = 0; plane < planes; plane++) {
      const to = own + plane * rows * width;
      cuda.device.copy(to, at + plane * B * width, B * width);
      cuda.device.fill(to + B * width, filler, (rows - B) * width);
    }
    return { from: own, all, bytes };
  });
  cuda.exchange.asOneLaunch(() => {
    for (const { from, all, bytes } of gathered)
      collective.allGather(bytesAt(from, bytes), bytesAt(all, size * bytes), "replicas", cuda.device.stream);
  });
  return gathered.map(({ all }) => all);
}

/**
 * Matrices [n,d] with elements of so many bytes, of which every replica has the rows of its share:
 * all rows.
 */
export function gatherOwned(
  cuda: CudaContext,
  matrices: readonly Address[],
  n: number,
  width: number,
  stream: Address,
): void {
  const { collective } = cuda.exchange;
  const { first, end, rest } = ownedLatents(cuda, n);
  cuda.exchange.asOneLaunch(() => {
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

/**
 * Matrices [n,d] in f32, of which every replica has a part of the sum: the sum, in the rows of this
 * replica's share.
 */
export function sumToOwners(cuda: CudaContext, at: Address, n: number, d: number, stream: Address): void {
  const { collective } = cuda.exchange;
  const { first, end, rest } = ownedLatents(cuda, n);
  const floats = (from: number, to: number): Elements => ({
    at: at + 4 * from * d,
    count: (to - from) * d,
    dtype: "f32",
  });
  cuda.exchange.asOneLaunch(() => {
    if (rest > 0) collective.reduceScatter(floats(0, rest), floats(first, end), "sum", "replicas", stream);
    if (rest < n) collective.allReduce(floats(rest, n), "sum", "replicas", stream);
  });
}

/** Weights, moments and averages of all rows, which until now were right at their owners alone. */
export function complete(cuda: CudaContext, { params, m: first, v: second, ema }: State): void {
  // Weights that are computed with as they are have been given to all as they were updated.
  const groups = [...(cuda.bytes === 4 ? [] : [params]), first, second, ...(ema === undefined ? [] : [ema])];
  const matrices = groups.flatMap((group) => MATRICES.map((name) => checked(group[name], "f32")));
  for (const name of MATRICES) {
    const [n, d] = params[name].shape as [number, number];
    const all = groups.map((group) => checked(group[name], "f32").address);
    gatherOwned(cuda, all, n, 4 * d, cuda.device.stream);
  }
  // The copies of weights are those of all rows already.
  for (const tensor of matrices) {
    if (tensor === params.encoder || tensor === params.decoder) wroteWithCopy(tensor);
    else tensor.wrote();
  }
}

function bytesAt(at: Address, count: number): Elements {
  return { at, count, dtype: "u8" };
}

/** What the stream's thread needs to reach the other ranks: Open MPI's functions and handles, in the order of kernels/collective.cc. */

import { type Collective, OVERS, type WireType } from "../../collective/collective.ts";
import { bytesOf } from "../../util/bytes.ts";
import { SaettaError } from "../../util/errors.ts";
import type { DType, Over, ReduceOp, Tensor } from "../engine.ts";
import { at } from "./memory.ts";
import type { Address, Native } from "./native.ts";

const TYPES = ["f64", "f32", "u32", "u8"] as const satisfies readonly WireType[];
const OPS = ["sum", "max", "min"] as const satisfies readonly ReduceOp[];

/** 0 for an engine that is alone. It is kept as long as the process lives. */
export function worldOf(calls: Native, { grid, host, deadline }: Collective): Address {
  if (grid.size === 1) return 0;
  if (host === undefined) throw new SaettaError("its ranks are joined by Open MPI only", { where: "cpu engine" });
  const { functions, comms, types, ops } = host;
  const handles = [
    ...[functions.iallreduce, functions.iallgather, functions.test],
    ...OVERS.map((over) => comms[over]),
    ...TYPES.map((type) => types[type]),
    ...OPS.map((op) => ops[op]),
  ];
  return calls.world(bytesOf(BigUint64Array.from(handles, BigInt)), grid.shards, grid.shard, deadline);
}

/** The group, type, operation, address and count of a reduction, as the kernel takes them. */
export function reduction(t: Tensor, op: ReduceOp, over: Over): [number, number, number, Address, number] {
  const type = (TYPES as readonly DType[]).indexOf(t.dtype);
  if (type === -1) throw new SaettaError(`a tensor of ${t.dtype} cannot be reduced`, { where: "cpu engine" });
  return [OVERS.indexOf(over), type, OPS.indexOf(op), at(t, t.dtype), t.shape.reduce((a, b) => a * b, 1)];
}

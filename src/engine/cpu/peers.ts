/** What the stream's thread needs to reach the other ranks: Open MPI's functions and handles. */

import { type Collective, OVERS, REDUCE_OPS, WIRE_TYPES } from "../../collective/collective.ts";
import { SaettaError } from "../../util/errors.ts";
import { NARROW } from "../contract/names.ts";
import type { Narrowing, Over, ReduceOp, Tensor } from "../engine.ts";
import type { StructOf } from "./contract.ts";
import { at, stepAddresses } from "./memory.ts";
import type { Address, Native } from "./native.ts";

/** 0 for an engine that is alone. It is kept as long as the process lives. */
export function peersOf(native: Native, { grid, host, deadline }: Collective): Address {
  if (grid.size === 1) return 0;
  if (host === undefined) throw new SaettaError("its ranks are joined by Open MPI only", { where: "cpu engine" });
  const { functions, comms, types, ops } = host;
  return native.peers({
    ...{ iallreduce: functions.iallreduce, iallgather: functions.iallgather, ialltoall: functions.ialltoall },
    test: functions.test,
    comms: OVERS.map((over) => comms[over]),
    types: WIRE_TYPES.map((type) => types[type]),
    ops: REDUCE_OPS.map((op) => ops[op]),
    shards: grid.shards,
    shard: grid.shard,
    replicas: grid.replicas,
    replica: grid.replica,
    deadline,
  });
}

/** Throws SaettaError where ranks cannot exchange what the tensor holds. */
export function reduction(t: Tensor, op: ReduceOp, over: Over): Omit<StructOf<"AllReduce">, "peers"> {
  const type = (WIRE_TYPES as readonly string[]).indexOf(t.dtype);
  if (type === -1) throw new SaettaError(`a tensor of ${t.dtype} cannot be reduced`, { where: "cpu engine" });
  const count = t.shape.reduce((a, b) => a * b, 1);
  return { over: OVERS.indexOf(over), type, op: REDUCE_OPS.indexOf(op), at: at(t, t.dtype), count };
}

/** The same for a sum of 16-bit numbers. */
export function narrowSum(
  t: Tensor,
  over: Over,
  { as, t: step, scaled }: Narrowing,
): Omit<StructOf<"NarrowSum">, "peers"> {
  const count = t.shape.reduce((a, b) => a * b, 1);
  return {
    ...{ over: OVERS.indexOf(over), as: NARROW.indexOf(as), at: at(t, "f32"), count },
    ...{ t: stepAddresses(step), scaled: scaled ? 1 : 0 },
  };
}

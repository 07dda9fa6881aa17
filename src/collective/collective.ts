/**
 * Ranks that train one autoencoder together: a grid of replicas, which share the rows of a batch,
 * and shards, which share the latents; rank = replica * shards + shard. A collective is given to an
 * engine when it is made. What moves the engine's numbers (allReduce and its like) is in the order
 * of the engine's operations; what the ranks tell each other besides (exchange, barrier) goes over
 * a connection of its own (rendezvous.ts), which also notices a rank that is gone.
 */

export type Over = "shards" | "replicas" | "all";
export const OVERS = ["shards", "replicas", "all"] as const satisfies readonly Over[];
export const REDUCE_OPS = ["sum", "max", "min"] as const;
export const WIRE_TYPES = ["f64", "f32", "u32", "u8"] as const;
export type ReduceOp = (typeof REDUCE_OPS)[number];
export type WireType = (typeof WIRE_TYPES)[number];

/** Bytes of an element. */
export const WIRE_BYTES: Readonly<Record<WireType, number>> = { f64: 8, f32: 4, u32: 4, u8: 1 };

/** Where this process is among the others. */
export interface Grid {
  readonly rank: number;
  readonly size: number;
  readonly shards: number;
  readonly replicas: number;
  readonly shard: number;
  readonly replica: number;
}

/** An address in the memory of the process, or on the card. */
export type Address = number;

/**
 * Elements in memory of the process, on the card, or of JavaScript (in an operation that is done
 * when it returns).
 */
export interface Elements {
  readonly at: Address | Uint8Array;
  readonly count: number;
  readonly dtype: WireType;
}

/**
 * The operations on memory. `stream` is what orders them among the engine's own: the card's stream
 * for `nccl`, where they return at once; `mpi` has none, and they are done when they return (the
 * cpu engine's stream calls MPI itself, with `host`). Every rank of the group calls the same ones
 * in the same order. The result has the same bits on all ranks of the group. An operation that not
 * every rank joins within the deadline throws a SaettaError, or fails the stream.
 */
export interface Collective {
  readonly kind: "solo" | "mpi" | "nccl";
  readonly grid: Grid;
  /** Seconds that a collective waits for the other ranks. */
  readonly deadline: number;
  /** What the cpu engine's stream needs to call MPI from its own thread. */
  readonly host?: HostCalls | undefined;

  /** Makes the groups. The cuda engine calls it once its card is the one in use. */
  ready(): Promise<void>;
  /** -> of: reduced over the group. */
  allReduce(of: Elements, op: ReduceOp, over: Over, stream?: Address): void;
  /**
   * -> to: this rank's part, of to.count elements, of the sum over the group; `from` has as many
   * parts as the group has ranks. `to` can be its own part of `from`, whose rest is then undefined.
   */
  reduceScatter(from: Elements, to: Elements, op: ReduceOp, over: Over, stream?: Address): void;
  /**
   * -> to: the parts of all ranks in the order of their ranks. `from` can be its own part of `to`.
   */
  allGather(from: Elements, to: Elements, over: Over, stream?: Address): void;
  /**
   * -> to: part r of it is this rank's part of what the group's rank r has in `from`. Undefined
   * where nothing uses it.
   */
  allToAll?(from: Elements, to: Elements, over: Over): void;
  /** -> of: what the group's rank `root` has. */
  broadcast(of: Elements, root: number, over: Over, stream?: Address): void;

  /**
   * Does `body`, in which operations are called, so that they become one launch; undefined where
   * that makes no difference.
   */
  together?(body: () => void): void;
  /**
   * Every rank's value (JSON), in the order of the ranks, once all have called it. Waits as long as
   * all ranks live. Calls of one channel are in the same order on all ranks; those of different
   * channels need not be.
   */
  exchange<T>(value: T, channel?: string): Promise<readonly T[]>;
  /** Resolves when every rank is here. */
  barrier(): Promise<void>;
  /**
   * Ends the run on all ranks, and this process with `code`; the reason is shown with this rank's
   * name, unless the user has been `told`.
   */
  abort(reason: string, told: boolean, code: number): Promise<void>;
  /** After the last operation of every rank: waits for them all and leaves. */
  close(): Promise<void>;
}

/** Open MPI from native code: functions and handles, as addresses. */
export interface HostCalls {
  readonly functions: Readonly<Record<"iallreduce" | "iallgather" | "ialltoall" | "test", Address>>;
  readonly comms: Readonly<Record<Over, Address>>;
  readonly types: Readonly<Record<WireType, Address>>;
  readonly ops: Readonly<Record<ReduceOp, Address>>;
}

/** Ranks of the group, and the place of this one in it. */
export function groupOf(
  { rank, size, shards, replicas, shard, replica }: Grid,
  over: Over,
): { readonly rank: number; readonly size: number } {
  if (over === "shards") return { rank: shard, size: shards };
  return over === "replicas" ? { rank: replica, size: replicas } : { rank, size };
}

/**
 * The rows of a batch that this rank's replica trains on: a part of neighbours, so that the order
 * of all rows is the same for any number of replicas.
 */
export function rowsOfReplica(
  { replicas, replica }: Pick<Grid, "replicas" | "replica">,
  rows: number,
): { readonly first: number; readonly end: number } {
  return { first: Math.floor((replica * rows) / replicas), end: Math.floor(((replica + 1) * rows) / replicas) };
}

export function gridOf(rank: number, shards: number, replicas: number): Grid {
  return { rank, size: shards * replicas, shards, replicas, shard: rank % shards, replica: Math.floor(rank / shards) };
}

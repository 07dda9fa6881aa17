/**
 * NCCL, for ranks that compute on cards, called through koffi. Operations are queued on the
 * engine's stream and return at once, so what follows on the stream sees their result. The
 * algorithm is pinned: a run has the same bits each time on the same cards. A rank that is gone
 * leaves the others' streams waiting; the rendezvous notices it and ends the process.
 */

import { SaettaError } from "../util/errors.ts";
import {
  type Address,
  type Collective,
  type Elements,
  type Grid,
  groupOf,
  OVERS,
  type Over,
  type ReduceOp,
  type WireType,
} from "./collective.ts";

/** ncclDataType_t and ncclRedOp_t of nccl.h. */
const TYPES: Readonly<Record<WireType, number>> = { u8: 1, u32: 3, f32: 7, f64: 8 };
const OPS: Readonly<Record<ReduceOp, number>> = { sum: 0, max: 2, min: 3 };
const IN_PROGRESS = 7;
const ID_BYTES = 128;
/** Milliseconds between looks for what went wrong in the background. */
const LOOK = 1000;

/**
 * Set unless the user has set them: one algorithm and protocol, chosen neither by size nor by
 * measurement.
 */
const PINNED = { NCCL_ALGO: "Ring", NCCL_PROTO: "Simple", NCCL_NVLS_ENABLE: "0", NCCL_GRAPH_REGISTER: "0" } as const;

type Call = (...args: unknown[]) => number;

interface Functions {
  readonly getUniqueId: Call;
  readonly initRank: Call;
  readonly allReduce: Call;
  readonly reduceScatter: Call;
  readonly allGather: Call;
  readonly broadcast: Call;
  readonly groupStart: Call;
  readonly groupEnd: Call;
  readonly abort: Call;
  readonly destroy: Call;
  readonly asyncError: Call;
  readonly errorString: (code: number) => string;
}

export class Nccl {
  readonly #calls: Functions;
  readonly #grid: Grid;
  readonly #exchange: Collective["exchange"];
  readonly #comms = new Map<Over, Address>();
  #looking: NodeJS.Timeout | undefined;
  #failure: SaettaError | undefined;

  private constructor(calls: Functions, grid: Grid, exchange: Collective["exchange"]) {
    this.#calls = calls;
    this.#grid = grid;
    this.#exchange = exchange;
  }

  /**
   * Loads the library: $SAETTA_NCCL, else where the loader finds it. Throws SaettaError when it is
   * not there.
   */
  static async load(grid: Grid, exchange: Collective["exchange"], env: NodeJS.ProcessEnv): Promise<Nccl> {
    for (const [name, value] of Object.entries(PINNED)) env[name] ??= value;
    const { default: koffi } = await import("koffi");
    const path = env.SAETTA_NCCL || "libnccl.so.2";
    let library: ReturnType<typeof koffi.load>;
    try {
      library = koffi.load(path);
    } catch (cause) {
      throw new SaettaError("NCCL is needed to join several cards, and cannot be loaded", {
        where: path,
        mend: "install it (pip install nvidia-nccl-cu12), and name libnccl.so.2 in SAETTA_NCCL or its folder in LD_LIBRARY_PATH",
        cause,
      });
    }
    const id = koffi.struct({ internal: koffi.array("uint8_t", ID_BYTES) });
    const bind = (name: string, ...parameters: (string | typeof id)[]) => library.func(name, "int", parameters) as Call;
    const reduction = ["uint64_t", "uint64_t", "size_t", "int", "int", "uint64_t", "uint64_t"] as const;
    return new Nccl(
      {
        getUniqueId: bind("ncclGetUniqueId", "void *"),
        initRank: bind("ncclCommInitRank", "void *", "int", id, "int"),
        allReduce: bind("ncclAllReduce", ...reduction),
        reduceScatter: bind("ncclReduceScatter", ...reduction),
        allGather: bind("ncclAllGather", "uint64_t", "uint64_t", "size_t", "int", "uint64_t", "uint64_t"),
        broadcast: bind("ncclBroadcast", "uint64_t", "uint64_t", "size_t", "int", "int", "uint64_t", "uint64_t"),
        groupStart: bind("ncclGroupStart"),
        groupEnd: bind("ncclGroupEnd"),
        abort: bind("ncclCommAbort", "uint64_t"),
        destroy: bind("ncclCommDestroy", "uint64_t"),
        asyncError: bind("ncclCommGetAsyncError", "uint64_t", "void *"),
        errorString: library.func("ncclGetErrorString", "str", ["int"]) as (code: number) => string,
      },
      grid,
      exchange,
    );
  }

  /**
   * Makes the groups, with the card of this rank in use. The first rank of each group draws its id,
   * and the rendezvous tells it to all.
   */
  async connect(): Promise<void> {
    const groups = OVERS.filter((over) => sameAs(this.#grid, over) === over)
      .map((over) => ({ over, ...groupOf(this.#grid, over) }))
      .filter(({ size }) => size > 1);
    const mine = Object.fromEntries(
      groups.filter(({ rank }) => rank === 0).map(({ over }) => [over, this.#uniqueId()]),
    );
    const ids = await this.#exchange<Readonly<Partial<Record<Over, number[]>>>>(mine);
    for (const { over, rank, size } of groups) {
      const internal = ids[firstOf(this.#grid, over)]![over];
      const made = new BigUint64Array(1);
      this.#check("ncclCommInitRank", this.#calls.initRank(made, size, { internal }, rank));
      this.#comms.set(over, Number(made[0]));
    }
    this.#looking = setInterval(() => this.#look(), LOOK).unref();
  }

  allReduce(of: Elements, op: ReduceOp, over: Over, stream?: Address): void {
    const at = this.#at(of);
    const comm = this.#comm(over);
    if (comm !== undefined)
      this.#check(
        "ncclAllReduce",
        this.#calls.allReduce(at, at, of.count, TYPES[of.dtype], OPS[op], comm, stream ?? 0),
      );
  }

  reduceScatter(from: Elements, to: Elements, op: ReduceOp, over: Over, stream?: Address): void {
    const [source, target, comm] = [this.#at(from), this.#at(to), this.#comm(over)];
    if (comm === undefined) mustBeOne(source, target);
    else
      this.#check(
        "ncclReduceScatter",
        this.#calls.reduceScatter(source, target, to.count, TYPES[to.dtype], OPS[op], comm, stream ?? 0),
      );
  }

  allGather(from: Elements, to: Elements, over: Over, stream?: Address): void {
    const [source, target, comm] = [this.#at(from), this.#at(to), this.#comm(over)];
    if (comm === undefined) mustBeOne(source, target);
    else
      this.#check(
        "ncclAllGather",
        this.#calls.allGather(source, target, from.count, TYPES[from.dtype], comm, stream ?? 0),
      );
  }

  broadcast(of: Elements, root: number, over: Over, stream?: Address): void {
    const at = this.#at(of);
    const comm = this.#comm(over);
    if (comm !== undefined)
      this.#check("ncclBroadcast", this.#calls.broadcast(at, at, of.count, TYPES[of.dtype], root, comm, stream ?? 0));
  }

  /** Operations that are called in `body` become one launch. */
  together(body: () => void): void {
    this.#check("ncclGroupStart", this.#calls.groupStart());
    try {
      body();
    } finally {
      this.#check("ncclGroupEnd", this.#calls.groupEnd());
    }
  }

  /** After the last operation on the stream is done. */
  async close(): Promise<void> {
    clearInterval(this.#looking);
    for (const comm of this.#comms.values()) this.#calls.destroy(comm);
    this.#comms.clear();
  }

  #uniqueId(): number[] {
    const id = new Uint8Array(ID_BYTES);
    this.#check("ncclGetUniqueId", this.#calls.getUniqueId(id));
    return [...id];
  }

  /** Undefined where the group is this rank alone. */
  #comm(over: Over): Address | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const comm = this.#comms.get(sameAs(this.#grid, over));
    if (comm === undefined && groupOf(this.#grid, over).size > 1)
      throw new RangeError("the ranks have not been put into groups");
    return comm;
  }

  #at({ at }: Elements): Address {
    if (typeof at !== "number") throw new RangeError("NCCL moves what is on a card");
    return at;
  }

  /**
   * What went wrong in the background ends the waiting of the streams, and is thrown by the next
   * operation.
   */
  #look(): void {
    const code = new Int32Array(1);
    for (const comm of this.#comms.values()) {
      if (this.#calls.asyncError(comm, code) === 0 && (code[0] === 0 || code[0] === IN_PROGRESS)) continue;
      this.#failure ??= new SaettaError(`NCCL: ${this.#calls.errorString(code[0]!)}`, {
        mend: "NCCL_DEBUG=INFO tells more",
      });
      clearInterval(this.#looking);
      for (const each of this.#comms.values()) this.#calls.abort(each);
      this.#comms.clear();
      return;
    }
  }

  #check(what: string, code: number): void {
    if (code !== 0 && code !== IN_PROGRESS) {
      throw new SaettaError(`${what}: ${this.#calls.errorString(code)}`, {
        where: "NCCL",
        mend: "NCCL_DEBUG=INFO tells more",
      });
    }
  }
}

/** A grid of one row or one column has one group of several ranks, and one communicator. */
function sameAs(grid: Grid, over: Over): Over {
  return groupOf(grid, over).size === grid.size ? "all" : over;
}

/** The rank of all ranks that is the first of this one's group. */
function firstOf({ shards, shard, replica }: Grid, over: Over): number {
  if (over === "all") return 0;
  return over === "shards" ? replica * shards : shard;
}

function mustBeOne(source: Address, target: Address): void {
  if (source !== target) throw new RangeError("one rank has no parts to put together");
}

/**
 * Open MPI, for ranks that compute on processors, called through koffi. The library's handles are
 * the addresses of its symbols, so nothing is compiled. Every operation is a non-blocking one that
 * is polled with a deadline: a rank that is gone or stopped would block MPI_Allreduce for ever.
 * `host` gives the same functions to the cpu engine, whose stream calls them from its own thread;
 * the event loop is never held up by a collective of that engine. The reference engine computes at
 * the call and so waits at the call.
 */

import { SaettaError } from "../util/errors.ts";
import {
  type Elements,
  type Grid,
  groupOf,
  type HostCalls,
  OVERS,
  type Over,
  type ReduceOp,
  WIRE_BYTES,
  type WireType,
} from "./collective.ts";

const LIBRARIES = ["libmpi.so.40", "libmpi.so", "libmpi.40.dylib", "libmpi.dylib"];
const IN_PLACE = 1; // (void *) 1 in mpi.h of Open MPI
const THREAD_MULTIPLE = 3;
/** Elements of one operation: MPI counts in int. */
const MOST = 2 ** 28;

/** Milliseconds of polling without naps, and polls between two looks at the clock. */
const EAGER = 0.2;
const POLLS = 32;
const NAP = new Int32Array(new SharedArrayBuffer(4));

const TYPES: Readonly<Record<WireType, string>> = {
  f64: "ompi_mpi_double",
  f32: "ompi_mpi_float",
  u32: "ompi_mpi_uint32_t",
  u8: "ompi_mpi_byte",
};
const OPS: Readonly<Record<ReduceOp, string>> = {
  sum: "ompi_mpi_op_sum",
  max: "ompi_mpi_op_max",
  min: "ompi_mpi_op_min",
};

type Call = (...args: (number | Uint8Array | Int32Array | BigUint64Array | null)[]) => number;

interface Functions {
  init: Call;
  split: Call;
  iallreduce: Call;
  ireduceScatter: Call;
  iallgather: Call;
  ialltoall: Call;
  ibcast: Call;
  test: Call;
  finalize: Call;
}

/** p an address, i an int, b memory of JavaScript. */
const SIGNATURES: { readonly [K in keyof Functions]: string } = {
  init: "MPI_Init_thread p p i b",
  split: "MPI_Comm_split p i i b",
  iallreduce: "MPI_Iallreduce p p i p p p b",
  ireduceScatter: "MPI_Ireduce_scatter_block p p i p p p b",
  iallgather: "MPI_Iallgather p i p p i p p b",
  ialltoall: "MPI_Ialltoall p i p p i p p b",
  ibcast: "MPI_Ibcast p i p i p b",
  test: "MPI_Test b b p",
  finalize: "MPI_Finalize",
};
const KOFFI_TYPES: Readonly<Record<string, string>> = { p: "uint64_t", i: "int", b: "void *" };

/** What of MPI a collective is made of. Its control is elsewhere. */
export class Mpi {
  readonly #calls: Functions;
  /** Of a symbol of the library. */
  readonly #address: (symbol: string) => number;
  /** Of memory of JavaScript. */
  readonly #of: (memory: Uint8Array) => number;
  readonly #world: number;
  readonly #deadline: number;
  #groups: Readonly<Record<Over, number>> | undefined;
  #grid: Grid | undefined;

  private constructor(
    calls: Functions,
    address: (symbol: string) => number,
    of: (memory: Uint8Array) => number,
    deadline: number,
  ) {
    this.#calls = calls;
    this.#address = address;
    this.#of = of;
    this.#world = address("ompi_mpi_comm_world");
    this.#deadline = deadline;
  }

  /**
   * Loads the library and joins the other ranks. Throws SaettaError when it is not there or is none
   * that is understood. `deadline` in seconds.
   */
  static async init(deadline: number): Promise<Mpi> {
    const { default: koffi } = await import("koffi");
    const library = load(koffi.load);
    const dlsym = koffi.load(null).func("uint64_t dlsym(uint64_t handle, const char *name)");
    const address = (symbol: string): number => {
      const found = Number(dlsym(0, symbol));
      if (found !== 0) return found;
      throw new SaettaError(`has no ${symbol}, so it is not Open MPI`, {
        where: "libmpi",
        mend: "install Open MPI (Debian: openmpi-bin)",
      });
    };
    const calls = Object.fromEntries(
      Object.entries(SIGNATURES).map(([name, signature]) => {
        const [symbol, ...words] = signature.split(" ");
        const parameters = words.map((word) => KOFFI_TYPES[word]!);
        return [name, library.func(symbol!, "int", parameters) as Call];
      }),
    ) as unknown as Functions;
    const mpi = new Mpi(calls, address, (memory) => Number(koffi.address(memory)), deadline);
    const provided = new Int32Array(1);
    check("MPI_Init_thread", calls.init(0, 0, THREAD_MULTIPLE, provided));
    if (provided[0]! < THREAD_MULTIPLE) {
      throw new SaettaError("was built without threads", {
        where: "libmpi",
        mend: "install an Open MPI with MPI_THREAD_MULTIPLE",
      });
    }
    return mpi;
  }

  /** What rank 0 of all ranks gives, as text; before there are groups. */
  tell(rank: number, text: string): string {
    const bytes = new Uint8Array(4096);
    if (rank === 0) new TextEncoder().encodeInto(text, bytes);
    const at = this.#of(bytes);
    this.#wait("the first broadcast", (request) =>
      this.#calls.ibcast(at, bytes.length, this.#address(TYPES.u8), 0, this.#world, request),
    );
    return new TextDecoder().decode(bytes).replace(/\0+$/, "");
  }

  /** Makes the groups of the grid. */
  join(grid: Grid): void {
    const split = (color: number, key: number) => {
      const made = new BigUint64Array(1);
      check("MPI_Comm_split", this.#calls.split(this.#world, color, key, made));
      return Number(made[0]);
    };
    this.#grid = grid;
    this.#groups = {
      shards: split(grid.replica, grid.shard),
      replicas: split(grid.shard, grid.replica),
      all: this.#world,
    };
  }

  get host(): HostCalls {
    const named = <K extends string>(names: Readonly<Record<K, string>>) =>
      Object.fromEntries(
        Object.entries<string>(names).map(([name, symbol]) => [name, this.#address(symbol)]),
      ) as Record<K, number>;
    return {
      functions: named({
        ...{ iallreduce: "MPI_Iallreduce", iallgather: "MPI_Iallgather", ialltoall: "MPI_Ialltoall" },
        test: "MPI_Test",
      }),
      comms: Object.fromEntries(OVERS.map((over) => [over, this.#comm(over)])) as Record<Over, number>,
      types: named(TYPES),
      ops: named(OPS),
    };
  }

  allReduce(of: Elements, op: ReduceOp, over: Over): void {
    const [comm, type, kind] = [this.#comm(over), this.#address(TYPES[of.dtype]), this.#address(OPS[op])];
    for (const [at, count] of pieces(this.#at(of), of)) {
      this.#wait(`all-reduce over ${over}`, (request) =>
        this.#calls.iallreduce(IN_PLACE, at, count, type, kind, comm, request),
      );
    }
  }

  reduceScatter(from: Elements, to: Elements, op: ReduceOp, over: Over): void {
    const [comm, type, kind] = [this.#comm(over), this.#address(TYPES[to.dtype]), this.#address(OPS[op])];
    fits(to);
    const [source, target] = [this.#at(from), this.#at(to)];
    // MPI has no reduce-scatter that leaves the part where it is.
    if (target === this.#partOf(source, to, over)) {
      this.allReduce(from, op, over);
      return;
    }
    this.#wait(`reduce-scatter over ${over}`, (request) =>
      this.#calls.ireduceScatter(source, target, to.count, type, kind, comm, request),
    );
  }

  allGather(from: Elements, to: Elements, over: Over): void {
    const [comm, type] = [this.#comm(over), this.#address(TYPES[from.dtype])];
    fits(to);
    const target = this.#at(to);
    const source = this.#at(from) === this.#partOf(target, from, over) ? IN_PLACE : this.#at(from);
    this.#wait(`all-gather over ${over}`, (request) =>
      this.#calls.iallgather(source, from.count, type, target, from.count, type, comm, request),
    );
  }

  allToAll(from: Elements, to: Elements, over: Over): void {
    const [comm, type] = [this.#comm(over), this.#address(TYPES[from.dtype])];
    fits(to);
    const each = to.count / groupOf(this.#grid!, over).size;
    this.#wait(`all-to-all over ${over}`, (request) =>
      this.#calls.ialltoall(this.#at(from), each, type, this.#at(to), each, type, comm, request),
    );
  }

  broadcast(of: Elements, root: number, over: Over): void {
    const [comm, type] = [this.#comm(over), this.#address(TYPES[of.dtype])];
    for (const [at, count] of pieces(this.#at(of), of)) {
      this.#wait(`broadcast over ${over}`, (request) => this.#calls.ibcast(at, count, type, root, comm, request));
    }
  }

  /** After the last operation of every rank. */
  finalize(): void {
    this.#calls.finalize();
  }

  #comm(over: Over): number {
    if (this.#groups === undefined) throw new RangeError("the ranks have not been put into groups");
    return this.#groups[over];
  }

  /** Where this rank's part begins, of those of all ranks from `at` on. */
  #partOf(at: number, { count, dtype }: Elements, over: Over): number {
    return at + (this.#grid === undefined ? 0 : groupOf(this.#grid, over).rank) * count * WIRE_BYTES[dtype];
  }

  #at({ at }: Elements): number {
    return typeof at === "number" ? at : this.#of(at);
  }

  /** Starts an operation and polls it to its end. */
  #wait(what: string, start: (request: Uint8Array) => number): void {
    // An ArrayBuffer of its own does not move; MPI keeps no address of the request, only what is in
    // it.
    const request = new Uint8Array(new ArrayBuffer(8));
    const flag = new Int32Array(new ArrayBuffer(4));
    check(what, start(request));
    const began = performance.now();
    for (;;) {
      for (let polls = 0; polls < POLLS; polls++) {
        check(what, this.#calls.test(request, flag, 0));
        if (flag[0] !== 0) return;
      }
      const waited = performance.now() - began;
      // Other ranks may need this processor to get here.
      if (waited > EAGER) Atomics.wait(NAP, 0, 0, 0.05);
      if (waited > 1000 * this.#deadline) throw tooLate(what, this.#deadline);
    }
  }
}

export function tooLate(what: string, deadline: number): SaettaError {
  return new SaettaError(`${what}: not every rank came within ${deadline} s`, {
    mend: "look at the other ranks' messages; SAETTA_DEADLINE sets the seconds",
  });
}

function load<T>(open: (path: string, options: { global: boolean }) => T): T {
  let cause: unknown;
  for (const name of LIBRARIES) {
    try {
      // Open MPI loads parts of itself later, which look for its symbols among all.
      return open(name, { global: true });
    } catch (error) {
      cause = error;
    }
  }
  throw new SaettaError("Open MPI is needed to join ranks that compute on processors, and libmpi is not found", {
    mend: "install it (Debian: openmpi-bin)",
    cause,
  });
}

function check(what: string, code: number): void {
  if (code !== 0) throw new SaettaError(`${what} failed in MPI (error ${code})`);
}

function fits({ count }: Elements): void {
  if (count > MOST) throw new RangeError(`${count} elements are more than the ${MOST} of one operation`);
}

/** [address, count] of each operation. */
function pieces(at: number, { count, dtype }: Elements): [number, number][] {
  return Array.from({ length: Math.ceil(count / MOST) }, (_, i) => [
    at + i * MOST * WIRE_BYTES[dtype],
    Math.min(MOST, count - i * MOST),
  ]);
}

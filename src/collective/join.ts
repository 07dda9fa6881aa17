/** This process among the others: from what the environment says to a collective. */

import { hostname, networkInterfaces } from "node:os";
import { SaettaError } from "../util/errors.ts";
import type { Collective } from "./collective.ts";
import { chooseGrid, deadlineOf, type LaunchEnv } from "./launch-env.ts";
import { Mpi } from "./mpi.ts";
import { Nccl } from "./nccl.ts";
import { Rendezvous } from "./rendezvous.ts";

/** Seconds in which all ranks must have come. Pods and jobs can start minutes apart. */
const PATIENCE = 600;
/** A share of the deadline that a collective waits; what is left is for ending. */
const WAIT = 0.8;

export interface Asked {
  readonly shards?: number | undefined;
  readonly replicas?: number | undefined;
  /** What moves the engine's numbers: NCCL between cards, Open MPI between processors. */
  readonly kind: "nccl" | "mpi";
}

/**
 * Joins the other ranks. Throws UsageError when the grid does not fit, SaettaError when a part is
 * missing or the others do not come.
 */
export async function join(
  launched: LaunchEnv,
  asked: Asked,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Collective> {
  const { rank, size, launcher } = launched;
  const grid = chooseGrid(rank, size, asked);
  const deadline = deadlineOf(env);
  const started = env.SAETTA_HUB; // "host:port" of the process that started the ranks
  if (asked.kind === "mpi" && launcher !== "mpirun" && env.PMIX_RANK === undefined && env.PMI_RANK === undefined) {
    throw new SaettaError("ranks that compute on processors are joined by Open MPI, which did not start them", {
      mend: "start them with mpirun, with srun --mpi=pmix, or with --nproc on one host",
    });
  }
  const mpi =
    asked.kind === "mpi" || (started === undefined && launched.master === undefined)
      ? await Mpi.init(WAIT * deadline)
      : undefined;
  const here = rank === 0 && started === undefined;
  const rendezvous = await Rendezvous.open({
    rank,
    size,
    token: launched.token,
    deadline,
    patience: PATIENCE,
    // Where MPI tells the others, any port will do.
    listen: here ? (mpi !== undefined && !env.SAETTA_PORT ? 0 : (launched.master?.port ?? 0)) : undefined,
    hub: started === undefined ? "rank 0" : "the process that started the ranks",
  });
  await rendezvous.connect(...address(launched, started, rendezvous.port, mpi));
  mpi?.join(grid);
  const barrier = async () => {
    await rendezvous.exchange(null);
  };
  const about = {
    grid,
    deadline: WAIT * deadline,
    exchange: <T>(value: T, channel?: string) => rendezvous.exchange(value, channel),
    barrier,
    abort: (text: string, told: boolean, code: number) => rendezvous.fail(text, told, code),
  };
  const leave = async () => {
    await barrier();
    mpi?.finalize();
    await rendezvous.leave();
  };
  if (asked.kind === "nccl") {
    const nccl = await Nccl.load(grid, about.exchange, env);
    return {
      kind: "nccl",
      ...about,
      ...operationsOf(nccl),
      together: (body) => nccl.together(body),
      ready: () => nccl.connect(),
      close: () => nccl.close().then(leave),
    };
  }
  return { kind: "mpi", ...about, ...operationsOf(mpi!), host: mpi!.host, ready: async () => undefined, close: leave };
}

type Operations = Pick<Collective, "allReduce" | "reduceScatter" | "allGather" | "broadcast" | "allToAll">;

function operationsOf(library: Operations): Operations {
  return {
    allReduce: (of, op, over, stream) => library.allReduce(of, op, over, stream),
    reduceScatter: (from, to, op, over, stream) => library.reduceScatter(from, to, op, over, stream),
    allGather: (from, to, over, stream) => library.allGather(from, to, over, stream),
    ...(library.allToAll === undefined ? {} : { allToAll: library.allToAll.bind(library) }),
    broadcast: (of, root, over, stream) => library.broadcast(of, root, over, stream),
  };
}

/** Hosts and port of the hub. Where nobody has given them, MPI tells them to all. */
function address(
  launched: LaunchEnv,
  started: string | undefined,
  port: number,
  mpi: Mpi | undefined,
): [hosts: readonly string[], port: number] {
  if (started !== undefined) {
    const at = started.lastIndexOf(":");
    return [[started.slice(0, at)], Number(started.slice(at + 1))];
  }
  if (launched.master !== undefined && mpi === undefined)
    return [[launched.rank === 0 ? "localhost" : launched.master.host], launched.master.port];
  const addresses = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).filter(({ internal }) => !internal).map((each) => each.address),
  );
  const mine = JSON.stringify({ host: hostname(), hosts: [...new Set([hostname(), ...addresses])].slice(0, 16), port });
  const first = JSON.parse(mpi!.tell(launched.rank, mine)) as { host: string; hosts: string[]; port: number };
  return [first.host === hostname() ? ["127.0.0.1", ...first.hosts] : first.hosts, first.port];
}

/**
 * Which of how many processes this is: what torchrun, mpirun, srun and Kubernetes say in the
 * environment, and the grid that the ranks make up.
 */

import { UsageError } from "../util/errors.ts";
import { mustBe, numberInWords } from "../util/must.ts";
import { type Grid, gridOf } from "./collective.ts";

export interface LaunchEnv {
  readonly rank: number;
  readonly size: number;
  /** Among the ranks of this host: which card is this one's. */
  readonly localRank: number;
  /** Ranks of this host; undefined where nobody says. */
  readonly localSize: number | undefined;
  /** Who started it, for people. */
  readonly launcher: string;
  /**
   * Where rank 0 listens; undefined under Open MPI, which carries the address itself, when nobody
   * gave one.
   */
  readonly master: { readonly host: string; readonly port: number } | undefined;
  /** Tells apart runs that meet at the same port by accident. */
  readonly token: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Names of rank, size, local rank and local size, and whose they are. The first that is there is
 * believed.
 */
const LAUNCHERS = [
  [
    "mpirun",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
  ],
  ["the environment", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"],
  // SLURM_NTASKS is also set in a batch script, where no other task runs.
  ["srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""],
] as const;

/** More are surely a slip of the hand: each is a process. */
export const MAX_RANKS = 1024;

/** PyTorch's. */
const DEFAULT_PORT = 29500;

/**
 * What the environment says; undefined for a process that was started alone. Throws UsageError for
 * what contradicts itself.
 */
export function launchEnvOf(env: Environment): LaunchEnv | undefined {
  for (const [launcher, rankName, sizeName, localRankName, localSizeName] of LAUNCHERS) {
    if (env[rankName] === undefined || env[sizeName] === undefined) continue;
    const [rank, size] = [whole(env, rankName), whole(env, sizeName)];
    if (size < 1 || rank >= size)
      throw new UsageError(mustBe(rankName, `below ${sizeName}, which is ${size}`, rank), { where: "environment" });
    if (size === 1) return undefined;
    const localRank = env[localRankName] === undefined ? 0 : whole(env, localRankName);
    const localSize = env[localSizeName] === undefined ? undefined : whole(env, localSizeName);
    const token = env.SAETTA_TOKEN ?? env.TORCHELASTIC_RUN_ID ?? env.SLURM_JOB_ID ?? "";
    return { rank, size, localRank, localSize, launcher, master: masterOf(env, launcher), token };
  }
  return undefined;
}

function masterOf(env: Environment, launcher: string): LaunchEnv["master"] {
  const host = env.MASTER_ADDR || (launcher === "srun" ? firstNode(env.SLURM_STEP_NODELIST) : undefined);
  if (host === undefined) {
    if (launcher === "mpirun") return undefined;
    throw new UsageError("RANK and WORLD_SIZE are set, but not MASTER_ADDR", {
      where: "environment",
      mend: "set MASTER_ADDR to the host of rank 0, and MASTER_PORT to a free port there",
    });
  }
  const port = env.SAETTA_PORT ? whole(env, "SAETTA_PORT") : env.MASTER_PORT ? whole(env, "MASTER_PORT") : DEFAULT_PORT;
  // torchrun's own store listens on MASTER_PORT.
  const taken = env.TORCHELASTIC_RUN_ID !== undefined && !env.SAETTA_PORT;
  return { host, port: taken ? port + 1 : port };
}

/** "node[03-05,9],other" -> "node03". */
function firstNode(list: string | undefined): string | undefined {
  const found = /^([^[,]+)(?:\[(\d+))?/.exec(list ?? "");
  return found === null ? undefined : `${found[1]}${found[2] ?? ""}`;
}

function whole(env: Environment, name: string): number {
  const text = env[name] ?? "";
  if (!/^\d{1,9}$/.test(text))
    throw new UsageError(mustBe(name, numberInWords({ least: 0 }, "whole number"), text), { where: "environment" });
  return Number(text);
}

/** Seconds in which a rank that is gone or hangs ends the run. */
export function deadlineOf(env: Environment): number {
  const text = env.SAETTA_DEADLINE;
  if (text === undefined || text === "") return 30;
  const seconds = Number(text);
  if (!(seconds >= 1 && seconds <= 86_400))
    throw new UsageError(mustBe("SAETTA_DEADLINE", "a number from 1 to 86400 (seconds)", text), {
      where: "environment",
    });
  return seconds;
}

/**
 * The grid of `size` ranks: what is not asked for is the rest, replicas first. Throws UsageError
 * with the numbers when they do not fit.
 */
export function chooseGrid(
  rank: number,
  size: number,
  asked: { readonly shards?: number | undefined; readonly replicas?: number | undefined },
): Grid {
  const shards = asked.shards ?? (asked.replicas === undefined ? 1 : size / asked.replicas);
  const replicas = asked.replicas ?? size / shards;
  if (!Number.isInteger(shards) || !Number.isInteger(replicas) || shards * replicas !== size) {
    const words = [
      asked.shards === undefined ? "" : `--shards ${asked.shards}`,
      asked.replicas === undefined ? "" : `--replicas ${asked.replicas}`,
    ];
    throw new UsageError(`${words.filter(Boolean).join(" and ")} do not make up ${size} rank${size === 1 ? "" : "s"}`, {
      mend: "start shards x replicas processes",
    });
  }
  return gridOf(rank, shards, replicas);
}

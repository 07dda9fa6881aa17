/**
 * `--nproc`: ranks on this host, started and watched over by this process. Ranks that compute on
 * cards are its children; those that compute on processors are mpirun's, which Open MPI needs. This
 * process is the hub of their rendezvous, so it knows which of them is gone; and they end when it
 * does.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import type { Readable } from "node:stream";
import { hasCode, messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { EXIT_CODES, onSignals } from "../util/signals.ts";
import { Hub } from "./hub.ts";
import { chooseGrid, deadlineOf, type LaunchEnv, MAX_RANKS } from "./launch-env.ts";

/** Seconds in which the ranks of one host must have come. */
const PATIENCE = 300;
/** Milliseconds after which ranks are told again to save and end. */
const AGAIN = 1000;
/**
 * Milliseconds in which ranks that were told to end do so, and then in which mpirun ends them; it
 * is killed after that.
 */
const GRACE = 1500;

/**
 * How many ranks are to be started here; 1: this process is the only one. Throws UsageError where
 * somebody else has started them.
 */
export function ranksToStart(
  asked: {
    readonly nproc?: number | undefined;
    readonly shards?: number | undefined;
    readonly replicas?: number | undefined;
  },
  launched: LaunchEnv | undefined,
  env: NodeJS.ProcessEnv = process.env,
): number {
  if (launched !== undefined) {
    // The ranks that are started here are given the same arguments.
    if (asked.nproc !== undefined && env.SAETTA_HUB === undefined)
      throw new UsageError(`--nproc starts ranks, but ${launched.launcher} has started ${launched.size} already`, {
        mend: "leave out --nproc",
      });
    return 1;
  }
  const { shards, replicas } = asked;
  const ranks = asked.nproc ?? (shards ?? 1) * (replicas ?? 1);
  if (ranks > MAX_RANKS)
    throw new UsageError(
      `--shards x --replicas is ${ranks} ranks, more than the ${MAX_RANKS} that one host may start`,
      {
        mend: "lower one of them",
      },
    );
  chooseGrid(0, ranks, asked);
  return ranks;
}

/**
 * Starts `ranks` processes of this program with the same arguments and waits for them. Resolves to
 * the exit code.
 */
export async function launch(ranks: number, kind: "nccl" | "mpi", argv: readonly string[]): Promise<number> {
  let failed: string | undefined;
  const token = randomBytes(8).toString("hex");
  const over = deferred();
  const hub = await Hub.open(
    {
      size: ranks,
      token,
      deadline: deadlineOf(process.env),
      patience: PATIENCE,
      onEnd: (text, told) => {
        failed ??= text;
        if (!told) process.stderr.write(`saetta: ${text}\n`);
        over.resolve();
      },
    },
    0,
  );
  const env = { ...process.env, SAETTA_HUB: `127.0.0.1:${hub.port}`, SAETTA_TOKEN: token };
  const children =
    kind === "mpi"
      ? [underMpirun(ranks, argv, env)]
      : Array.from({ length: ranks }, (_, rank) => alone(rank, ranks, argv, env));
  const ended = Promise.all(children.map(exitCodeOf));
  for (const { stderr } of children) if (stderr !== null) relay(stderr, () => failed !== undefined);
  const signals = forward(children);
  try {
    const codes = await Promise.race([ended, over.promise.then(() => undefined)]);
    if (codes === undefined || codes.some((code) => code !== 0)) {
      await endAll(children, ended, hub);
      const code = (await ended).find((each) => each !== 0) ?? 0;
      return failed === undefined && signals.code() !== undefined ? signals.code()! : code > 0 && code < 128 ? code : 1;
    }
    return signals.code() ?? 0;
  } finally {
    signals.close();
    await hub.close();
  }
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

function alone(rank: number, ranks: number, argv: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const place = {
    RANK: `${rank}`,
    WORLD_SIZE: `${ranks}`,
    LOCAL_RANK: `${rank}`,
    LOCAL_WORLD_SIZE: `${ranks}`,
    MASTER_ADDR: "127.0.0.1",
  };
  return spawn(process.execPath, argv, { env: { ...env, ...place }, stdio: "inherit", detached: true });
}

/** In a session of its own: a Ctrl-C would make mpirun kill the ranks before they have saved. */
function underMpirun(ranks: number, argv: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
  const root = process.getuid?.() === 0 ? ["--allow-run-as-root"] : [];
  const words = [
    "--oversubscribe",
    "--bind-to",
    "none",
    "--quiet",
    ...root,
    "-np",
    `${ranks}`,
    process.execPath,
    ...argv,
  ];
  return spawn("mpirun", words, { env, stdio: ["ignore", "inherit", "pipe"], detached: true });
}

/**
 * What ranks write. Once one is gone mpirun has much to say of it, but the line that tells it is
 * out.
 */
function relay(from: Readable, failed: () => boolean): void {
  let line = "";
  from.setEncoding("utf8").on("data", (text: string) => {
    if (!failed()) process.stderr.write(text);
    const lines = `${line}${text}`.split("\n");
    line = lines.pop() ?? "";
    if (failed()) for (const each of lines) if (each.startsWith("saetta: ")) process.stderr.write(`${each}\n`);
  });
}

function exitCodeOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once("error", (cause) => {
      const missing = hasCode(cause, "ENOENT");
      reject(
        new SaettaError(
          missing
            ? "Open MPI is needed to join ranks that compute on processors, and mpirun is not found"
            : messageOf(cause),
          {
            mend: "install it (Debian: openmpi-bin)",
            cause,
          },
        ),
      );
    });
    child.once("exit", (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  });
}

/** The first signal lets the ranks save and end, the second ends them. */
function forward(children: readonly ChildProcess[]): {
  readonly code: () => number | undefined;
  readonly close: () => void;
} {
  let code: number | undefined;
  let repeated: NodeJS.Timeout | undefined;
  // mpirun passes SIGUSR1 on; at the others it would kill.
  const save = () => {
    for (const child of children) child.kill("SIGUSR1");
  };
  const close = onSignals((name) => {
    if (code !== undefined && name !== "SIGUSR1") for (const child of children) child.kill("SIGTERM");
    code ??= EXIT_CODES[name];
    save();
    // A rank that still starts does not hear it; one that has heard it takes no notice of more.
    repeated ??= setInterval(save, AGAIN);
  });
  return {
    code: () => code,
    close: () => {
      clearInterval(repeated);
      close();
    },
  };
}

/** Ends what is left of the ranks, also those that are stopped. */
async function endAll(children: readonly ChildProcess[], ended: Promise<unknown>, hub: Hub): Promise<void> {
  const steps = [
    setTimeout(() => {
      for (const child of children) child.kill("SIGTERM");
    }, GRACE),
    setTimeout(() => {
      for (const { host, pid } of hub.processes) if (host === hostname()) kill(pid);
      for (const { pid } of children) if (pid !== undefined) kill(-pid);
    }, 2 * GRACE),
  ];
  await ended;
  for (const step of steps) clearTimeout(step);
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has ended
  }
}

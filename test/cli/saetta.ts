/** Runs the built command as people do. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { CHILD_MS } from "../support/limits.ts";

export const CLI = fileURLToPath(new URL("../../dist/cli.js", import.meta.url));

/** Every command, as people should see them listed. */
export const COMMANDS = [
  "harvest",
  "train",
  "resume",
  "ls",
  "eval",
  "encode",
  "export",
  "import",
  "push",
  "report",
  "label",
  "compare",
  "inspect",
  "serve",
  "verify",
  "doctor",
  "bench",
  "python-path",
  "completion",
];

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  readonly child: ChildProcess;
  /** Resolves when it has written this to stdout or stderr; rejects when it ended before. */
  says(text: string): Promise<void>;
  readonly ended: Promise<Ended>;
}

/** Starts `saetta` with the arguments, in the folder `cwd`; `env` is added to the environment. */
export function start(
  cwd: string,
  ...words: readonly [Readonly<Record<string, string>>, ...string[]] | readonly string[]
): Running {
  const [first] = words;
  const [env, args] = typeof first === "object" ? [first, words.slice(1) as string[]] : [{}, words as string[]];
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: CHILD_MS,
    killSignal: "SIGKILL",
  });
  let out = "";
  let err = "";
  const listeners = new Set<() => void>();
  const tell = () => {
    for (const listener of listeners) listener();
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
    tell();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
    tell();
  });
  const ended = once(child, "close").then(([code]) => ({ code: code as number | null, out, err }));
  const says = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!`${out}\n${err}`.includes(text)) return;
        listeners.delete(look);
        resolve();
      };
      listeners.add(look);
      look();
      ended.then(() => reject(new Error(`ended without saying ${text}: ${out}${err}`)), reject);
    });
  return { child, says, ended };
}

export function saetta(cwd: string, ...args: string[]): Promise<Ended> {
  return start(cwd, ...args).ended;
}

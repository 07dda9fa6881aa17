/** Ranks under Open MPI, for the tests. */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { whyNoCpu } from "../support/engines.ts";

export const WORKER = fileURLToPath(new URL("worker.mjs", import.meta.url));

/** Why ranks cannot be tested here; undefined when they can. */
export function whyNoRanks(): string | undefined {
  if (spawnSync("mpirun", ["--version"]).status !== 0) return "no Open MPI: mpirun does not run (Debian: openmpi-bin)";
  return whyNoCpu();
}

export type GridSize = readonly [shards: number, replicas: number];

/** Under mpirun as root, which refuses that unless it is told. */
export function mpirun(ranks: number): string[] {
  const root = process.getuid?.() === 0 ? ["--allow-run-as-root"] : [];
  return [...root, "--oversubscribe", "--bind-to", "none", "-np", `${ranks}`];
}

/** What each rank of the worker has found, for each engine. */
export async function work<T>(
  what: string,
  engines: string,
  [shards, replicas]: GridSize,
  env?: NodeJS.ProcessEnv,
): Promise<Record<string, T>[]> {
  const out = await mkdtemp(join(tmpdir(), "saetta-grid-"));
  try {
    const ranks = shards * replicas;
    const words = [WORKER, what, engines, `${shards}`, `${replicas}`, out];
    const options = { env: { ...process.env, ...env } };
    const child =
      ranks === 1
        ? spawn(process.execPath, words, options)
        : spawn("mpirun", [...mpirun(ranks), process.execPath, ...words], options);
    let said = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said += text;
      });
    }
    const [code] = (await once(child, "close")) as [number | null];
    const files = Array.from({ length: ranks }, (_, rank) => join(out, `rank-${rank}.json`));
    if (code !== 0 || !files.every((file) => existsSync(file)))
      throw new Error(`the ranks ended with ${code}: ${said}`);
    return await Promise.all(files.map(async (file) => JSON.parse(await readFile(file, "utf8")) as Record<string, T>));
  } finally {
    await rm(out, { recursive: true });
  }
}

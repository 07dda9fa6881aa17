/**
 * A command as one process, or as one of several ranks: it starts them, or joins them, or is alone.
 */

import type { Collective } from "../collective/collective.ts";
import type { LaunchEnv } from "../collective/launch-env.ts";
import { solo } from "../collective/solo.ts";
import type { TrainOptions } from "../config.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";

export interface Ranks {
  readonly nproc?: number | undefined;
  readonly shards?: number | undefined;
  readonly replicas?: number | undefined;
  readonly engine?: TrainOptions["engine"];
}

/**
 * Runs `body` in every rank. In the process that has started them it is not run; the exit code is
 * theirs.
 */
export async function inRanks(asked: Ranks, body: (collective: Collective) => Promise<void>): Promise<void> {
  const { launchEnvOf } = await import("../collective/launch-env.ts");
  const launched = launchEnvOf(process.env);
  const { launch, ranksToStart } = await import("../collective/launch.ts");
  const ranks = await onceSaid(launched, async () => ranksToStart(asked, launched));
  if (launched === undefined && ranks === 1) return body(solo());
  const { collectiveKind } = await import("../engine/select.ts");
  const kind = await collectiveKind(asked.engine ?? "auto");
  if (launched === undefined) {
    process.exitCode = await launch(ranks, kind, process.argv.slice(1));
    return;
  }
  const { join } = await import("../collective/join.ts");
  const collective = await onceSaid(launched, () => join(launched, { ...asked, kind }));
  try {
    await body(collective);
    await collective.close();
  } catch (thrown) {
    await giveUp(collective, thrown);
  }
}

/** Throws UsageError where several ranks would train a sweep. */
export async function checkAlone(nproc: number | undefined): Promise<void> {
  const { launchEnvOf } = await import("../collective/launch-env.ts");
  if ((launchEnvOf(process.env)?.size ?? nproc ?? 1) === 1) return;
  throw new UsageError("a sweep trains in one process, not in several ranks", {
    mend: "leave out --nproc, or train the autoencoders one by one",
  });
}

/** What makes no sense makes none in any rank; the first says so. */
function onceSaid<T>(launched: LaunchEnv | undefined, attempt: () => Promise<T>): Promise<T> {
  return attempt().catch((thrown: unknown) => {
    if (thrown instanceof UsageError && launched !== undefined && launched.rank > 0) process.exit(thrown.exitCode);
    throw thrown;
  });
}

/** Ends all ranks. Rank 0 shows its own reason; that of another is shown with its name. */
async function giveUp({ grid, abort }: Collective, thrown: unknown): Promise<never> {
  const known = thrown instanceof SaettaError;
  const text = `${known ? "" : "this is a bug of Saetta, please report it: "}${messageOf(thrown)}`;
  const first = grid.rank === 0;
  if (first) process.stderr.write(`saetta: ${text}\n`);
  if (process.env.SAETTA_DEBUG === "1" && thrown instanceof Error) process.stderr.write(`${thrown.stack}\n`);
  const code = known ? thrown.exitCode : 1;
  await abort(text, first, code);
  process.exit(code);
}

/**
 * The shards and replicas of a config of another time, where they still make up the ranks that
 * there are; else they are chosen anew.
 */
export async function gridFrom<T extends Ranks>(file: T, given: Ranks): Promise<T> {
  const { launchEnvOf } = await import("../collective/launch-env.ts");
  const { shards = 1, replicas = 1 } = file;
  const size = launchEnvOf(process.env)?.size ?? given.nproc;
  const asked = given.shards !== undefined || given.replicas !== undefined;
  if (!asked && (size === undefined || size === shards * replicas)) return file;
  const keep = !asked && size !== undefined && size % shards === 0;
  return { ...file, shards: keep ? shards : undefined, replicas: undefined };
}

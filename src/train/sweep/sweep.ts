/** Starting a sweep: several autoencoders from one read. */

import { join } from "node:path";
import type { RunLock } from "../../checkpoint/lock.ts";
import { freeBytes } from "../../checkpoint/storage.ts";
import { waitForDisk } from "../../checkpoint/wait-for-disk.ts";
import { solo } from "../../collective/solo.ts";
import { checkOptions, flagOf, type TrainOptions, withDefaults } from "../../config.ts";
import { START } from "../../data/batches.ts";
import { stoppable } from "../../data/rows-source.ts";
import type { Source } from "../../data/source.ts";
import type { Engine } from "../../engine/engine.ts";
import { selectEngine } from "../../engine/select.ts";
import { findSae } from "../../inference/weights.ts";
import { MOST_MEMBERS, tooMany } from "../../sweep-options.ts";
import { SaettaError, UsageError } from "../../util/errors.ts";
import { bytesNeeded } from "../memory.ts";
import { type PlannedBefore, planRun } from "../plan.ts";
import { claimFolder, createRunFolder, discardRunFolder } from "../run-folder.ts";
import { startState } from "../start-state.ts";
import { defaultOut, likeInitial, startNotes } from "../train.ts";
import { checkSweepMemory } from "./forecast.ts";
import type { PlannedMember } from "./group.ts";
import { rungSteps } from "./halving.ts";
import { launchSweep } from "./launch-sweep.ts";
import { lendEngine } from "./lend-engine.ts";
import { ALIKE, batchesKey, cohortKey, memberNames, rowsKey } from "./members.ts";
import { createSweepFolder, discardSweepFolder, SweepRecord } from "./sweep-folder.ts";
import type { SweepRun } from "./sweep-run.ts";

export interface SweepArguments {
  /** The sweep's folder; default `runs/<data>-<UTC time>`. */
  readonly out?: string | undefined;
  /** Stops the sweep; each member has then saved a checkpoint. */
  readonly signal?: AbortSignal | undefined;
  /** Gets notes: what is worth knowing and no error, a sentence each. */
  readonly onNote?: ((note: string) => void) | undefined;
  /**
   * Successive halving: after an eighth, a quarter and a half of the steps the worse half by
   * held-out FVU ends. `true`: members are compared that have the same architecture, k, latents and
   * target L0; a list: that have the same values of these options; an empty list: all.
   */
  readonly halve?: boolean | readonly (keyof TrainOptions)[] | undefined;
}

/**
 * Trains an autoencoder for each of `members` on the rows of `source`, which are read once for all
 * that train on the same rows in the same batches; others follow in groups. Each has the bits that
 * `train` would give it, and a run folder in the folder of the sweep, named by the options in which
 * it differs. Resolves when the sweep is under way; rejects as `train` does. The caller closes the
 * source once `finished` is settled.
 */
export async function sweep(
  given: Source,
  members: readonly TrainOptions[],
  options: SweepArguments = {},
): Promise<SweepRun> {
  const { signal, onNote = () => undefined, halve = false } = options;
  if (members.length === 0) throw new UsageError("a sweep needs the options of at least one autoencoder");
  if (members.length > MOST_MEMBERS) throw tooMany();
  const asked = members.map((each) => checkOptions({ ...each }, undefined, (name) => name));
  for (const each of asked) checkAlone(each);
  if (asked[0]!.target !== undefined && given.dOut === undefined)
    throw new UsageError("target: the source has no targets", { mend: "give openActivations the target, too" });
  const names = memberNames(asked);
  const stopping = new AbortController();
  const stop = () => stopping.abort();
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted === true) stop();
  const source = stoppable(given, stopping.signal);
  const context = { signal: stopping.signal, onNote: oncePerSweep(onNote) };
  const within = halve === true ? ALIKE : halve === false ? undefined : halve;
  let engine: Engine | undefined;
  let folder: { readonly dir: string; readonly lock: RunLock } | undefined;
  const made: { readonly dir: string; readonly lock: RunLock }[] = [];
  try {
    engine = await engineFor(asked[0]!, context.onNote);
    const lend = engine;
    const planned: (Omit<PlannedMember, "out" | "lock"> & { readonly notes: readonly string[] })[] = [];
    const rows = new Map<string, PlannedBefore["rows"]>();
    for (const [i, each] of asked.entries()) {
      const name = names[i]!;
      const one = await named(name, asked.length, async () => {
        const initial =
          each.init === undefined ? undefined : await findSae(each.init, undefined, { otherwiseK: each.k });
        const wanted = initial === undefined ? each : likeInitial(each, initial, source);
        const key = rowsKey(withDefaults(wanted));
        const shared = { engine: lendEngine(lend), rows: rows.get(key) };
        const plan = await planRun(source, wanted, solo(), context, undefined, shared);
        rows.set(key, shared.rows ?? plan);
        const begin: PlannedMember["begin"] = (work) => startState(plan, initial, context, work);
        return {
          name,
          plan,
          from: { step: 0, tokens: 0, position: START },
          begin,
          notes: startNotes(each, initial, plan),
        };
      });
      planned.push(one);
    }
    for (const { notes } of planned) for (const note of notes) context.onNote(note);
    const groups = new Set(planned.map(({ plan }) => batchesKey(plan.config)));
    if (source.stream === "once" && groups.size > 1) {
      throw new UsageError("rows that are read once serve one group of autoencoders", {
        mend: "give all of them the same batch, seed and rows",
      });
    }
    checkSweepMemory(planned);
    const cohorts = within === undefined ? [] : cohortsOf(planned, within);
    const dir = options.out ?? (await claimFolder(defaultOut(source, new Date())));
    folder = { dir, lock: await createSweepFolder(dir) };
    if (folder.lock.warning !== undefined) onNote(folder.lock.warning);
    const ready: PlannedMember[] = [];
    for (const each of planned) {
      const out = join(dir, each.name);
      const lock = await createRunFolder(out, each.plan.config, each.plan.record);
      made.push({ dir: out, lock });
      ready.push({ ...each, out, lock });
    }
    const record = new SweepRecord(dir, { members: names, cohorts, rungs: [], failed: [] });
    await roomForAll(dir, planned, context);
    const run = await launchSweep({ members: ready, over: [], engine, record, stopping, onNote: context.onNote });
    const { lock } = folder;
    run.finished
      .finally(() => {
        signal?.removeEventListener("abort", stop);
        lock.release();
      })
      .catch(() => undefined);
    return run;
  } catch (error) {
    signal?.removeEventListener("abort", stop);
    await engine?.close();
    for (const { dir, lock } of made) await discardRunFolder(dir, lock);
    if (folder !== undefined) await discardSweepFolder(folder.dir, folder.lock);
    throw error;
  }
}

/** The engine of all members. */
export function engineFor(options: TrainOptions, onNote: (note: string) => void): Promise<Engine> {
  const { engine, dtype, threads } = withDefaults(options);
  return selectEngine(engine, { threads, dtype, onNote });
}

/** Throws UsageError for ranks, which a sweep does not have. */
export function checkAlone({ shards = 1, replicas = 1 }: TrainOptions): void {
  const flag = shards > 1 ? "shards" : replicas > 1 ? "replicas" : undefined;
  if (flag !== undefined)
    throw new UsageError(`a sweep trains in one process, without ${flagOf(flag)}`, {
      mend: "leave it out, or train the autoencoders one by one",
    });
}

/** Notes that several members give are given once. */
export function oncePerSweep(onNote: (note: string) => void): (note: string) => void {
  const given = new Set<string>();
  return (note) => {
    if (!given.has(note)) onNote(note);
    given.add(note);
  };
}

/** What goes wrong while a member is planned names it. */
export async function named<T>(name: string, members: number, plan: () => Promise<T>): Promise<T> {
  return plan().catch((thrown: unknown) => {
    if (!(thrown instanceof SaettaError) || thrown.where !== undefined || members === 1) throw thrown;
    const Kind = thrown instanceof UsageError ? UsageError : SaettaError;
    throw new Kind(`${name}: ${thrown.message}`, { cause: thrown });
  });
}

/** Members that are compared, and when; those that would be alone are left out. */
function cohortsOf(
  planned: readonly Pick<PlannedMember, "name" | "plan">[],
  within: readonly (keyof TrainOptions)[],
): { readonly members: string[]; readonly steps: readonly number[] }[] {
  if (planned.some(({ plan }) => plan.choice.holdout.length === 0))
    throw new UsageError("--halve compares on held-out rows, and there are none", { mend: "give a --holdout above 0" });
  const found = new Map<string, { members: string[]; steps: number }>();
  for (const { name, plan } of planned) {
    const key = cohortKey(plan.config, plan.steps, within);
    const cohort = found.get(key) ?? { members: [], steps: plan.steps };
    cohort.members.push(name);
    found.set(key, cohort);
  }
  const cohorts = Array.from(found.values(), ({ members, steps }) => ({
    members,
    steps: members.length > 1 ? rungSteps(members.length, steps) : [],
  })).filter(({ steps }) => steps.length > 0);
  if (cohorts.length === 0) {
    throw new UsageError(`--halve finds no autoencoders to compare: none have the same ${within.join(", ")}`, {
      mend: "give several values of another option, such as --lr, or name what must be alike with --halve LIST",
    });
  }
  return cohorts;
}

/** Throws, or waits, where the disk has no room for one checkpoint of each member. */
async function roomForAll(
  dir: string,
  planned: readonly Pick<PlannedMember, "plan">[],
  { signal, onNote }: { readonly signal: AbortSignal; readonly onNote: (note: string) => void },
): Promise<void> {
  const needed = planned.reduce((sum, { plan }) => sum + bytesNeeded(plan.needs).weights, 0);
  const { onDiskFull } = planned[0]!.plan.config;
  if ((await freeBytes(dir)) !== undefined) await waitForDisk({ runDir: dir, needed, onDiskFull, signal, onNote });
}

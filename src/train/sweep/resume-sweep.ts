/** Resuming a sweep: every member that is not over, from its newest checkpoint. */

import { join } from "node:path";
import { savedSteps } from "../../checkpoint/layout.ts";
import { lockRun } from "../../checkpoint/lock.ts";
import { solo } from "../../collective/solo.ts";
import { checkOptions, type TrainOptions, withDefaults } from "../../config.ts";
import { stoppable } from "../../data/rows-source.ts";
import type { Source } from "../../data/source.ts";
import type { Engine } from "../../engine/engine.ts";
import { endedEarly } from "../../run-files/sweep.ts";
import { targetPaths } from "../../transcoder-options.ts";
import { SaettaError } from "../../util/errors.ts";
import type { PlannedBefore } from "../plan.ts";
import { checkChanges, commonCheckpoint, isSource, planResumed, sourceToResume } from "../resume.ts";
import { readRunConfig, writeConfig } from "../run-folder.ts";
import { checkSweepMemory } from "./forecast.ts";
import type { PlannedMember } from "./group.ts";
import { launchSweep } from "./launch-sweep.ts";
import { lendEngine } from "./lend-engine.ts";
import { rowsKey } from "./members.ts";
import { checkAlone, engineFor, oncePerSweep, type SweepArguments } from "./sweep.ts";
import { readSweep, SweepRecord } from "./sweep-folder.ts";
import type { MemberResult, SweepRun } from "./sweep-run.ts";

/** What a sweep may be given when it is resumed; everything else is fixed. */
export interface ResumeSweepArguments extends Pick<SweepArguments, "signal" | "onNote"> {
  /** Where the files are now, or the source of rows that came from the program. */
  readonly data?: readonly string[] | Source;
}

/**
 * Resumes a sweep: members that spent their budget or ended early are not touched, the others
 * continue together with the bits that they would have had. `changes`: as for `resume`, for every
 * member.
 */
export async function resumeSweep(dir: string, changes: TrainOptions & ResumeSweepArguments = {}): Promise<SweepRun> {
  const { signal, onNote: tell = () => undefined, data: moved, ...given } = changes;
  const changed = checkOptions(given, undefined, (name) => name);
  checkAlone(changed);
  const file = await readSweep(dir);
  const onNote = oncePerSweep(tell);
  const stopping = new AbortController();
  const stop = () => stopping.abort();
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted === true) stop();
  const context = { signal: stopping.signal, onNote };
  const locks = [lockRun(dir)];
  let engine: Engine | undefined;
  let source: Source | undefined;
  const close = async () => {
    signal?.removeEventListener("abort", stop);
    if (!isSource(moved)) await source?.close();
    for (const lock of locks) lock.release();
  };
  try {
    if (locks[0]!.warning !== undefined) onNote(locks[0]!.warning);
    const planned: PlannedMember[] = [];
    const over: MemberResult[] = [];
    const rows = new Map<string, PlannedBefore["rows"]>();
    for (const name of file.members) {
      const out = join(dir, name);
      const before = await readRunConfig(out);
      checkChanges(out, before.options, changed);
      const early = endedEarly(file, name);
      if (early !== undefined && (early.reason === "failed" || (await hasSaved(out, early.step)))) {
        over.push(overAs(name, out, early.reason));
        continue;
      }
      const lock = lockRun(out);
      locks.push(lock);
      const checkpoint = await commonCheckpoint(out, solo(), onNote);
      source ??= stoppable(await sourceToResume(out, before, moved, targetPaths(changed), onNote), stopping.signal);
      engine ??= await engineFor({ ...before.options, ...changed }, onNote);
      const key = rowsKey(withDefaults(before.options));
      const shared = { engine: lendEngine(engine), rows: rows.get(key) };
      const of = { dir: out, before, changed, checkpoint, source, collective: solo(), context, shared };
      const { plan, progress, begin } = await planResumed(of);
      rows.set(key, shared.rows ?? plan);
      planned.push({ name, out, plan, lock, from: progress, begin });
    }
    const left = planned.filter(({ plan, from }) => from.step < plan.steps);
    if (planned.length === 0)
      throw new SaettaError("every autoencoder of the sweep ended early", {
        where: dir,
        mend: "start another sweep, or resume one of its runs alone",
      });
    // Where all have spent their budget the sweep ends at once.
    const members = left.length > 0 ? left : planned;
    for (const { name, out, lock } of planned) {
      if (members.some((member) => member.name === name)) continue;
      lock.release();
      over.push(overAs(name, out, "done"));
    }
    checkSweepMemory(members);
    for (const { out, plan } of members) await writeConfig(out, plan.config, plan.record);
    const record = new SweepRecord(dir, file);
    const run = await launchSweep({ members, over, engine: engine!, record, stopping, onNote });
    run.finished.finally(close).catch(() => undefined);
    return run;
  } catch (error) {
    await engine?.close();
    await close();
    throw error;
  }
}

async function hasSaved(out: string, step: number): Promise<boolean> {
  return ((await savedSteps(out))[0] ?? -1) >= step;
}

function overAs(name: string, out: string, state: MemberResult["state"]): MemberResult {
  return { name, out, state, report: undefined, result: undefined, error: undefined };
}

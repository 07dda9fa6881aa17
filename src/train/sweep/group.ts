/** The members of a sweep that train from one read: their starts, and the runs in step. */

import type { RunLock } from "../../checkpoint/lock.ts";
import { ringRows } from "../../data/batches.ts";
import { stoppable } from "../../data/rows-source.ts";
import { rowWidth } from "../../data/source.ts";
import type { Engine } from "../../engine/engine.ts";
import type { Report } from "../../run-files/metrics.ts";
import type { Standing } from "../../run-files/sweep.ts";
import { messageOf } from "../../util/errors.ts";
import { decideStart, type StartDecision } from "../decide-start.ts";
import { type Pace, timeSteps } from "../estimate.ts";
import { Diverged, type RunObserver, ringOf } from "../loop.ts";
import type { Member } from "../member.ts";
import { heldOutOf } from "../observers.ts";
import type { RunPlan } from "../plan.ts";
import type { TrainRun } from "../run.ts";
import { launch } from "../session.ts";
import type { Progress, StartState, StartWork } from "../start-state.ts";
import { BatchFeed, type Seat } from "./feed.ts";
import type { Halving } from "./halving.ts";
import type { SweepRecord } from "./sweep-folder.ts";
import type { MemberResult, MemberState } from "./sweep-run.ts";

/** A member that is planned, with an engine that is lent to it. */
export interface PlannedMember {
  readonly name: string;
  readonly out: string;
  readonly plan: RunPlan;
  readonly lock: RunLock;
  /** Where it is in its data. */
  readonly from: Pick<Progress, "step" | "tokens" | "position">;
  /** Makes its state in the engine. */
  readonly begin: (work: StartWork) => Promise<StartState>;
}

export interface BegunMember extends PlannedMember {
  readonly start: StartState;
}

/** What the members of a sweep have in common. */
export interface SweepControl {
  readonly engine: Engine;
  readonly halving: Halving;
  readonly record: SweepRecord;
  /** Aborted when the sweep is to stop. */
  readonly stopping: AbortController;
  readonly onNote: (note: string) => void;
  readonly onState: (name: string, state: MemberState, report: Report | undefined) => void;
}

/** Members of the same shape take the same time. */
export function paceKey({ config, spec }: RunPlan): string {
  return JSON.stringify([config.latents, spec, config.skip, config.ema > 0, config.batch]);
}

/**
 * Makes the states of the members. A sample of the rows is drawn once for all that normalise them
 * alike, and steps of each shape are timed once.
 */
export async function beginGroup(members: readonly PlannedMember[]): Promise<BegunMember[]> {
  const decisions = new Map<string, Promise<StartDecision>>();
  const paces = new Map<string, Promise<Pace>>();
  const begun: BegunMember[] = [];
  for (const member of members) {
    const { config } = member.plan;
    const work: StartWork = {
      decide: (plan, initial, onNote) => {
        const key = JSON.stringify([config.normalize, config.mseScale, config.init ?? null]);
        return once(decisions, key, () => decideStart(plan, initial, onNote));
      },
      time: (...given) => once(paces, paceKey(member.plan), () => timeSteps(...given)),
    };
    begun.push({ ...member, start: await member.begin(work) });
  }
  return begun;
}

function once<T>(found: Map<string, Promise<T>>, key: string, find: () => Promise<T>): Promise<T> {
  const value = found.get(key) ?? find();
  found.set(key, value);
  return value;
}

/**
 * Trains the members in step, from one read, until each is over. A member whose numbers are not
 * finite ends alone; anything else that goes wrong stops the sweep, and is thrown when the others
 * have saved.
 */
export async function runGroup(members: readonly BegunMember[], control: SweepControl): Promise<MemberResult[]> {
  const { engine, halving, stopping } = control;
  const { plan } = members[0]!;
  const { order, config } = plan;
  const source = stoppable(plan.source, stopping.signal);
  const ring = engine.alloc(source.dtype, [ringRows(order), rowWidth(source)]);
  const { nonFinite } = config;
  const feed = new BatchFeed({ source, order, ring: ringOf(engine, ring), nonFinite, signal: stopping.signal });
  const held = heldOutOf({ ...plan, source });
  held.catch(() => undefined); // its readers get the failure
  const seats = members.map((member) => feed.join(member.start.progress));
  for (const { name, from } of members) halving.enter(name, from.step);
  try {
    const common = { ring, heldOut: () => held };
    const results = await Promise.allSettled(members.map((member, i) => runMember(member, seats[i]!, common, control)));
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  } finally {
    await feed.close();
    engine.free(ring);
  }
}

async function runMember(
  { name, out, plan, lock, start }: BegunMember,
  seat: Seat,
  common: Pick<Member, "ring" | "heldOut">,
  control: SweepControl,
): Promise<MemberResult> {
  const { halving, record, stopping, onNote, onState } = control;
  const ended = new AbortController();
  const member: Member = {
    ...common,
    ...seat,
    sweep: stopping.signal,
    ended: ended.signal,
    evaluates: (step) => halving.isDue(name, step),
    rung: rungOf(name, halving, () => ended.abort()),
  };
  let report: Report | undefined;
  const over = (state: MemberResult["state"], result: MemberResult["result"], error?: string): MemberResult => {
    onState(name, state, report);
    return { name, out, state, report, result, error };
  };
  try {
    onState(name, "running", undefined);
    const run = launch(plan, start, out, lock, { onNote: (note) => onNote(`${name}: ${note}`) }, member);
    report = await follow(run, (newest) => {
      report = newest;
      onState(name, "running", newest);
    });
    const { sae, ...result } = await run.finished;
    await sae.close();
    return over(ended.signal.aborted ? "halved" : result.reason, result);
  } catch (thrown) {
    if (!(thrown instanceof Diverged)) {
      halving.fail(thrown);
      stopping.abort();
      throw thrown;
    }
    const message = messageOf(thrown);
    await record.add({ failed: [{ name, step: report?.step ?? start.progress.step, message }] });
    await halving.leave(name);
    onNote(`${name}: ${message}; the other autoencoders train on`);
    return over("failed", undefined, message);
  }
}

/** Reads the reports of a run; resolves to the last one. */
async function follow(run: TrainRun, onReport: (report: Report) => void): Promise<Report | undefined> {
  let last: Report | undefined;
  for await (const report of run) {
    last = report;
    onReport(report);
  }
  return last;
}

/** Compares the member with the others where that is due. */
function rungOf(name: string, halving: Halving, end: () => void): RunObserver {
  const finite = (value: number | undefined) => (value !== undefined && Number.isFinite(value) ? value : null);
  return {
    reads: true,
    holds: true,
    due: (step) => halving.isDue(name, step),
    see: async ({ progress, metrics, heldOut }) => {
      const { holdout_fvu, holdout_l0 = metrics?.l0 } = heldOut;
      const standing: Standing = { name, holdout_fvu: finite(holdout_fvu), l0: finite(holdout_l0) };
      if (!(await halving.stays(progress.step, standing))) end();
    },
  };
}

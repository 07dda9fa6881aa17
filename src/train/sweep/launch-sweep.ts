/** A sweep from its planned members to the end: what a new one and a resumed one have in common. */

import type { Engine } from "../../engine/engine.ts";
import type { Report } from "../../run-files/metrics.ts";
import { dataInUse } from "../session.ts";
import { forecastOf, groupsOf } from "./forecast.ts";
import { beginGroup, type PlannedMember, runGroup, type SweepControl } from "./group.ts";
import { Halving } from "./halving.ts";
import type { SweepRecord } from "./sweep-folder.ts";
import { type MemberReport, type MemberResult, type MemberState, type SweepReport, SweepRun } from "./sweep-run.ts";

export interface LaunchInput {
  readonly members: readonly PlannedMember[];
  /** Members that are over already. */
  readonly over: readonly MemberResult[];
  /** Closed when the sweep is over. */
  readonly engine: Engine;
  readonly record: SweepRecord;
  readonly stopping: AbortController;
  readonly onNote: (note: string) => void;
}

/**
 * Begins the first group, writes sweep.json and sets the sweep going. The members' locks are
 * released when they are over. Rejects when the first group cannot begin.
 */
export async function launchSweep(input: LaunchInput): Promise<SweepRun> {
  const { members, engine, record, stopping, onNote } = input;
  const groups = groupsOf(members);
  const first = await beginGroup(groups[0] ?? []);
  const forecast = await forecastOf(record.dir, members, first);
  await record.write();
  const halving = new Halving(record.file, (rung) => record.add({ rungs: [rung] }));
  const about = {
    out: record.dir,
    members: groups.flatMap((group, i) =>
      group.map(({ name, out, plan: { config, steps, budget } }) => ({ name, out, config, steps, budget, group: i })),
    ),
    groups: groups.length,
    budget: rowsOf(groups, ({ plan }) => plan.budget),
    engine: engine.description,
    data: dataInUse(first[0]!.plan, first[0]!.start),
    forecast,
    trainedBefore: rowsOf(groups, ({ from }) => from.tokens),
  };
  return new SweepRun(about, stopping, async (publish) => {
    const states = new Map<string, MemberReport>();
    for (const { name } of members) states.set(name, { name, state: "waiting", report: undefined });
    for (const { name, state, report } of input.over) states.set(name, { name, state, report });
    const onState = (name: string, state: MemberState, report: Report | undefined) => {
      states.set(name, { name, state, report: report ?? states.get(name)?.report });
      publish(reportOf(groups, states, record));
    };
    const control: SweepControl = { engine, halving, record, stopping, onNote, onState };
    try {
      const results = [...input.over];
      for (const [i, group] of groups.entries()) {
        const begun = i === 0 ? first : stopping.signal.aborted ? undefined : await beginGroup(group);
        results.push(...(begun === undefined ? group.map(unbegun) : await runGroup(begun, control)));
      }
      const inOrder = record.file.members.flatMap((name) => results.find((result) => result.name === name) ?? []);
      return { reason: inOrder.some(({ state }) => state === "stopped") ? "stopped" : "done", members: inOrder };
    } finally {
      for (const { lock } of members) lock.release();
      await engine.close();
    }
  });
}

function unbegun({ name, out }: PlannedMember): MemberResult {
  return { name, out, state: "stopped", report: undefined, result: undefined, error: undefined };
}

/** Rows of all groups: members of a group train on the same rows, so the farthest counts. */
function rowsOf(groups: readonly PlannedMember[][], rows: (member: PlannedMember) => number): number {
  return groups.reduce((sum, group) => sum + Math.max(...group.map(rows)), 0);
}

function reportOf(
  groups: readonly PlannedMember[][],
  states: ReadonlyMap<string, MemberReport>,
  { file }: SweepRecord,
): SweepReport {
  return {
    tokens: rowsOf(groups, ({ name, from }) => states.get(name)?.report?.tokens ?? from.tokens),
    members: file.members.flatMap((name) => states.get(name) ?? []),
  };
}

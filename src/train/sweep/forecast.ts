/** What a sweep will take of memory, time and disk, before it takes it. */

import { freeBytes } from "../../checkpoint/storage.ts";
import { formatBytes } from "../../util/bytes.ts";
import { SaettaError } from "../../util/errors.ts";
import { counted } from "../../util/format.ts";
import { availableMemory, bytesNeeded } from "../memory.ts";
import type { BegunMember, PlannedMember } from "./group.ts";
import { batchesKey } from "./members.ts";
import type { SweepForecast } from "./sweep-run.ts";

type Planned = Pick<PlannedMember, "plan">;

/** The members in groups that train from one read, in the order of their first members. */
export function groupsOf<M extends Planned>(members: readonly M[]): M[][] {
  const groups = new Map<string, M[]>();
  for (const member of members) {
    const key = batchesKey(member.plan.config);
    groups.set(key, [...(groups.get(key) ?? []), member]);
  }
  return [...groups.values()];
}

/** The most bytes held at once: of the group that needs most. */
function memoryNeeded(members: readonly Planned[]): number {
  const ofGroup = (group: readonly Planned[]) => {
    const needs = group.map(({ plan }) => bytesNeeded(plan.needs));
    const program = needs[0]!.total - needs[0]!.weights - needs[0]!.batch - needs[0]!.rows;
    // Rows are there once, and states are made one after the other.
    const rows = Math.max(...needs.map((each) => each.rows));
    return needs.reduce((sum, { weights, batch }) => sum + weights + batch, program + rows);
  };
  return Math.max(...groupsOf(members).map(ofGroup));
}

/** Throws SaettaError with the numbers when the largest group does not fit into what is free. */
export function checkSweepMemory(members: readonly Planned[]): void {
  const [needed, free] = [memoryNeeded(members), availableMemory()];
  if (needed <= free) return;
  const most = Math.max(...groupsOf(members).map(({ length }) => length));
  throw new SaettaError(
    `the sweep needs ${formatBytes(needed)} of memory for ${counted(most, "autoencoder")} at once and ${formatBytes(free)} are free`,
    { mend: "train fewer at once, or lower --latents or --batch" },
  );
}

/**
 * What all members will take; `begun` have been timed, or were trained before. The time of the
 * others is estimated from theirs, by rows and latents. undefined where nothing was timed.
 */
export async function forecastOf(
  dir: string,
  members: readonly PlannedMember[],
  begun: readonly BegunMember[],
): Promise<SweepForecast> {
  const timed = begun.flatMap(({ plan, start, from }) =>
    start.seconds === undefined ? [] : [{ plan, from, seconds: start.seconds }],
  );
  const work = ({ plan, from }: Pick<PlannedMember, "plan" | "from">) =>
    Math.max(0, plan.budget - from.tokens) * plan.config.latents;
  // Of a member that was resumed it is the time of all that trained with it.
  const resumed = timed.filter(({ from }) => from.step > 0).map(({ seconds }) => seconds);
  const started = timed.filter(({ from }) => from.step === 0).reduce((sum, { seconds }) => sum + seconds, 0);
  const seconds = started + Math.max(0, ...resumed);
  const [done, all] = [begun, members].map((each) => each.reduce((sum, member) => sum + work(member), 0)) as [
    number,
    number,
  ];
  return {
    memory: { needed: memoryNeeded(members), free: availableMemory() },
    seconds: timed.length < begun.length || done === 0 ? undefined : (seconds * all) / done,
    disk: {
      needed: members.reduce((sum, { plan }) => sum + plan.config.keep * bytesNeeded(plan.needs).weights, 0),
      free: await freeBytes(dir),
    },
  };
}

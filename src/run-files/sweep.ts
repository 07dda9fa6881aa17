/**
 * What sweep.json says of the autoencoders that were trained from one read: which they are, and
 * which of them ended early.
 */

export interface SweepFile {
  /** Names of the members: their run folders, next to sweep.json. */
  readonly members: readonly string[];
  /** Members that compete in successive halving; none where it was not asked for. */
  readonly cohorts: readonly Cohort[];
  /** What was decided, oldest first. */
  readonly rungs: readonly Rung[];
  /** Members whose training could not continue. */
  readonly failed: readonly Failed[];
}

/** Members that are compared with each other after each of these steps. */
export interface Cohort {
  readonly members: readonly string[];
  readonly steps: readonly number[];
}

/** A comparison: what was found of each member, the best first, and which of them ended. */
export interface Rung {
  readonly step: number;
  readonly found: readonly Standing[];
  readonly ended: readonly string[];
}

export interface Standing {
  readonly name: string;
  /** null where it is not finite. */
  readonly holdout_fvu: number | null;
  readonly l0: number | null;
}

export interface Failed {
  readonly name: string;
  readonly step: number;
  readonly message: string;
}

/** How a member ended that did not spend its budget. */
export interface EndedEarly {
  readonly reason: "halved" | "failed";
  readonly step: number;
}

/** undefined for a member that did not end early. */
export function endedEarly({ rungs, failed }: SweepFile, name: string): EndedEarly | undefined {
  const failure = failed.find((each) => each.name === name);
  if (failure !== undefined) return { reason: "failed", step: failure.step };
  const rung = rungs.find(({ ended }) => ended.includes(name));
  return rung && { reason: "halved", step: rung.step };
}

/** A member's name is that of a folder next to sweep.json. */
export function isMemberName(name: unknown): name is string {
  return typeof name === "string" && /^[A-Za-z0-9_+][A-Za-z0-9._+-]{0,199}$/.test(name);
}

/** What a JSON value says; undefined where it is no sweep. */
export function sweepOf(value: unknown): SweepFile | undefined {
  const { members, cohorts = [], rungs = [], failed = [] } = recordOf(value) ?? {};
  if (!isListOf(members, isMemberName) || members.length === 0) return undefined;
  if (!isListOf(cohorts, isCohort) || !isListOf(rungs, isRung) || !isListOf(failed, isFailed)) return undefined;
  return { members, cohorts, rungs, failed };
}

function isCohort(value: unknown): value is Cohort {
  const { members, steps } = recordOf(value) ?? {};
  return isListOf(members, isMemberName) && isListOf(steps, isStep);
}

function isRung(value: unknown): value is Rung {
  const { step, found, ended } = recordOf(value) ?? {};
  return isStep(step) && isListOf(found, isStanding) && isListOf(ended, isMemberName);
}

function isStanding(value: unknown): value is Standing {
  const { name, holdout_fvu, l0 } = recordOf(value) ?? {};
  const isFigure = (it: unknown) => it === null || typeof it === "number";
  return isMemberName(name) && isFigure(holdout_fvu) && isFigure(l0);
}

function isFailed(value: unknown): value is Failed {
  const { name, step, message } = recordOf(value) ?? {};
  return isMemberName(name) && isStep(step) && typeof message === "string";
}

function isStep(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isListOf<T>(value: unknown, is: (each: unknown) => each is T): value is readonly T[] {
  return Array.isArray(value) && value.every(is);
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : undefined;
}

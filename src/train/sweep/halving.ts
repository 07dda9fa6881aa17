/**
 * Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and
 * hyperparameter optimization"): after some fractions of the budget the worse half of the members
 * that are compared with each other ends. What is decided follows from what the members found at
 * that step, so a sweep that is resumed decides the same.
 */

import type { Cohort, Rung, Standing, SweepFile } from "../../run-files/sweep.ts";

/** Shares of the steps after which members are compared; few members need the last only. */
const SHARES = [1 / 8, 1 / 4, 1 / 2];
/** A member ends for a better one only if that has at most this many times its L0. */
const COMPARABLE_L0 = 1.1;

/** The steps after which `members` members of `steps` steps are compared. */
export function rungSteps(members: number, steps: number): readonly number[] {
  const rungs = Math.min(SHARES.length, Math.ceil(Math.log2(members)));
  const found = SHARES.slice(SHARES.length - rungs).map((share) => Math.max(1, Math.round(share * steps)));
  return [...new Set(found)].filter((step) => step < steps);
}

/**
 * Of the members: the better half, rounded up, stays; of the others those end that a staying one
 * with no more than a comparable L0 is better than. Equal members keep their order.
 */
export function decide(step: number, members: readonly Standing[]): Rung {
  const fvu = ({ holdout_fvu }: Standing) => holdout_fvu ?? Number.POSITIVE_INFINITY;
  const found = members.toSorted((a, b) => (fvu(a) === fvu(b) ? 0 : fvu(a) - fvu(b)));
  const kept = found.slice(0, Math.ceil(found.length / 2));
  const isBeaten = ({ l0 }: Standing) =>
    kept.some((better) => l0 === null || (better.l0 !== null && better.l0 <= COMPARABLE_L0 * l0));
  const ended = found.slice(kept.length).filter(isBeaten);
  return { step, found, ended: ended.map(({ name }) => name) };
}

interface Waiting {
  readonly standing: Standing;
  readonly resolve: (stays: boolean) => void;
  readonly reject: (reason: unknown) => void;
}

/** Compares the members of a sweep while they train. */
export class Halving {
  readonly #cohorts: readonly Cohort[];
  readonly #rungs: Rung[];
  readonly #record: (rung: Rung) => Promise<void>;
  /** Members under way, and the step that each began at. */
  readonly #from = new Map<string, number>();
  #failed: { readonly reason: unknown } | undefined;
  readonly #waiting = new Map<Cohort, Map<number, Map<string, Waiting>>>();

  /** `record` makes a decision last, before a member acts on it. */
  constructor({ cohorts, rungs }: Pick<SweepFile, "cohorts" | "rungs">, record: (rung: Rung) => Promise<void>) {
    this.#cohorts = cohorts;
    this.#rungs = [...rungs];
    this.#record = record;
  }

  /** Whether the member is compared after this step. */
  isDue(name: string, step: number): boolean {
    return this.#cohortOf(name)?.steps.includes(step) === true;
  }

  /** The member trains from `step` on. */
  enter(name: string, step: number): void {
    this.#from.set(name, step);
  }

  /** The member is over, or stopped: the others do not wait for it. */
  async leave(name: string): Promise<void> {
    this.#from.delete(name);
    const cohort = this.#cohortOf(name);
    if (cohort === undefined) return;
    for (const step of cohort.steps) {
      this.#waiting.get(cohort)?.get(step)?.delete(name);
      await this.#decideIfAll(cohort, step);
    }
  }

  /**
   * No decision comes any more: who waits for one, or asks for one from now on, is rejected, and so
   * saves nothing after the step that was to be decided.
   */
  fail(reason: unknown): void {
    this.#failed = { reason };
    for (const byStep of this.#waiting.values())
      for (const waiting of byStep.values()) for (const { reject } of waiting.values()) reject(reason);
    this.#waiting.clear();
  }

  /** Whether the member is to train on after a step that `isDue`. Waits for the others. */
  async stays(step: number, standing: Standing): Promise<boolean> {
    const { name } = standing;
    const cohort = this.#cohortOf(name)!;
    const before = this.#decided(cohort, step);
    if (before !== undefined) return !before.ended.includes(name);
    if (this.#failed !== undefined) throw this.#failed.reason;
    const byStep = this.#waiting.get(cohort) ?? new Map<number, Map<string, Waiting>>();
    this.#waiting.set(cohort, byStep);
    const waiting = byStep.get(step) ?? new Map<string, Waiting>();
    byStep.set(step, waiting);
    const answer = new Promise<boolean>((resolve, reject) => {
      waiting.set(name, { standing, resolve, reject });
    });
    answer.catch(() => undefined); // its reader gets the failure
    await this.#decideIfAll(cohort, step);
    return answer;
  }

  #cohortOf(name: string): Cohort | undefined {
    return this.#cohorts.find(({ members }) => members.includes(name));
  }

  #decided({ members }: Cohort, step: number): Rung | undefined {
    return this.#rungs.find((rung) => rung.step === step && rung.found.some(({ name }) => members.includes(name)));
  }

  async #decideIfAll(cohort: Cohort, step: number): Promise<void> {
    const waiting = this.#waiting.get(cohort)?.get(step);
    if (waiting === undefined || waiting.size === 0) return;
    const out = this.#rungs.filter((rung) => rung.step < step).flatMap(({ ended }) => ended);
    const awaited = cohort.members.filter((name) => !out.includes(name) && (this.#from.get(name) ?? step) < step);
    if (awaited.some((name) => !waiting.has(name))) return;
    this.#waiting.get(cohort)?.delete(step);
    const standings = awaited.flatMap((name) => waiting.get(name)?.standing ?? []);
    const rung = decide(step, standings);
    if (standings.length > 1) {
      this.#rungs.push(rung);
      await this.#record(rung);
    }
    for (const [name, { resolve }] of waiting) resolve(standings.length < 2 || !rung.ended.includes(name));
  }
}

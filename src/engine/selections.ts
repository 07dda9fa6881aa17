/**
 * What the engines of hardware have in common about selections: which they take, and the sizes that
 * make sense.
 */

import { SaettaError } from "../util/errors.ts";
import type { Codes, Dims, Rule, Selection, SelectionPlan } from "./engine.ts";

/** The selections of `encode` by what they are for. */
export interface Sides {
  readonly live: Selection;
  readonly dead: Codes | undefined;
  readonly wide: Codes | undefined;
  readonly band: Codes | undefined;
}

/** Throws SaettaError for selections that `encode` does not allow. */
export function sidesOf(selections: readonly Selection[], where: string): Sides {
  const bands = selections.filter(({ rule }) => rule.kind === "band");
  const [live, secondLive] = selections.filter(({ among, rule }) => among === "all" && rule.kind !== "band");
  const [second, third] = selections.filter(({ among }) => among !== "all");
  if (live === undefined || secondLive !== undefined || third !== undefined || bands.length > 1) {
    throw new SaettaError(
      "encode takes one selection among all latents, and at most one among the dead or wide and one by band",
      { where },
    );
  }
  if (second !== undefined && second.rule.kind !== "topk")
    throw new SaettaError(`among the dead, or wide, the rule is topk, not ${second.rule.kind}`, { where });
  const isDead = second?.among === "dead";
  return {
    ...{ live, band: bands[0]?.codes },
    dead: isDead ? second.codes : undefined,
    wide: isDead ? undefined : second?.codes,
  };
}

/** What the number of a selection's codes is called. */
export const NUMBER = { all: "k", dead: "auxk", wide: "4 k" } as const;

/**
 * Why the sizes make no sense, or a rule is not among those that the engine implements, in words.
 */
export function refusedPlan(
  { dIn, dOut, n }: Dims,
  plans: readonly SelectionPlan[],
  rules: readonly Rule["kind"][],
): string | undefined {
  const whole = (size: number) => Number.isInteger(size) && size >= 1;
  if (![dIn, dOut, n, ...plans.map(({ slots }) => slots)].every(whole)) {
    return "the numbers of inputs, latents, outputs and slots must be whole numbers from 1";
  }
  for (const { rule, among, slots } of plans) {
    if (!rules.includes(rule.kind)) return `the rule ${rule.kind} is not implemented`;
    if (slots > n) return `${NUMBER[among]} = ${slots} is more than the ${n} latents`;
  }
  return undefined;
}

/** Slots per row of all selections together. */
export function slotsOf(selections: readonly SelectionPlan[]): number {
  return selections.reduce((sum, { slots }) => sum + slots, 0);
}

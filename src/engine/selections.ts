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
  readonly band: Codes | undefined;
}

/** Throws SaettaError for selections that `encode` does not allow. */
export function sidesOf(selections: readonly Selection[], where: string): Sides {
  const bands = selections.filter(({ rule }) => rule.kind === "band");
  const [live, secondLive] = selections.filter(({ among, rule }) => among === "all" && rule.kind !== "band");
  const [dead, secondDead] = selections.filter(({ among }) => among === "dead");
  if (live === undefined || secondLive !== undefined || secondDead !== undefined || bands.length > 1) {
    throw new SaettaError(
      "encode takes one selection among all latents, and at most one among the dead and one by band",
      { where },
    );
  }
  if (dead !== undefined && dead.rule.kind !== "topk")
    throw new SaettaError(`among the dead the rule is topk, not ${dead.rule.kind}`, { where });
  return { live, dead: dead?.codes, band: bands[0]?.codes };
}

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
    if (slots > n) return `${among === "all" ? "k" : "auxk"} = ${slots} is more than the ${n} latents`;
  }
  return undefined;
}

/** Slots per row of all selections together. */
export function slotsOf(selections: readonly SelectionPlan[]): number {
  return selections.reduce((sum, { slots }) => sum + slots, 0);
}

/**
 * What the engines of hardware have in common about selections: which they take, and the sizes that
 * make sense.
 */

import { SaettaError } from "../util/errors.ts";
import type { Codes, Dims, Selection, SelectionPlan } from "./engine.ts";

/**
 * The codes of the selection among all, and of the one among the dead. Throws SaettaError for
 * selections that `encode` does not allow.
 */
export function sidesOf(selections: readonly Selection[], where: string): { live: Codes; dead: Codes | undefined } {
  const [live, secondLive] = selections.filter(({ among }) => among === "all");
  const [dead, secondDead] = selections.filter(({ among }) => among === "dead");
  if (live === undefined || secondLive !== undefined || secondDead !== undefined) {
    throw new SaettaError("encode takes one selection among all latents and at most one among the dead", { where });
  }
  for (const { rule } of selections) {
    if (rule.kind !== "topk") throw new SaettaError(`the rule ${rule.kind} is not implemented`, { where });
  }
  return { live: live.codes, dead: dead?.codes };
}

/**
 * Why the sizes make no sense, or a rule is not among those that the engine implements, in words.
 */
export function refusedPlan({ dIn, dOut, n }: Dims, plans: readonly SelectionPlan[]): string | undefined {
  const whole = (size: number) => Number.isInteger(size) && size >= 1;
  if (![dIn, dOut, n, ...plans.map(({ slots }) => slots)].every(whole)) {
    return "the numbers of inputs, latents, outputs and slots must be whole numbers from 1";
  }
  for (const { rule, among, slots } of plans) {
    if (rule.kind !== "topk") return `the rule ${rule.kind} is not implemented`;
    if (slots > n) return `${among === "all" ? "k" : "auxk"} = ${slots} is more than the ${n} latents`;
  }
  return undefined;
}

/** Slots per row of all selections together. */
export function slotsOf(selections: readonly SelectionPlan[]): number {
  return selections.reduce((sum, { slots }) => sum + slots, 0);
}

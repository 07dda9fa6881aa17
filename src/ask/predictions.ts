/** What logits say of the next token: the likeliest ones, and one that is drawn. */

import type { NextToken } from "../explorer/shared/ask.ts";
import { PURPOSE, Rng } from "../util/rng.ts";

/** One row of logits [vocabulary], and ln of the sum of e^logit. */
export interface Row {
  readonly logits: Float32Array;
  readonly logSum: number;
}

/** The ids of the `count` largest logits, the largest first; of equal ones the lower id. */
export function largest(logits: Float32Array, count: number): number[] {
  const found: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id]!;
    if (found.length === count && !(value > logits[found.at(-1)!]!)) continue;
    let at = found.length;
    while (at > 0 && value > logits[found[at - 1]!]!) at--;
    found.splice(at, 0, id);
    if (found.length > count) found.pop();
  }
  return found;
}

/** The `count` likeliest tokens of each of two predictions, the likeliest of the second first. */
export function nextTokens(before: Row, after: Row, count: number, textOf: (id: number) => string): NextToken[] {
  const ids = [...new Set([...largest(after.logits, count), ...largest(before.logits, count)])];
  const probability = ({ logits, logSum }: Row, id: number) => Math.exp(logits[id]! - logSum);
  return ids
    .map(
      (id): NextToken => ({
        text: textOf(id),
        before: probability(before, id),
        after: probability(after, id),
        logits: [before.logits[id]!, after.logits[id]!],
      }),
    )
    .toSorted((a, b) => b.after - a.after);
}

/**
 * Draws a token from softmax(logits / temperature): the largest of logit / temperature plus
 * Gumbel's noise of (seed, step, id). Two predictions that are alike mostly draw the same token.
 */
export function draw(logits: Float32Array, temperature: number, seed: number, step: number): number {
  if (temperature === 0) return largest(logits, 1)[0] ?? 0;
  const rng = new Rng(seed, PURPOSE.continuation, step);
  let best = 0;
  let most = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id]! / temperature - Math.log(-Math.log(rng.uniform()));
    if (!(value > most)) continue;
    most = value;
    best = id;
  }
  return best;
}

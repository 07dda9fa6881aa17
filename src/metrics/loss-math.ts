/**
 * Cross-entropy and Kullback-Leibler divergence of next-token predictions, in nats, from logits.
 * Sums are taken in float64.
 */

import type { LogSums } from "../engine/log-sums.ts";

/**
 * Sums in JavaScript, where the kernels cannot be compiled: slow, and what a reader compares the
 * kernel with.
 */
export const PLAIN_SUMS: LogSums = {
  of(logits, vocabulary, rows, from) {
    const logSums = Float64Array.from(rows, (row) => logSumExp(logits, row * vocabulary, vocabulary));
    const divergence = Float64Array.from(from === undefined ? [] : rows, (row, i) =>
      divergenceOf(from!.logits, logits, row * vocabulary, vocabulary, from!.logSums[i]!, logSums[i]!),
    );
    return Promise.resolve({ logSums, divergence });
  },
  close: () => Promise.resolve(),
};

/**
 * What a language model's predictions are, kept to compare others with: of `positions` rows of
 * logits [positions, vocabulary].
 */
export interface Predictions {
  readonly positions: number;
  readonly vocabulary: number;
  readonly logits: Float32Array;
  /** log sum_v exp(logit v) of each row. */
  readonly logSums: Float64Array;
}

/** The rows of logits, and the normaliser of each. */
export function predictionsOf(logits: Float32Array, vocabulary: number): Predictions {
  const positions = logits.length / vocabulary;
  const logSums = new Float64Array(positions);
  for (let row = 0; row < positions; row++) logSums[row] = logSumExp(logits, row * vocabulary, vocabulary);
  return { positions, vocabulary, logits, logSums };
}

/** -log p(token) as predicted in row `row`. */
export function crossEntropy({ logits, logSums, vocabulary }: Predictions, row: number, token: number): number {
  return logSums[row]! - logits[row * vocabulary + token]!;
}

/** KL(p || q) = sum_v p(v) (log p(v) - log q(v)) of row `row` of both. */
export function divergence(p: Predictions, q: Predictions, row: number): number {
  const { vocabulary } = p;
  return divergenceOf(p.logits, q.logits, row * vocabulary, vocabulary, p.logSums[row]!, q.logSums[row]!);
}

function divergenceOf(p: Float32Array, q: Float32Array, begin: number, count: number, sumP: number, sumQ: number) {
  let sum = 0;
  for (let i = begin; i < begin + count; i++) {
    const logP = p[i]! - sumP;
    const weight = Math.exp(logP);
    if (weight > 0) sum += weight * (logP - (q[i]! - sumQ)); // a token that p rules out counts nothing, whatever q says
  }
  return sum;
}

function logSumExp(values: Float32Array, begin: number, count: number): number {
  let most = Number.NEGATIVE_INFINITY;
  for (let i = begin; i < begin + count; i++) if (values[i]! > most) most = values[i]!;
  let sum = 0;
  for (let i = begin; i < begin + count; i++) sum += Math.exp(values[i]! - most);
  return most + Math.log(sum);
}

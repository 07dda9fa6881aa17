/** Cross-entropy and Kullback-Leibler divergence of next-token predictions, in nats, from logits. Sums are taken in float64. */

/** What a language model's predictions are, kept to compare others with: of `positions` rows of logits [positions, vocabulary]. */
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
  const begin = row * vocabulary;
  const shift = p.logSums[row]!;
  const other = q.logSums[row]!;
  let sum = 0;
  for (let i = begin; i < begin + vocabulary; i++) {
    const logP = p.logits[i]! - shift;
    const weight = Math.exp(logP);
    if (weight > 0) sum += weight * (logP - (q.logits[i]! - other)); // a token that p rules out counts nothing, whatever q says
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

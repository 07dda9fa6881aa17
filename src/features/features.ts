/**
 * Which latents to show to a reader. A latent can be checked at a glance when it fires on recurring
 * tokens that have something in common, so the choice is made by how it fires on tokens; it is one
 * of readability, not of worth: FVU and density speak of all latents alike.
 */

import type { Profiles } from "./profiles.ts";
import type { CountedToken } from "./token-uses.ts";

/**
 * A latent's use of one token and those that differ from it in case and spaces only; `token` is the
 * most frequent of them.
 */
export interface TokenUse {
  readonly token: number;
  /** Firings on this token, of how many occurrences in the rows that were looked at. */
  readonly firings: number;
  readonly occurrences: number;
  /** Share of the latent's energy (sum of squared values). */
  readonly share: number;
}

export interface Feature {
  readonly latent: number;
  readonly firings: number;
  /** Share of the rows in which it fires. */
  readonly density: number;
  /** Share of the energy (sum of squared values; decoder rows have norm 1) of all latents. */
  readonly energyShare: number;
  /** Contexts in which it fires. */
  readonly contexts: number;
  readonly max: number;
  /** By share, the largest first; at most 48. */
  readonly tokens: readonly TokenUse[];
  /**
   * sqrt(energyShare) x specificity x variety x recurrence x legibility, where, q being the
   * distribution of its energy over tokens and p that of the rows: specificity = KL(q' || p) in
   * nats, q' = (c q + 10 p) / (c + 10) for c firings, so that few firings count for little; variety
   * = min(0.1 + entropy of q, 2), as a single token is soon told; recurrence = share of the energy
   * on tokens on which it fires at least twice; legibility = 0.1 + 0.9 times the share of it on
   * whole words, as fragments of words mean little to a reader.
   */
  readonly score: number;
}

/** Fewer firings show no pattern; fewer contexts may be one text. */
export const LEAST_FIRINGS = 10;
export const LEAST_CONTEXTS = 5;
const MOST_DENSITY = 0.02;
/** Prior firings of specificity. */
const PRIOR = 10;
/** Tokens kept per latent. */
const MOST_TOKENS = 48;
const LEAST_VARIETY = 0.1;
const MOST_VARIETY = 2;
const LEAST_LEGIBILITY = 0.1;

/**
 * What is known of a latent. `counted`: all tokens on which it fires, the one with most energy
 * first; empty where rows have no tokens. `k`: active latents per row. `score` is 0 where too
 * little is known to say what the latent does, or it is not specific.
 */
export function describeLatent(
  profiles: Profiles,
  latent: number,
  counted: readonly CountedToken[],
  k: number,
): Feature {
  const { rows, total, occurrences, latents } = profiles;
  const { firings, energy, contexts, max, onWords } = profiles.of(latent);
  const tokens = counted.map(({ token, firings: on, energy: part }) => ({
    token: profiles.formOf(token),
    firings: on,
    occurrences: occurrences.get(token) ?? 0,
    share: part / energy,
  }));
  const energyShare = total > 0 ? energy / total : 0;
  const isCandidate =
    firings >= LEAST_FIRINGS && firings <= mostDensity(k, latents) * rows && contexts >= LEAST_CONTEXTS;
  const legibility = LEAST_LEGIBILITY + (1 - LEAST_LEGIBILITY) * onWords;
  return {
    latent,
    firings,
    density: firings / rows,
    energyShare,
    contexts,
    max,
    tokens: tokens.slice(0, MOST_TOKENS),
    score: isCandidate ? Math.sqrt(energyShare) * readability(tokens, firings, rows) * legibility : 0,
  };
}

/**
 * The largest density of a candidate: what fires more often is not specific. With few latents, k /
 * n is what each fires on the average.
 */
export function mostDensity(k: number, latents: number): number {
  return Math.max(MOST_DENSITY, k / latents);
}

/**
 * The `count` most readable latents, of different kinds: the candidates (at least 10 firings in at
 * least 5 contexts, in at most 2 % of the rows or k / n) are split by density into `count` bands of
 * equal size, from each of which comes the one with the highest score; no two share one of their
 * three main tokens.
 */
export function chooseFeatures(
  features: readonly Feature[],
  count: number,
  textOf: (token: number) => string,
): Feature[] {
  const candidates = features.filter(({ score }) => score > 0).sort((a, b) => b.density - a.density);
  const size = Math.max(1, Math.ceil(candidates.length / count));
  const seen = new Set<string>();
  const chosen: Feature[] = [];
  const take = (from: readonly Feature[]): void => {
    const wordsOf = ({ tokens }: Feature) => tokens.slice(0, 3).map(({ token }) => textOf(token).trim().toLowerCase());
    const best = from
      .filter((feature) => !chosen.includes(feature) && !wordsOf(feature).some((word) => seen.has(word)))
      .reduce<Feature | undefined>((a, b) => (a === undefined || b.score > a.score ? b : a), undefined);
    if (best === undefined) return;
    chosen.push(best);
    for (const word of wordsOf(best)) seen.add(word);
  };
  for (let band = 0; band < count; band++) take(candidates.slice(band * size, (band + 1) * size));
  while (chosen.length < Math.min(count, candidates.length)) {
    const before = chosen.length;
    take(candidates);
    if (chosen.length === before) break;
  }
  return chosen.sort((a, b) => b.score - a.score);
}

function readability(tokens: readonly TokenUse[], firings: number, rows: number): number {
  // Tokens on which it never fires have q' = left p.
  const left = PRIOR / (firings + PRIOR);
  let specificity = left * Math.log(left) * (1 - tokens.reduce((sum, { occurrences }) => sum + occurrences / rows, 0));
  let entropy = 0;
  let recurrence = 0;
  for (const { share, occurrences, firings: on } of tokens) {
    const p = occurrences / rows;
    const q = (firings * share + PRIOR * p) / (firings + PRIOR);
    specificity += q * Math.log(q / p);
    entropy -= share * Math.log(share);
    if (on > 1) recurrence += share;
  }
  return specificity * Math.min(LEAST_VARIETY + entropy, MOST_VARIETY) * recurrence;
}

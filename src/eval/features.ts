/**
 * Which latents to show to a reader. A latent can be checked at a glance when it fires on recurring tokens that have something in common, so the choice is made by
 * how it fires on tokens; it is one of readability, not of worth: FVU and density speak of all latents alike.
 */

import type { FiringLists } from "./firings.ts";

/** A latent's use of one token. */
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
  /** By share, the largest first. */
  readonly tokens: readonly TokenUse[];
  /**
   * sqrt(energyShare) x specificity x variety x recurrence x legibility, where, q being the distribution of its energy over tokens and p that of the rows:
   * specificity = KL(q' || p) in nats, q' = (c q + 10 p) / (c + 10) for c firings, so that few firings count for little; variety = min(0.1 + entropy of q, 2), as a single token is
   * soon told; recurrence = share of the energy on tokens on which it fires at least twice; legibility = 0.1 + 0.9 times the share of it on whole
   * words, as fragments of words mean little to a reader.
   */
  readonly score: number;
}

/** What is known of the rows that were looked at, in their order. */
export interface RowTokens {
  /** Token id of each row. */
  readonly ids: Int32Array;
  /** Number of the context - a sequence, or the part of a document in it - of each row. */
  readonly contexts: Uint32Array;
}

/** Fewer firings show no pattern; fewer contexts may be one text. */
const LEAST_FIRINGS = 10;
const LEAST_CONTEXTS = 5;
/** What fires more often is not specific. With few latents, k / n is what each fires on the average. */
const MOST_DENSITY = 0.02;
/** Prior firings of specificity. */
const PRIOR = 10;
const LEAST_VARIETY = 0.1;
const MOST_VARIETY = 2;
const LEAST_LEGIBILITY = 0.1;

/**
 * The `count` most readable latents, of different kinds: the candidates (at least 10 firings in at least 5 contexts, in at most 2 % of the rows or k / n) are split by density into `count` bands of
 * equal size, from each of which comes the one with the highest score; no two share one of their three main tokens. `k`: active latents of a row.
 */
export function chooseFeatures(
  lists: FiringLists,
  rows: RowTokens,
  count: number,
  k: number,
  textOf: (token: number) => string,
): Feature[] {
  const candidates = describeLatents(lists, rows, k, textOf).sort((a, b) => b.density - a.density);
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

function describeLatents(
  { offsets, row, value }: FiringLists,
  tokensOfRows: RowTokens,
  k: number,
  textOf: (token: number) => string,
): Feature[] {
  const { ids, contexts } = tokensOfRows;
  const latents = offsets.length - 1;
  const rows = ids.length;
  const most = Math.max(MOST_DENSITY, k / latents) * rows;
  const occurrences = new Map<number, number>();
  for (const id of ids) occurrences.set(id, (occurrences.get(id) ?? 0) + 1);
  const words = wholeWords(tokensOfRows, textOf);
  const total = value.reduce((sum, each) => sum + each * each, 0);
  const found: Feature[] = [];
  for (let latent = 0; latent < latents; latent++) {
    const [begin, end] = [offsets[latent], offsets[latent + 1]];
    const firings = end - begin;
    if (firings < LEAST_FIRINGS || firings > most) continue;
    const inContexts = new Set(Array.from(row.subarray(begin, end), (each) => contexts[each])).size;
    if (inContexts < LEAST_CONTEXTS) continue;
    let onWords = 0;
    const uses = new Map<number, { firings: number; energy: number }>();
    let energy = 0;
    let max = 0;
    for (let i = begin; i < end; i++) {
      const use = uses.get(ids[row[i]]) ?? { firings: 0, energy: 0 };
      use.firings++;
      use.energy += value[i] ** 2;
      uses.set(ids[row[i]], use);
      energy += value[i] ** 2;
      if (words[row[i]] === 1) onWords += value[i] ** 2;
      max = Math.max(max, value[i]);
    }
    const tokens = [...uses]
      .map(([token, use]) => ({ token, firings: use.firings, occurrences: occurrences.get(token) ?? 0, share: use.energy / energy }))
      .sort((a, b) => b.share - a.share || a.token - b.token);
    const about = { latent, firings, density: firings / rows, energyShare: energy / total, contexts: inContexts, max, tokens };
    const legibility = LEAST_LEGIBILITY + (1 - LEAST_LEGIBILITY) * (onWords / energy);
    found.push({ ...about, score: Math.sqrt(about.energyShare) * readability(tokens, firings, rows) * legibility });
  }
  return found;
}

/** 1 for each row whose token is a whole word of at least two characters, going by the characters around it. */
function wholeWords({ ids, contexts }: RowTokens, textOf: (token: number) => string): Uint8Array {
  const starts = (row: number) => /^[\p{L}\p{N}]/u.test(textOf(ids[row]));
  const ends = (row: number) => /[\p{L}\p{N}]$/u.test(textOf(ids[row]));
  return Uint8Array.from(ids, (id, row) => {
    if (!/^[\p{L}\p{N}]{2,}$/u.test(textOf(id).trim())) return 0;
    const goesOn = row > 0 && contexts[row - 1] === contexts[row] && starts(row) && ends(row - 1);
    const isCut = row + 1 < ids.length && contexts[row + 1] === contexts[row] && ends(row) && starts(row + 1);
    return goesOn || isCut ? 0 : 1;
  });
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

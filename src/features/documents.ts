/**
 * Whole texts with the codes of all their tokens: those in which many latents are at their
 * strongest.
 */

import type { NonFinite } from "../data/batches.ts";
import { rowsOf } from "../data/chunks.ts";
import { common, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import type { StoredDocument } from "../explorer/shared/format.ts";
import type { Sae } from "../inference/sae.ts";
import type { Profiles } from "./profiles.ts";
import { spanAround, TokenBlocks } from "./row-text.ts";

/** Tokens of all documents together, and on either side of the firing that one was chosen for. */
const MOST_TOKENS = 16_384;
const REACH = 1024;
/** Firings of each latent that speak for a document. */
const VOTES = 3;

/**
 * The documents, in the order of the data: contexts up to REACH tokens on either side, chosen one
 * after the other by how many latents have one of their strongest firings in them, per token.
 */
export async function chooseDocuments(source: Source, profiles: Profiles, most = MOST_TOKENS): Promise<Range[]> {
  const blocks = new TokenBlocks(source);
  const votes = new Map<number, { readonly first: number; readonly count: number; latents: number }>();
  for (let latent = 0; latent < profiles.latents; latent++) {
    for (const { number } of profiles.strongest(latent).slice(0, VOTES)) {
      const { first, end } = await spanAround(source, blocks, number, REACH, REACH);
      const known = votes.get(first) ?? { first, count: end - first, latents: 0 };
      known.latents++;
      votes.set(first, known);
    }
  }
  const chosen: Range[] = [];
  let tokens = 0;
  const byVotes = [...votes.values()].sort((a, b) => b.latents / b.count - a.latents / a.count || a.first - b.first);
  for (const { first, count } of byVotes) {
    if (tokens + count > most && tokens > 0) continue;
    // Of a text without ends, the places around two firings may overlap.
    if (chosen.some((other) => first < other.first + other.count && other.first < first + count)) continue;
    chosen.push({ first, count });
    tokens += count;
  }
  return chosen.sort((a, b) => a.first - b.first);
}

/** The codes of the documents' rows; rows that are not in the ranges have none. */
export async function encodeDocuments(
  sae: Sae,
  source: Source,
  documents: readonly Range[],
  ranges: readonly Range[],
  nonFinite: NonFinite,
): Promise<Omit<StoredDocument, "tokens">[]> {
  const found = documents.map(({ first, count }) => ({
    row: first,
    begin: Array.from({ length: count + 1 }, () => 0),
    latents: [] as number[],
    values: [] as number[],
  }));
  let at = 0;
  const chunks = rowsOf(source, common(documents, ranges), sae.chunks(nonFinite));
  for await (const { raw, rows, numbers, refuse } of chunks) {
    const { k, latent, value } = await sae.encodeRaw(raw, source.dtype, rows, refuse);
    for (let row = 0; row < rows; row++) {
      while (numbers[row] >= documents[at].first + documents[at].count) at++;
      const { begin, latents, values } = found[at];
      const token = numbers[row] - documents[at].first;
      for (let slot = row * k; slot < (row + 1) * k; slot++) {
        if (!(value[slot] > 0)) continue;
        latents.push(latent[slot]);
        values.push(Number(value[slot].toPrecision(3)));
      }
      begin[token + 1] = latents.length;
    }
  }
  // A token without codes begins where the one before it ends.
  for (const { begin } of found) for (let i = 1; i < begin.length; i++) begin[i] = Math.max(begin[i], begin[i - 1]);
  return found;
}

/** Of each latent the `count` documents in which it is strongest, by the sum of its values. */
export function documentsOfLatents(
  documents: readonly Pick<StoredDocument, "latents" | "values">[],
  latents: number,
  count: number,
): number[][] {
  const sums = Array.from({ length: latents }, () => new Map<number, number>());
  for (const [document, { latents: fired, values }] of documents.entries())
    for (const [i, latent] of fired.entries())
      sums[latent].set(document, (sums[latent].get(document) ?? 0) + values[i]);
  return sums.map((of) =>
    [...of]
      .sort((a, b) => b[1] - a[1] || a[0] - b[0])
      .slice(0, count)
      .map(([document]) => document),
  );
}

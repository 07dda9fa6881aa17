/** Which latents fired where: rows with their codes as they come, turned into lists by latent. */

import type { SparseCodes } from "../inference/sae.ts";

/**
 * Rows that were looked at, in their order. Without tokens `ids` is undefined, and every row is a
 * context of its own.
 */
export interface SeenRows {
  /** Number of each row in the source. */
  readonly numbers: Float64Array;
  readonly ids: Int32Array | undefined;
  /**
   * The kind of each token: tokens that differ in case and spaces only are of one kind, named by
   * the first of them that was seen.
   */
  readonly kinds: Int32Array | undefined;
  /** Number of the context - a sequence, or the part of a document in it - of each row. */
  readonly contexts: Uint32Array;
  /** 1 where the token is a whole word. */
  readonly words: Uint8Array;
}

/**
 * The firings of each latent: those of latent j are [offsets[j], offsets[j + 1]) of `row` and
 * `value`, in the order of the rows.
 */
export interface FiringLists {
  readonly offsets: Uint32Array;
  /** Which of the rows. */
  readonly row: Uint32Array;
  readonly value: Float32Array;
}

/** The lists of `latents` latents from the codes of some rows. */
export function firingLists({ k, latent, value }: SparseCodes, latents: number): FiringLists {
  const offsets = new Uint32Array(latents + 1);
  for (let slot = 0; slot < value.length; slot++) if (value[slot] > 0) offsets[latent[slot] + 1]++;
  for (let j = 0; j < latents; j++) offsets[j + 1] += offsets[j];
  const next = offsets.slice();
  const row = new Uint32Array(offsets[latents]);
  const values = new Float32Array(offsets[latents]);
  for (let slot = 0; slot < value.length; slot++) {
    if (!(value[slot] > 0)) continue;
    const at = next[latent[slot]]++;
    row[at] = Math.floor(slot / k);
    values[at] = value[slot];
  }
  return { offsets, row, value: values };
}

/** `before`, from its row `first` on, and `after` as one. */
export function joinRows(before: SeenRows, first: number, after: SeenRows): SeenRows {
  return {
    numbers: joined(before.numbers, first, after.numbers),
    ids: before.ids && after.ids && joined(before.ids, first, after.ids),
    kinds: before.kinds && after.kinds && joined(before.kinds, first, after.kinds),
    contexts: joined(before.contexts, first, after.contexts),
    words: joined(before.words, first, after.words),
  };
}

/** The same for their codes. */
export function joinCodes(before: SparseCodes, first: number, after: SparseCodes): SparseCodes {
  const { k } = after;
  return {
    k,
    latent: joined(before.latent, first * k, after.latent),
    value: joined(before.value, first * k, after.value),
  };
}

function joined<T extends Float64Array | Float32Array | Int32Array | Uint32Array | Uint8Array>(
  before: T,
  first: number,
  after: T,
): T {
  const left = before.subarray(first);
  const both = new (before.constructor as new (length: number) => T)(left.length + after.length);
  both.set(left);
  both.set(after, left.length);
  return both;
}

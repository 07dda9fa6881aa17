/** Which latents fired where: rows with their codes as they come, turned into lists by latent. */

import type { SparseCodes } from "../inference/sae.ts";

/** Rows that were looked at, in their order. Without tokens `ids` is undefined, and every row is a context of its own. */
export interface SeenRows {
  /** Number of each row in the source. */
  readonly numbers: Float64Array;
  readonly ids: Int32Array | undefined;
  /** The kind of each token: tokens that differ in case and spaces only are of one kind, named by the first of them that was seen. */
  readonly kinds: Int32Array | undefined;
  /** Number of the context - a sequence, or the part of a document in it - of each row. */
  readonly contexts: Uint32Array;
  /** 1 where the token is a whole word. */
  readonly words: Uint8Array;
}

/** The firings of each latent: those of latent j are [offsets[j], offsets[j + 1]) of `row` and `value`, in the order of the rows. */
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
  const rows = before.numbers.length - first;
  const joined = <T extends Float64Array | Int32Array | Uint32Array | Uint8Array>(a: T, b: T): T => {
    const both = new (a.constructor as new (length: number) => T)(rows + b.length);
    both.set(a.subarray(first));
    both.set(b, rows);
    return both;
  };
  return {
    numbers: joined(before.numbers, after.numbers),
    ids: before.ids && after.ids && joined(before.ids, after.ids),
    kinds: before.kinds && after.kinds && joined(before.kinds, after.kinds),
    contexts: joined(before.contexts, after.contexts),
    words: joined(before.words, after.words),
  };
}

/** The same for their codes. */
export function joinCodes(before: SparseCodes, first: number, after: SparseCodes): SparseCodes {
  const { k } = after;
  const slots = before.latent.length - first * k;
  const latent = new Uint32Array(slots + after.latent.length);
  const value = new Float32Array(slots + after.value.length);
  latent.set(before.latent.subarray(first * k));
  latent.set(after.latent, slots);
  value.set(before.value.subarray(first * k));
  value.set(after.value, slots);
  return { k, latent, value };
}

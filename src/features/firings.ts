/** Which latents fired where: rows with their codes as they come, turned into lists by latent. */

import { NONE } from "../engine/engine.ts";
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

/**
 * The same for their codes. They may have different numbers of slots: where a threshold decides,
 * each call of `encodeRaw` has as many as its rows need.
 */
export function joinCodes(before: SparseCodes, first: number, after: SparseCodes): SparseCodes {
  const k = Math.max(slotsUsed(before, first), after.k);
  const left = before.latent.length / before.k - first;
  const slots = k * (left + after.latent.length / after.k);
  const latent = new Uint32Array(slots).fill(NONE);
  const value = new Float32Array(slots);
  const put = (codes: SparseCodes, from: number, to: number) => {
    for (let slot = from * codes.k; slot < codes.latent.length; slot += codes.k, to += k) {
      const end = slot + Math.min(codes.k, k);
      latent.set(codes.latent.subarray(slot, end), to);
      value.set(codes.value.subarray(slot, end), to);
    }
  };
  put(before, first, 0);
  put(after, 0, left * k);
  return { k, latent, value };
}

/** Slots that the rows from `first` on need. */
function slotsUsed({ k, latent }: SparseCodes, first: number): number {
  let most = 0;
  for (let row = first * k; row < latent.length; row += k) while (most < k && latent[row + most] !== NONE) most++;
  return most;
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

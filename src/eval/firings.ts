/** Which latents fired where: collected row by row during an evaluation, then looked at latent by latent. */

import type { SparseCodes } from "../inference/sae.ts";

/** The firings of each latent: those of latent j are [offsets[j], offsets[j + 1]) of `row` and `value`, in the order of the rows. */
export interface FiringLists {
  readonly offsets: Uint32Array;
  /** An index into `numbers`. */
  readonly row: Uint32Array;
  readonly value: Float32Array;
  /** Number in the source of each row that was looked at, also where nothing fired. */
  readonly numbers: Float64Array;
}

/** 12 bytes each, twice while lists are made. */
const MOST_FIRINGS = 2 ** 25;

export class Firings {
  readonly #latents: number;
  readonly #most: number;
  #row = new Uint32Array(1 << 16);
  #latent = new Uint32Array(1 << 16);
  #value = new Float32Array(1 << 16);
  #count = 0;
  #numbers = new Float64Array(1 << 12);
  #rows = 0;

  constructor(latents: number, most = MOST_FIRINGS) {
    this.#latents = latents;
    this.#most = most;
  }

  /** Adds rows with their codes. Once memory for `most` firings is used up the rest is passed over. */
  add(numbers: Float64Array, rows: number, { k, latent, value }: SparseCodes): void {
    if (this.#count + rows * k > this.#most) return;
    while (this.#rows + rows > this.#numbers.length) this.#numbers = grown(this.#numbers);
    while (this.#count + rows * k > this.#row.length) {
      this.#row = grown(this.#row);
      this.#latent = grown(this.#latent);
      this.#value = grown(this.#value);
    }
    this.#numbers.set(numbers.subarray(0, rows), this.#rows);
    for (let slot = 0; slot < rows * k; slot++) {
      if (!(value[slot] > 0)) continue;
      this.#row[this.#count] = this.#rows + Math.floor(slot / k);
      this.#latent[this.#count] = latent[slot];
      this.#value[this.#count] = value[slot];
      this.#count++;
    }
    this.#rows += rows;
  }

  lists(): FiringLists {
    const offsets = new Uint32Array(this.#latents + 1);
    for (let i = 0; i < this.#count; i++) offsets[this.#latent[i] + 1]++;
    for (let j = 0; j < this.#latents; j++) offsets[j + 1] += offsets[j];
    const next = offsets.slice();
    const row = new Uint32Array(this.#count);
    const value = new Float32Array(this.#count);
    for (let i = 0; i < this.#count; i++) {
      const at = next[this.#latent[i]]++;
      row[at] = this.#row[i];
      value[at] = this.#value[i];
    }
    return { offsets, row, value, numbers: this.#numbers.slice(0, this.#rows) };
  }
}

function grown<T extends Float32Array | Float64Array | Uint32Array>(array: T): T {
  const larger = new (array.constructor as new (length: number) => T)(2 * array.length);
  larger.set(array);
  return larger;
}

/**
 * Codes of rows that several autoencoders have encoded, evenly spread over all that came, within a
 * budget: what fires together is counted in these.
 */

import type { SparseCodes } from "../inference/sae.ts";

/** Codes kept of each autoencoder, 8 bytes each and 4 more in the lists by latent: 200 MB. */
const MOST_CODES = 2 ** 24;

/** Codes of one autoencoder; those of row r are [begin[r], begin[r + 1]). */
export interface SampledCodes {
  readonly rows: number;
  readonly begin: Uint32Array;
  readonly latent: Uint32Array;
  readonly value: Float32Array;
}

export class CodeSample {
  readonly #kept: Kept[];
  readonly #most: number;
  #every = 1;
  #seen = 0;

  /** `count` autoencoders. */
  constructor(count: number, most = MOST_CODES) {
    this.#kept = Array.from({ length: count }, () => new Kept());
    this.#most = most;
  }

  /** The codes of the next rows, of each autoencoder. */
  add(codes: readonly SparseCodes[]): void {
    const [first] = codes;
    const rows = first === undefined ? 0 : first.latent.length / first.k;
    for (let row = 0; row < rows; row++) {
      if (this.#seen++ % this.#every !== 0) continue;
      for (const [i, kept] of this.#kept.entries()) kept.add(codes[i], row);
      while (this.#kept.some((kept) => kept.codes > this.#most) && this.#kept[0].rows > 1) {
        // Every other row stays.
        this.#every *= 2;
        for (const kept of this.#kept) kept.halve();
      }
    }
  }

  of(autoencoder: number): SampledCodes {
    return this.#kept[autoencoder].all();
  }
}

class Kept {
  rows = 0;
  codes = 0;
  #begin = new Uint32Array(1024);
  #latent = new Uint32Array(1024);
  #value = new Float32Array(1024);

  add({ k, latent, value }: SparseCodes, row: number): void {
    if (this.rows + 2 > this.#begin.length) this.#begin = grown(this.#begin);
    if (this.codes + k > this.#latent.length) {
      const places = Math.max(k, this.#latent.length);
      this.#latent = grown(this.#latent, places);
      this.#value = grown(this.#value, places);
    }
    for (let slot = row * k; slot < (row + 1) * k; slot++) {
      if (!(value[slot] > 0)) continue;
      this.#latent[this.codes] = latent[slot];
      this.#value[this.codes++] = value[slot];
    }
    this.#begin[++this.rows] = this.codes;
  }

  halve(): void {
    let [rows, codes] = [0, 0];
    for (let row = 0; row < this.rows; row += 2) {
      const [from, to] = [this.#begin[row], this.#begin[row + 1]];
      this.#latent.copyWithin(codes, from, to);
      this.#value.copyWithin(codes, from, to);
      codes += to - from;
      this.#begin[++rows] = codes;
    }
    [this.rows, this.codes] = [rows, codes];
  }

  all(): SampledCodes {
    return {
      rows: this.rows,
      begin: this.#begin.subarray(0, this.rows + 1),
      latent: this.#latent.subarray(0, this.codes),
      value: this.#value.subarray(0, this.codes),
    };
  }
}

function grown<T extends Uint32Array | Float32Array>(array: T, more = array.length): T {
  const next = new (array.constructor as new (length: number) => T)(array.length + more);
  next.set(array);
  return next;
}

/** The rows of each latent: those of latent j are [offsets[j], offsets[j + 1]) of `row`. */
export interface RowsOfLatents {
  readonly offsets: Uint32Array;
  readonly row: Uint32Array;
  /** Which of the codes it is. */
  readonly code: Uint32Array;
}

export function rowsOfLatents({ rows, begin, latent }: SampledCodes, latents: number): RowsOfLatents {
  const offsets = new Uint32Array(latents + 1);
  for (const j of latent) offsets[j + 1]++;
  for (let j = 0; j < latents; j++) offsets[j + 1] += offsets[j];
  const next = offsets.slice();
  const row = new Uint32Array(latent.length);
  const code = new Uint32Array(latent.length);
  for (let r = 0; r < rows; r++) {
    for (let i = begin[r]; i < begin[r + 1]; i++) {
      const at = next[latent[i]]++;
      row[at] = r;
      code[at] = i;
    }
  }
  return { offsets, row, code };
}

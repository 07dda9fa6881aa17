/** On which tokens each latent fires: exact counts, in bounded memory. */

import type { SparseCodes } from "../inference/sae.ts";

/** A latent's use of one kind of token. `energy`: sum of squared values. */
export interface CountedToken {
  readonly token: number;
  readonly firings: number;
  readonly energy: number;
}

/**
 * Places of the hash table, 20 bytes each, of which three quarters are filled at most: 168 MB, 6.3
 * million pairs of a latent and a token.
 */
const MOST_PLACES = 2 ** 23;
const FIRST_PLACES = 2 ** 12;

/**
 * Counts every pair of a latent and a token on which it fires. When there are more pairs than the
 * table may hold, it drops those of the highest latents: `end` falls, and `startNext` prepares
 * another pass over the same rows for the latents from there on. So counts are exact for any number
 * of latents, tokens and rows.
 */
export class TokenUses {
  readonly latents: number;
  readonly #mostPlaces: number;
  #first = 0;
  #end: number;
  #pairs = 0;
  #table: Table;
  /** Places of the pairs by latent, made when they are asked for. */
  #sorted: { readonly offsets: Uint32Array; readonly places: Uint32Array } | undefined;

  /** `mostPlaces`: a power of two. */
  constructor(latents: number, mostPlaces = MOST_PLACES) {
    this.latents = latents;
    this.#mostPlaces = mostPlaces;
    this.#end = latents;
    this.#table = newTable(Math.min(FIRST_PLACES, mostPlaces));
  }

  /** First of the latents that this pass counts. */
  get first(): number {
    return this.#first;
  }

  /** One more than the last of the latents that this pass counts. */
  get end(): number {
    return this.#end;
  }

  /** Forgets the latents of this pass and makes room for those from `end` on. */
  startNext(): void {
    this.#first = this.#end;
    this.#end = this.latents;
    this.#pairs = 0;
    this.#table.firings.fill(0);
    this.#sorted = undefined;
  }

  /** Counts rows by their codes; `kinds`: the kind of token of each. */
  add(kinds: Int32Array, { k, latent, value }: SparseCodes): void {
    this.#sorted = undefined;
    for (let slot = 0; slot < value.length; slot++) {
      const j = latent[slot];
      if (!(value[slot] > 0) || j < this.#first || j >= this.#end) continue;
      this.#addPair(j, kinds[Math.floor(slot / k)], 1, value[slot] * value[slot]);
    }
  }

  /** All tokens on which a latent of this pass fires, the one with most energy first. */
  of(latent: number): CountedToken[] {
    this.#sorted ??= this.#sort();
    const { offsets, places } = this.#sorted;
    const { token, firings, energy } = this.#table;
    return Array.from(
      places
        .subarray(offsets[latent - this.#first], offsets[latent - this.#first + 1])
        .sort((a, b) => energy[b] - energy[a] || token[a] - token[b]),
      (place) => ({ token: token[place], firings: firings[place], energy: energy[place] }),
    );
  }

  #addPair(latent: number, token: number, firings: number, energy: number): void {
    const table = this.#table;
    const mask = table.firings.length - 1;
    let place = hashOf(latent, token) & mask;
    while (table.firings[place] !== 0 && (table.latent[place] !== latent || table.token[place] !== token))
      place = (place + 1) & mask;
    if (table.firings[place] === 0) {
      table.latent[place] = latent;
      table.token[place] = token;
      table.energy[place] = 0;
      this.#pairs++;
    }
    table.firings[place] += firings;
    table.energy[place] += energy;
    if (this.#pairs * 4 > table.firings.length * 3) this.#makeRoom();
  }

  /**
   * Doubles the table; where it may not grow, drops the higher latents with about half of the
   * pairs. A single latent keeps all its tokens.
   */
  #makeRoom(): void {
    const { latent, token, firings, energy } = this.#table;
    const grows = firings.length < this.#mostPlaces || this.#end - this.#first === 1;
    if (!grows) this.#end = this.#halfOf();
    this.#table = newTable(grows ? 2 * firings.length : firings.length);
    this.#pairs = 0;
    for (let place = 0; place < firings.length; place++) {
      if (firings[place] > 0 && latent[place] < this.#end)
        this.#addPair(latent[place], token[place], firings[place], energy[place]);
    }
  }

  /**
   * The end of the lower latents that together have at most half of the pairs; at least one latent
   * is kept and one dropped.
   */
  #halfOf(): number {
    const counts = this.#countPairs();
    let end = this.#first + 1;
    let sum = counts[0];
    while (end < this.#end - 1 && 2 * (sum + counts[end - this.#first]) <= this.#pairs)
      sum += counts[end++ - this.#first];
    return end;
  }

  #countPairs(): Uint32Array {
    const { firings, latent } = this.#table;
    const counts = new Uint32Array(this.#end - this.#first);
    for (let place = 0; place < firings.length; place++) if (firings[place] > 0) counts[latent[place] - this.#first]++;
    return counts;
  }

  #sort() {
    const { firings, latent } = this.#table;
    const counts = this.#countPairs();
    const offsets = new Uint32Array(counts.length + 1);
    for (let i = 0; i < counts.length; i++) offsets[i + 1] = offsets[i] + counts[i];
    const next = offsets.slice();
    const places = new Uint32Array(this.#pairs);
    for (let place = 0; place < firings.length; place++)
      if (firings[place] > 0) places[next[latent[place] - this.#first]++] = place;
    return { offsets, places };
  }
}

/** Open addressing; a place with 0 firings is free. */
interface Table {
  readonly latent: Uint32Array;
  readonly token: Int32Array;
  readonly firings: Uint32Array;
  readonly energy: Float64Array;
}

function newTable(places: number): Table {
  return {
    latent: new Uint32Array(places),
    token: new Int32Array(places),
    firings: new Uint32Array(places),
    energy: new Float64Array(places),
  };
}

function hashOf(latent: number, token: number): number {
  let hash = Math.imul(latent, 0x9e37_79b1) ^ Math.imul(token, 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b_3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
}

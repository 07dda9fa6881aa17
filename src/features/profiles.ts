/**
 * What each latent does, collected in one pass over rows with their codes, in memory that depends
 * on the number of latents, not of rows.
 */

import type { SparseCodes } from "../inference/sae.ts";
import { hash32, PURPOSE } from "../util/rng.ts";
import { type FiringLists, firingLists, joinCodes, joinRows, type SeenRows } from "./firings.ts";
import { AFTER, BEFORE, type KeptFiring, KeptFirings, NO_KIND, RANGES } from "./kept-firings.ts";

/** Bars of a histogram over (0, cap]. */
const BARS = 64;
const BARS_A_RANGE = BARS / RANGES;

/** Firings with a value in (from, to]. */
export interface ValueRange {
  readonly from: number;
  readonly to: number;
  readonly firings: number;
  /** A uniform sample of them, the strongest first. */
  readonly sample: readonly KeptFiring[];
}

export interface Profile {
  readonly latent: number;
  readonly firings: number;
  /** Sum of squared values. */
  readonly energy: number;
  readonly max: number;
  /** Contexts in which it fires. */
  readonly contexts: number;
  /** Share of the energy on whole words. */
  readonly onWords: number;
}

export class Profiles {
  readonly latents: number;
  readonly #kept: KeptFirings;
  readonly #firings: Uint32Array;
  readonly #energy: Float64Array;
  readonly #onWords: Float64Array;
  readonly #max: Float32Array;
  readonly #contexts: Uint32Array;
  readonly #lastContext: Uint32Array;
  /** 0: it has not fired yet. */
  readonly #cap: Float64Array;
  readonly #bars: Uint32Array;
  readonly #occurrences = new Map<number, number>();
  /** Of each kind, its tokens with their occurrences. */
  readonly #forms = new Map<number, Map<number, number>>();
  #rows = 0;
  #total = 0;
  /**
   * The last rows: the first `#done` of them have been counted, and are there for what fires after
   * them.
   */
  #held: { readonly rows: SeenRows; readonly codes: SparseCodes } | undefined;
  #done = 0;

  constructor(latents: number) {
    this.latents = latents;
    this.#kept = new KeptFirings(latents);
    this.#firings = new Uint32Array(latents);
    this.#energy = new Float64Array(latents);
    this.#onWords = new Float64Array(latents);
    this.#max = new Float32Array(latents);
    this.#contexts = new Uint32Array(latents);
    this.#lastContext = new Uint32Array(latents).fill(0xffff_ffff);
    this.#cap = new Float64Array(latents);
    this.#bars = new Uint32Array(latents * BARS);
  }

  /** The next rows, which come in the order of the source, with their codes. */
  add(rows: SeenRows, codes: SparseCodes): void {
    this.#countTokens(rows);
    this.#rows += rows.numbers.length;
    const first = this.#held === undefined ? 0 : Math.max(0, this.#done - BEFORE);
    const all =
      this.#held === undefined
        ? { rows, codes }
        : { rows: joinRows(this.#held.rows, first, rows), codes: joinCodes(this.#held.codes, first, codes) };
    // What fires in the last rows waits until the rows after them are there.
    const end = all.rows.numbers.length - AFTER;
    this.#held = all;
    this.#done -= first;
    if (end > this.#done) this.#count(end);
  }

  /** After the last rows. */
  finish(): void {
    if (this.#held !== undefined) this.#count(this.#held.rows.numbers.length);
    this.#held = undefined;
    this.#done = 0;
  }

  get rows(): number {
    return this.#rows;
  }

  /** Sum of squared values of all latents. */
  get total(): number {
    return this.#total;
  }

  /** Of each kind of token in the rows. */
  get occurrences(): ReadonlyMap<number, number> {
    return this.#occurrences;
  }

  /** The most frequent token of a kind. */
  formOf(kind: number): number {
    let [form, most] = [kind, 0];
    for (const [id, count] of this.#forms.get(kind) ?? []) if (count > most) [form, most] = [id, count];
    return form;
  }

  of(latent: number): Profile {
    const energy = this.#energy[latent];
    return {
      latent,
      firings: this.#firings[latent],
      energy,
      max: this.#max[latent],
      contexts: this.#contexts[latent],
      onWords: energy > 0 ? this.#onWords[latent] / energy : 0,
    };
  }

  /**
   * The strongest firings of a latent, each of another context and at most two on tokens of one
   * kind, the strongest first.
   */
  strongest(latent: number): KeptFiring[] {
    return this.#kept.strongest(latent);
  }

  /**
   * Firings by value: `counts` of bars of equal width, from 0 to the bar that holds the maximum.
   */
  histogram(latent: number): { readonly width: number; readonly counts: readonly number[] } {
    const width = this.#cap[latent] / BARS;
    const bars = Array.from(this.#bars.subarray(latent * BARS, (latent + 1) * BARS));
    return { width, counts: bars.slice(0, bars.findLastIndex((count) => count > 0) + 1) };
  }

  /** The ranges of equal width that hold firings, the highest first. */
  ranges(latent: number): ValueRange[] {
    const width = this.#cap[latent] / RANGES;
    const found: ValueRange[] = [];
    for (let range = RANGES - 1; range >= 0; range--) {
      const begin = latent * BARS + range * BARS_A_RANGE;
      const firings = this.#bars.subarray(begin, begin + BARS_A_RANGE).reduce((sum, count) => sum + count, 0);
      if (firings === 0) continue;
      found.push({ from: range * width, to: (range + 1) * width, firings, sample: this.#kept.sample(latent, range) });
    }
    return found;
  }

  #countTokens({ ids, kinds }: SeenRows): void {
    if (ids === undefined || kinds === undefined) return;
    for (const [i, kind] of kinds.entries()) {
      this.#occurrences.set(kind, (this.#occurrences.get(kind) ?? 0) + 1);
      const forms = this.#forms.get(kind) ?? new Map<number, number>();
      this.#forms.set(kind, forms);
      forms.set(ids[i], (forms.get(ids[i]) ?? 0) + 1);
    }
  }

  /** Counts the held rows up to `end`. */
  #count(end: number): void {
    const { rows, codes } = this.#held!;
    const lists = firingLists(codes, this.latents);
    for (let latent = 0; latent < this.latents; latent++) {
      if (lists.offsets[latent] < lists.offsets[latent + 1]) this.#countLatent(latent, lists, rows, end);
    }
    this.#done = end;
  }

  #countLatent(
    latent: number,
    { offsets, row, value }: FiringLists,
    { numbers, kinds, contexts, words }: SeenRows,
    endRow: number,
  ): void {
    const [first, last] = [offsets[latent], offsets[latent + 1]];
    let [begin, end] = [first, last];
    while (begin < end && row[begin] < this.#done) begin++;
    while (end > begin && row[end - 1] >= endRow) end--;
    let max = this.#max[latent];
    for (let i = begin; i < end; i++) max = Math.max(max, value[i]);
    this.#max[latent] = max;
    this.#raiseCap(latent, max);
    const cap = this.#cap[latent];
    for (let i = begin; i < end; i++) {
      const at = row[i];
      const energy = value[i] * value[i];
      this.#firings[latent]++;
      this.#energy[latent] += energy;
      this.#total += energy;
      if (words[at] === 1) this.#onWords[latent] += energy;
      if (contexts[at] !== this.#lastContext[latent]) this.#contexts[latent]++;
      this.#lastContext[latent] = contexts[at];
      const bar = Math.ceil((value[i] / cap) * BARS) - 1;
      this.#bars[latent * BARS + bar]++;
      this.#kept.offerStrongest(latent, value[i], numbers[at], contexts[at], kinds?.[at] ?? NO_KIND, i);
      const priority = hash32(PURPOSE.sample, latent, numbers[at]);
      this.#kept.offerSample(latent, Math.floor(bar / BARS_A_RANGE), priority, value[i], numbers[at], contexts[at], i);
    }
    this.#kept.readAround(latent, first, last, row, value, numbers);
  }

  /** Doubling joins bars and ranges two by two, so that counts stay exact and samples fair. */
  #raiseCap(latent: number, value: number): void {
    if (this.#cap[latent] === 0 && value > 0) this.#cap[latent] = 2 ** Math.ceil(Math.log2(value));
    while (value > this.#cap[latent]) {
      this.#cap[latent] *= 2;
      const bars = this.#bars.subarray(latent * BARS, (latent + 1) * BARS);
      for (let bar = 0; bar < BARS; bar++) bars[bar] = bar < BARS / 2 ? bars[2 * bar] + bars[2 * bar + 1] : 0;
      this.#kept.mergeRanges(latent);
    }
  }
}

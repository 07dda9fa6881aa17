/**
 * The firings of each latent that are worth showing, with what the latent did on the rows around:
 * the strongest ones in some variety, and a fair sample from each of several ranges of values. All
 * in one pass, in memory that depends on the number of latents alone.
 */

import { decodeBfloat16, encodeBfloat16 } from "../util/float16.ts";

/**
 * Strongest firings kept a latent, and of these on tokens of one kind: more of the same would not
 * tell more.
 */
export const STRONGEST = 16;
export const OF_A_KIND = 2;
/**
 * Ranges of values, of equal width from 0 to the cap: the smallest power of two that no value
 * exceeds.
 */
export const RANGES = 8;
/** Firings kept a range. */
export const SAMPLED = 4;
/** Rows before and after a firing of which the values are kept. */
export const BEFORE = 24;
export const AFTER = 15;

const SLOTS = STRONGEST + RANGES * SAMPLED;
const WINDOW = BEFORE + 1 + AFTER;

/**
 * One firing. `around` [BEFORE + 1 + AFTER]: the latent's values on the rows around it in the
 * source, rounded to bf16; 0 where it did not fire.
 */
export interface KeptFiring {
  readonly value: number;
  /** Number of the row in the source. */
  readonly number: number;
  readonly context: number;
  readonly around: Float32Array;
}

/**
 * Where a firing stands among those of its latent that are at hand, so that its surroundings can be
 * read from there.
 */
const NOT_FRESH = -1;
/** The kind of a row without a token. */
export const NO_KIND = -1;

export class KeptFirings {
  /** How many of the strongest are kept. */
  readonly #strongest: Uint8Array;
  /** How many of each range are kept [latents * RANGES]. */
  readonly #sampled: Uint8Array;
  readonly #value: Float32Array;
  readonly #number: Float64Array;
  readonly #context: Uint32Array;
  /** Of the strongest: the kind of token [latents * STRONGEST]. */
  readonly #kind: Int32Array;
  readonly #priority: Uint32Array;
  /** bf16 [latents * SLOTS, WINDOW]. */
  readonly #around: Uint16Array;
  /**
   * Of the latent that is being added to: which of its firings a slot has, where it is one of
   * these.
   */
  readonly #fresh = new Int32Array(SLOTS).fill(NOT_FRESH);
  readonly #row = new Float32Array(WINDOW);

  /** 130 bytes a slot with its surroundings, 48 slots a latent: 200 MB for 32,768 latents. */
  constructor(latents: number) {
    this.#strongest = new Uint8Array(latents);
    this.#sampled = new Uint8Array(latents * RANGES);
    this.#value = new Float32Array(latents * SLOTS);
    this.#number = new Float64Array(latents * SLOTS);
    this.#context = new Uint32Array(latents * SLOTS);
    this.#kind = new Int32Array(latents * STRONGEST);
    this.#priority = new Uint32Array(latents * SLOTS);
    this.#around = new Uint16Array(latents * SLOTS * WINDOW);
  }

  /**
   * Keeps a firing if it is among the strongest, each of another context and at most OF_A_KIND on
   * tokens of one kind. The strongest of all is always kept; what was passed over for the others of
   * its kind does not come back when one of these gives way to a stronger firing of its context.
   * `at`: which of the latent's firings at hand it is.
   */
  offerStrongest(latent: number, value: number, number: number, context: number, kind: number, at: number): void {
    const base = latent * SLOTS;
    const used = this.#strongest[latent];
    let same = -1;
    let weakest = -1;
    let weakestOfKind = -1;
    let ofKind = 0;
    for (let slot = base; slot < base + used; slot++) {
      if (this.#context[slot] === context) same = slot;
      else if (kind !== NO_KIND && this.#kind[slot - base + latent * STRONGEST] === kind) {
        ofKind++;
        if (weakestOfKind < 0 || this.#value[slot] < this.#value[weakestOfKind]) weakestOfKind = slot;
      }
      if (weakest < 0 || this.#value[slot] < this.#value[weakest]) weakest = slot;
    }
    if (same >= 0 && value <= this.#value[same]) return;
    let slot = same;
    if (ofKind >= OF_A_KIND) slot = weakestOfKind;
    else if (same < 0) slot = used < STRONGEST ? base + used : weakest;
    if (slot < base + used && value <= this.#value[slot]) return;
    if (slot === base + used) this.#strongest[latent]++;
    this.#put(base, slot, value, number, context, 0, at);
    this.#kind[slot - base + latent * STRONGEST] = kind;
    if (same >= 0 && slot !== same) this.#drop(latent, same);
  }

  /**
   * Keeps a firing if its priority, a random number, is among the lowest of its range: a uniform
   * sample of the range, whatever the order.
   */
  offerSample(
    latent: number,
    range: number,
    priority: number,
    value: number,
    number: number,
    context: number,
    at: number,
  ): void {
    const base = latent * SLOTS;
    const first = base + STRONGEST + range * SAMPLED;
    const used = this.#sampled[latent * RANGES + range];
    if (used < SAMPLED) {
      this.#sampled[latent * RANGES + range] = used + 1;
      this.#put(base, first + used, value, number, context, priority, at);
      return;
    }
    let last = first;
    for (let slot = first + 1; slot < first + SAMPLED; slot++)
      if (this.#priority[slot] > this.#priority[last]) last = slot;
    if (priority < this.#priority[last]) this.#put(base, last, value, number, context, priority, at);
  }

  /**
   * The cap has doubled: two ranges become one, of which the firings of lowest priority stay. Only
   * before a latent's turn.
   */
  mergeRanges(latent: number): void {
    const base = latent * SLOTS;
    for (let range = 0; range < RANGES; range++) {
      const slots =
        range < RANGES / 2 ? [...this.#slotsOf(latent, 2 * range), ...this.#slotsOf(latent, 2 * range + 1)] : [];
      const kept = slots.sort((a, b) => this.#priority[a] - this.#priority[b]).slice(0, SAMPLED);
      const copies = kept.map((slot) => ({
        value: this.#value[slot],
        number: this.#number[slot],
        context: this.#context[slot],
        priority: this.#priority[slot],
        around: this.#around.slice(slot * WINDOW, (slot + 1) * WINDOW),
      }));
      // Slots of ranges to come are only read later: range r is written when 2r and 2r + 1 have
      // been read.
      for (const [i, { value, number, context, priority, around }] of copies.entries()) {
        const slot = base + STRONGEST + range * SAMPLED + i;
        this.#put(base, slot, value, number, context, priority, NOT_FRESH);
        this.#around.set(around, slot * WINDOW);
      }
      this.#sampled[latent * RANGES + range] = copies.length;
    }
  }

  /**
   * Ends a latent's turn: reads the surroundings of what it has kept of the firings at hand, which
   * are [begin, end) of `row` and `value`, in order; `numbers` [row]: their rows in the source.
   */
  readAround(
    latent: number,
    begin: number,
    end: number,
    row: Uint32Array,
    value: Float32Array,
    numbers: Float64Array,
  ): void {
    const base = latent * SLOTS;
    for (let i = 0; i < SLOTS; i++) {
      const at = this.#fresh[i];
      if (at === NOT_FRESH) continue;
      this.#fresh[i] = NOT_FRESH;
      const window = this.#row.fill(0);
      const first = this.#number[base + i] - BEFORE;
      let from = at;
      while (from > begin && numbers[row[from - 1]] >= first) from--;
      for (let other = from; other < end && numbers[row[other]] < first + WINDOW; other++)
        window[numbers[row[other]] - first] = value[other];
      encodeBfloat16(window, this.#around.subarray((base + i) * WINDOW, (base + i + 1) * WINDOW));
    }
  }

  /**
   * The strongest firings, each of another context and at most OF_A_KIND on tokens of one kind, the
   * strongest first.
   */
  strongest(latent: number): KeptFiring[] {
    return Array.from({ length: this.#strongest[latent] }, (_, i) => this.#firing(latent * SLOTS + i)).sort(byValue);
  }

  /** A sample of the firings in one of the ranges, the strongest first. */
  sample(latent: number, range: number): KeptFiring[] {
    return this.#slotsOf(latent, range)
      .map((slot) => this.#firing(slot))
      .sort(byValue);
  }

  /** The last of the strongest takes the place of one that goes. */
  #drop(latent: number, slot: number): void {
    const base = latent * SLOTS;
    const last = base + --this.#strongest[latent];
    this.#put(base, slot, this.#value[last], this.#number[last], this.#context[last], 0, this.#fresh[last - base]);
    this.#kind[slot - base + latent * STRONGEST] = this.#kind[last - base + latent * STRONGEST];
    this.#around.copyWithin(slot * WINDOW, last * WINDOW, (last + 1) * WINDOW);
    this.#fresh[last - base] = NOT_FRESH;
  }

  #slotsOf(latent: number, range: number): number[] {
    const first = latent * SLOTS + STRONGEST + range * SAMPLED;
    return Array.from({ length: this.#sampled[latent * RANGES + range] }, (_, i) => first + i);
  }

  #put(base: number, slot: number, value: number, number: number, context: number, priority: number, at: number): void {
    this.#value[slot] = value;
    this.#number[slot] = number;
    this.#context[slot] = context;
    this.#priority[slot] = priority;
    this.#fresh[slot - base] = at;
  }

  #firing(slot: number): KeptFiring {
    const around = decodeBfloat16(this.#around.subarray(slot * WINDOW, (slot + 1) * WINDOW));
    return { value: this.#value[slot], number: this.#number[slot], context: this.#context[slot], around };
  }
}

function byValue(a: KeptFiring, b: KeptFiring): number {
  return b.value - a.value || a.number - b.number;
}

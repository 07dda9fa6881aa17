/**
 * Random numbers as pure functions of their seeds. Everything that a run draws (weights, order,
 * hold-out, samples) comes from here, keyed by the run's seed, a purpose and an index, so that any
 * part of it can be drawn again without drawing what came before.
 */

/** What random numbers are drawn for; keeps the streams of one seed apart. */
export const PURPOSE = {
  encoder: 1,
  order: 2,
  holdout: 3,
  sample: 4,
  probes: 5,
  synthetic: 6,
  verify: 7,
  continuation: 8,
} as const;

/** Murmur3's finaliser: a bijection of 32-bit integers that mixes all bits. */
export function fmix32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** One 32-bit hash of a list of integers (each taken modulo 2^64). */
export function hash32(...keys: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const key of keys) {
    h = fmix32(h ^ (key >>> 0));
    h = fmix32((h + Math.floor(key / 0x1_0000_0000)) | 0);
  }
  return h;
}

/** xoshiro128** (Blackman and Vigna, 2018), seeded from a list of integers. */
export class Rng {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(...keys: readonly number[]) {
    this.#a = hash32(...keys, 1);
    this.#b = hash32(...keys, 2);
    this.#c = hash32(...keys, 3);
    this.#d = hash32(...keys, 4) | 1; // the state must not be all zero
  }

  /** Uniform over 0 .. 2^32 - 1. */
  u32(): number {
    const product = Math.imul(this.#b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9);
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result >>> 0;
  }

  /** Uniform over [0, 1), with 53 bits. */
  uniform(): number {
    return ((this.u32() >>> 5) * 0x400_0000 + (this.u32() >>> 6)) / 0x20_0000_0000_0000;
  }

  /** Uniform over 0 .. bound - 1, without bias, for bound up to 2^32. */
  below(bound: number): number {
    let drawn = this.u32();
    // What is left over above the last whole multiple of the bound; rarely near enough to be worth
    // a remainder, which is slow beyond 31 bits.
    if (drawn >= 0x1_0000_0000 - bound) {
      const limit = 0x1_0000_0000 - (0x1_0000_0000 % bound);
      while (drawn >= limit) drawn = this.u32();
    }
    return drawn - Math.floor(drawn / bound) * bound;
  }

  /** Standard normal, by Box and Muller. */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** Fisher and Yates, in place. */
  shuffle(items: Uint32Array): Uint32Array {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const held = items[i]!;
      items[i] = items[j]!;
      items[j] = held;
    }
    return items;
  }
}

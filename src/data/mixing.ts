/**
 * A buffer that mixes rows on their way: when it is full, each new row takes the place of one that
 * is drawn from it. Neighbours of the stream leave it on average as many rows apart as it holds,
 * without the steps of a buffer that is emptied by half and filled again.
 */

import { PURPOSE, Rng } from "../util/rng.ts";

export class MixingBuffer {
  readonly #memory: Uint8Array;
  readonly #rowBytes: number;
  readonly #rng: Rng | undefined;
  readonly capacity: number;
  #size = 0;
  /** The row that came first, where nothing is mixed. */
  #first = 0;

  /** `seed`: undefined keeps the rows in their order. */
  constructor(capacity: number, rowBytes: number, seed: number | undefined) {
    this.capacity = capacity;
    this.#memory = new Uint8Array(capacity * rowBytes);
    this.#rowBytes = rowBytes;
    this.#rng = seed === undefined ? undefined : new Rng(seed, PURPOSE.order, 0);
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Moves a row to byte `to` of `into`, and adds the row at byte `at` of `from` in its place. The
   * buffer must be full where it keeps the order.
   */
  exchange(into: Uint8Array, to: number, from: Uint8Array, at: number): void {
    const slot = this.#rng === undefined ? this.#first : this.#rng.below(this.#size);
    this.#copy(slot, into, to);
    this.#memory.set(from.subarray(at, at + this.#rowBytes), slot * this.#rowBytes);
    if (this.#rng === undefined) this.#first = (this.#first + 1) % this.capacity;
  }

  /** Adds the row at byte `at` of `from`; there must be room. */
  add(from: Uint8Array, at: number): void {
    const slot = (this.#first + this.#size++) % this.capacity;
    this.#memory.set(from.subarray(at, at + this.#rowBytes), slot * this.#rowBytes);
  }

  /** Moves a row to byte `to` of `into`; one must be there. */
  take(into: Uint8Array, to: number): void {
    const last = --this.#size;
    if (this.#rng === undefined) {
      this.#copy(this.#first, into, to);
      this.#first = (this.#first + 1) % this.capacity;
      return;
    }
    const slot = this.#rng.below(last + 1);
    this.#copy(slot, into, to);
    const bytes = this.#rowBytes;
    if (slot !== last) this.#memory.copyWithin(slot * bytes, last * bytes, (last + 1) * bytes);
  }

  #copy(slot: number, into: Uint8Array, to: number): void {
    const bytes = this.#rowBytes;
    into.set(this.#memory.subarray(slot * bytes, (slot + 1) * bytes), to);
  }
}

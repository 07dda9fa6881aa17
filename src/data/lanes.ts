/**
 * The order of the rows of a window. Rows are dealt to lanes: each lane is a run of neighbours in
 * the window's memory, shuffled for itself, and the order takes one row of each lane in turn. Any
 * stretch of the order therefore has as many rows of each lane as of any other (or one more), and
 * batches that are sorted by lane have the rows of a lane always in the same slots: a replica reads
 * the lanes of its slots and no others, and all numbers of replicas see the same order.
 */

/**
 * Lanes at most. Replicas that divide it read disjoint lanes; of others, neighbours share one lane.
 */
const MOST_LANES = 2 ** 6 * 3 * 5 * 7;

/** Lanes for batches of so many rows: 64 where the batch is a power of two. */
export function lanesFor(batch: number): number {
  let [a, b] = [MOST_LANES, batch];
  while (b > 0) [a, b] = [b, a % b];
  return a;
}

/** Rows of a window's memory, or positions of its order: [first, end). */
export interface Span {
  readonly first: number;
  readonly end: number;
}

/** The lanes that slots [first, end) of a full batch are filled from. */
export function lanesOfSlots({ first, end }: Span, batch: number, lanes: number): Span {
  return { first: Math.floor((first * lanes) / batch), end: Math.ceil((end * lanes) / batch) };
}

/** The lanes of a window of `size` rows. */
export class Lanes {
  readonly size: number;
  readonly count: number;
  /** The lane of the window's first row. */
  readonly #phase: number;
  readonly #shuffle: (rows: Uint32Array, lane: number) => void;
  readonly #rows: (Uint32Array | undefined)[] = [];

  /**
   * `position`: of the window's first row in its epoch. `shuffle` permutes the rows of a lane, in
   * place.
   */
  constructor(size: number, count: number, position: number, shuffle: (rows: Uint32Array, lane: number) => void) {
    this.size = size;
    this.count = count;
    this.#phase = position % count;
    this.#shuffle = shuffle;
  }

  /** Where lane `lane` begins in the window's memory; of lane `count`: the end of it. */
  start(lane: number): number {
    // `longer` lanes have a row more: those from the phase on, and then from lane 0 on.
    const longer = this.size % this.count;
    const fromPhase = Math.min(Math.max(lane - this.#phase, 0), longer);
    const fromFirst = Math.min(Math.max(this.#phase + longer - this.count, 0), lane);
    return lane * Math.floor(this.size / this.count) + fromPhase + fromFirst;
  }

  /** The rows of the window's memory that a lane has, in its order. */
  rows(lane: number): Uint32Array {
    const known = this.#rows[lane];
    if (known !== undefined) return known;
    const first = this.start(lane);
    const rows = new Uint32Array(this.start(lane + 1) - first);
    for (let i = 0; i < rows.length; i++) rows[i] = first + i;
    this.#shuffle(rows, lane);
    this.#rows[lane] = rows;
    return rows;
  }

  /** Which rows of the lane lie in the positions: [first, end) of `rows(lane)`. */
  within(lane: number, { first, end }: Span): Span {
    const begin = (lane - this.#phase + this.count) % this.count;
    const index = (position: number) => Math.max(0, Math.ceil((position - begin) / this.count));
    return { first: index(first), end: index(end) };
  }

  /** The row of memory at a position of the order. */
  at(position: number): number {
    return this.rows((this.#phase + position) % this.count)[Math.floor(position / this.count)]!;
  }

  /** All rows of memory in the order. */
  inOrder(): Uint32Array {
    return Uint32Array.from({ length: this.size }, (_, position) => this.at(position));
  }
}

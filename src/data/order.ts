/**
 * The order of rows: a pure function of (seed, epoch, position), so that a run can be taken up
 * anywhere without reading what came before.
 *
 * The file is cut into blocks of neighbouring rows, which a disk reads at full speed. Each epoch
 * permutes the blocks, groups them into windows that fit in memory, and permutes the rows of each
 * window (`lanes.ts`): a batch mixes rows of some hundred places of the file, and a file smaller
 * than a window is mixed whole. Excluded rows are squeezed out of a window as it is read.
 */

import { PURPOSE, Rng } from "../util/rng.ts";
import { type Range, without } from "./holdout.ts";
import { Lanes } from "./lanes.ts";
import type { RowSet } from "./mask.ts";
import type { Source } from "./source.ts";

export interface Geometry {
  /** The order is of rows [first, rows) of the source; default: from row 0. */
  readonly first?: number;
  readonly rows: number;
  readonly rowBytes: number;
  /** Rows that the file stores together. */
  readonly grain: number;
  /**
   * Blocks keep their order, and windows are short when nothing is shuffled: the rows arrive one
   * after the other, perhaps slowly.
   */
  readonly stream?: Source["stream"];
}

/** Neighbouring rows of the file, of which `visited` are not excluded. */
export interface Block extends Range {
  readonly visited: number;
}

/** A part of an epoch that is in memory at once. */
export interface Window {
  /** Two windows with the same key hold the same rows in the same places. */
  readonly key: string;
  /** What to read; the rows that are not excluded lie in memory in this order. */
  readonly blocks: readonly Block[];
  /** The rows of memory in the order of the epoch. */
  readonly lanes: Lanes;
  /** The position in the epoch of the first row of the order. */
  readonly position: number;
}

export interface OrderOptions {
  readonly seed: number;
  readonly shuffle: boolean;
  /**
   * Rows of a batch: a window holds at least as many, so that a batch never reaches over more than
   * two.
   */
  readonly batch: number;
  /** Lanes of a shuffled window; default: 1, as in runs of earlier versions. */
  readonly lanes?: number;
  /** Bytes that a block and a window hold at least, where the file has as many. */
  readonly blockBytes?: number;
  readonly windowBytes?: number;
}

interface Epoch {
  readonly epoch: number;
  readonly blocks: Uint32Array;
  /**
   * Where each window begins, as an index into blocks and as a position; and the end of the last.
   */
  readonly starts: readonly { readonly block: number; readonly position: number }[];
}

/** The order of all epochs, as batches are made from it. */
export interface RowOrder {
  /** Rows that an epoch visits. */
  rowsIn(epoch: number): number;
  /** Windows of an epoch at most; 1: the same window is the whole of every epoch. */
  readonly windows: number;
  /** No window holds more rows than this. */
  readonly windowRows: number;
  window(epoch: number, position: number): Window;
  isExcluded(row: number): boolean;
  visited(first: number, count: number): Range[];
}

/** Every epoch visits the same rows. */
export class Order implements RowOrder {
  /** Rows that an epoch visits. */
  readonly rowsPerEpoch: number;
  /** Windows of an epoch. */
  readonly windows: number;
  readonly #geometry: Geometry;
  readonly #options: OrderOptions;
  readonly #excluded: RowSet;
  readonly #blockRows: number;
  /** Blocks with at least one row to visit. */
  readonly #blocks: Uint32Array;
  /** Rows to visit of each block of the file. */
  readonly #visited: Uint32Array;
  #cached: Epoch | undefined;

  constructor(geometry: Geometry, excluded: RowSet, options: OrderOptions) {
    this.#geometry = geometry;
    this.#options = options;
    this.#excluded = excluded;
    const { rows, rowBytes, grain } = geometry;
    const waits = geometry.stream !== undefined && !options.shuffle;
    const { batch } = options;
    const { blockBytes = waits ? Math.ceil(batch / 2) * rowBytes : 256 * 1024 } = options;
    const { windowBytes = waits ? 0 : 64 * 1024 * 1024 } = options;
    this.#blockRows = grain * Math.max(1, Math.floor(blockBytes / (rowBytes * grain)));
    const start = geometry.first ?? 0;
    this.#visited = new Uint32Array(Math.ceil((rows - start) / this.#blockRows));
    for (let block = 0; block < this.#visited.length; block++) {
      const { first, count } = this.#range(block);
      this.#visited[block] = count - excluded.countIn(first, count);
    }
    this.#blocks = Uint32Array.from(this.#visited.keys()).filter((block) => this.#visited[block]! > 0);
    this.rowsPerEpoch = this.#visited.reduce((sum, visited) => sum + visited, 0);
    // A window ends at a block's end, so it can fall short of its share of the rows by one block.
    const share = Math.max(Math.ceil(windowBytes / rowBytes), 2 * batch, 4 * this.#blockRows);
    this.windows = Math.max(1, Math.floor(this.rowsPerEpoch / share));
  }

  rowsIn(): number {
    return this.rowsPerEpoch;
  }

  get windowRows(): number {
    return this.windows === 1 ? this.rowsPerEpoch : Math.ceil(this.rowsPerEpoch / this.windows) + this.#blockRows;
  }

  /** The window that holds the position (0 .. rowsPerEpoch - 1) of the epoch. */
  window(epoch: number, position: number): Window {
    const { blocks, starts } = this.#plan(epoch);
    if (!(position >= 0 && position < this.rowsPerEpoch))
      throw new RangeError(`position ${position} of ${this.rowsPerEpoch}`);
    let w = 0;
    while (starts[w + 1]!.position <= position) w++;
    const begin = starts[w]!;
    const end = starts[w + 1]!;
    const { seed, shuffle, lanes = 1 } = this.#options;
    const count = shuffle ? lanes : 1;
    const shuffleLane = (rows: Uint32Array, lane: number) => {
      if (shuffle) new Rng(seed, PURPOSE.order, epoch, w + 1, ...(count === 1 ? [] : [lane])).shuffle(rows);
    };
    return {
      key: this.windows === 1 ? "all" : `${epoch}.${w}`,
      blocks: Array.from(blocks.subarray(begin.block, end.block), (block) => ({
        ...this.#range(block),
        visited: this.#visited[block]!,
      })),
      lanes: new Lanes(end.position - begin.position, count, begin.position, shuffleLane),
      position: begin.position,
    };
  }

  isExcluded(row: number): boolean {
    return this.#excluded.has(row);
  }

  /** What is visited of [first, first + count), as ranges. */
  visited(first: number, count: number): Range[] {
    return without([{ first, count }], this.#excluded);
  }

  #range(block: number): Range {
    const first = (this.#geometry.first ?? 0) + block * this.#blockRows;
    return { first, count: Math.min(this.#blockRows, this.#geometry.rows - first) };
  }

  #plan(epoch: number): Epoch {
    if (this.#cached?.epoch === epoch) return this.#cached;
    const blocks = this.#blocks.slice();
    // What is in memory whole keeps its place there, so that it need not be read again each epoch.
    const moves = this.#options.shuffle && this.windows > 1 && this.#geometry.stream === undefined;
    if (moves) new Rng(this.#options.seed, PURPOSE.order, epoch, 0).shuffle(blocks);
    const starts = [{ block: 0, position: 0 }];
    let position = 0;
    blocks.forEach((block, i) => {
      position += this.#visited[block]!;
      const due = (starts.length * this.rowsPerEpoch) / this.windows;
      if (position >= due && starts.length < this.windows) starts.push({ block: i + 1, position });
    });
    starts.push({ block: blocks.length, position });
    this.#cached = { epoch, blocks, starts };
    return this.#cached;
  }
}

/**
 * Batches of rows in the run's order. Two windows live in the engine's memory (the ring); while one is trained on, the next is read from
 * disk. A batch says what to put into the ring before it, and which rows of the ring it is.
 */

import { BYTES } from "../engine/engine.ts";
import { SaettaError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import { screenedMemory } from "../util/screen.ts";
import type { Range } from "./holdout.ts";
import type { Order, Window } from "./order.ts";
import type { RowDType, Source } from "./source.ts";

export interface Batch {
  /** To be written into the ring, from row `at` on, before the batch is used. The bytes are overwritten once the next batch is asked for. */
  readonly uploads: readonly { readonly at: number; readonly bytes: Uint8Array }[];
  /** Rows of the ring. */
  readonly rows: Uint32Array;
  /** Where the next batch begins. */
  readonly next: Position;
}

/** A place in the stream of all epochs. `skipped`: rows passed over so far because a value of theirs was not finite. */
export interface Position {
  readonly epoch: number;
  readonly row: number;
  readonly skipped: number;
}

export const START: Position = { epoch: 0, row: 0, skipped: 0 };

/** What to do with a row that holds NaN or Inf. */
export type NonFinite = "stop" | "skip";

interface Loaded {
  readonly epoch: number;
  readonly window: Window;
  /** Where in the ring it belongs, in rows, and what to put there; undefined when it is there already. */
  readonly at: number;
  bytes: Uint8Array<ArrayBuffer> | undefined;
  /** Rows of the window that hold something not finite. */
  readonly bad: ReadonlySet<number>;
}

/** Rows of the ring: two windows, or one where one is everything. */
export function ringRows(order: Order): number {
  return order.windows === 1 ? order.windowRows : 2 * order.windowRows;
}

/**
 * Batches of `size()` rows from `start` on, epoch after epoch; one may reach into the next epoch. Ends when `size` returns 0, when the signal is aborted while
 * a stream is waited for, and after the last full batch of rows that are read once. Rejects when a row cannot be read, or is not finite and `nonFinite` is
 * "stop" (naming file and row).
 */
export async function* batches(
  source: Source,
  order: Order,
  nonFinite: NonFinite,
  start: Position,
  size: () => number,
  signal?: AbortSignal,
): AsyncGenerator<Batch, void, void> {
  // Also tells a window that is being read ahead that nobody wants it any more.
  const reading = new AbortController();
  const reader = new WindowReader(
    source,
    order,
    nonFinite,
    signal === undefined ? reading.signal : AbortSignal.any([signal, reading.signal]),
  );
  const once = source.stream === "once";
  let { row, skipped } = start;
  // A batch that ended with its epoch left off at the row after the last.
  if (row === order.rowsPerEpoch) row = 0;
  let next: Promise<Loaded> | undefined;
  let barren = 0; // windows in a row without a finite row
  try {
    let window = await reader.load(start.epoch + (row < start.row ? 1 : 0), row);
    let fresh: Loaded[] = [window];
    for (let rows = size(); rows > 0; rows = size()) {
      const chosen = new Uint32Array(rows);
      const from = new Set<Loaded>();
      for (let used = 0; used < rows; ) {
        const { position, rows: inOrder } = window.window;
        if (row === position + inOrder.length) {
          const epochEnds = row === order.rowsPerEpoch;
          if (epochEnds && once) return;
          if (epochEnds) row = 0;
          barren = isBarren(window) ? barren + 1 : 0;
          if (barren > order.windows) throw tooManyBad(source, skipped); // a whole epoch, wherever it began
          window = await (next ?? reader.load(window.epoch + (epochEnds ? 1 : 0), row, window));
          next = undefined;
          fresh.push(window);
          continue;
        }
        const at = inOrder[row - position]!;
        row++;
        if (window.bad.has(at)) {
          skipped++;
          continue;
        }
        from.add(window);
        // A third window would overwrite the first before the batch is used; only rows passed over can lead here.
        if (from.size > 2 && order.windows > 1) throw tooManyBad(source, skipped);
        chosen[used++] = window.at + at;
      }
      const uploads = fresh.flatMap(({ at, bytes }) => (bytes === undefined ? [] : [{ at, bytes }]));
      yield { uploads, rows: chosen, next: { epoch: window.epoch, row, skipped } };
      for (const loaded of fresh) reader.takeBack(loaded);
      fresh = [];
      if (next === undefined && order.windows > 1) {
        const end = window.window.position + window.window.rows.length;
        const epochEnds = end === order.rowsPerEpoch;
        if (epochEnds && once) continue;
        next = reader.load(window.epoch + (epochEnds ? 1 : 0), epochEnds ? 0 : end, window);
        next.catch(() => undefined); // reported when the window is needed
      }
    }
  } catch (thrown) {
    if (signal?.aborted !== true || thrown !== signal.reason) throw thrown;
  } finally {
    reading.abort();
    await next?.catch(() => undefined);
  }
}

function isBarren({ window, bad }: Loaded): boolean {
  return bad.size === window.rows.length;
}

function tooManyBad(source: Source, skipped: number): SaettaError {
  return new SaettaError(`too few finite rows to fill a batch (${skipped.toLocaleString("en")} rows were passed over)`, {
    where: source.paths.join(", "),
    mend: "look at the file with saetta inspect",
  });
}

/** Blocks whose reads are under way at once. */
const AHEAD = 4;

/** A block on its way to row `at` of memory. */
interface Block {
  readonly at: number;
  readonly rows: number;
  readonly read: Promise<void>;
}

class WindowReader {
  readonly #source: Source;
  readonly #order: Order;
  readonly #nonFinite: NonFinite;
  readonly #signal: AbortSignal;
  /** Memory of a window that is in the ring by now, and of blocks of which rows are excluded. */
  #spare: Uint8Array<ArrayBuffer> | undefined;
  readonly #aside: (Uint8Array | undefined)[] = [];

  constructor(source: Source, order: Order, nonFinite: NonFinite, signal: AbortSignal) {
    this.#source = source;
    this.#order = order;
    this.#nonFinite = nonFinite;
    this.#signal = signal;
  }

  async load(epoch: number, row: number, before?: Loaded): Promise<Loaded> {
    const window = this.#order.window(epoch, row);
    if (before !== undefined && before.window.key === window.key)
      return { epoch, window, at: before.at, bytes: undefined, bad: before.bad };
    // The other half of the ring; a window of which nothing is used gives up its own.
    const half = this.#order.windowRows;
    const at = before === undefined ? 0 : isBarren(before) ? before.at : half - before.at;
    const { dIn, dtype } = this.#source;
    const rowBytes = dIn * BYTES[dtype];
    const memory = this.#memory(window.rows.length * rowBytes);
    const bad = new Set<number>();
    const blocks: Block[] = [];
    let used = 0;
    try {
      for (const [i, { first }] of window.blocks.entries()) {
        // Several reads are under way while one block is looked at; a stream is read in order.
        const ahead = this.#source.stream === undefined ? AHEAD : 1;
        for (const range of window.blocks.slice(blocks.length, i + ahead)) {
          const block = this.#begin(range, memory, used, blocks.length % AHEAD);
          block.read.catch(() => undefined); // reported when its turn comes
          blocks.push(block);
          used += block.rows;
        }
        const { at: begin, rows, read } = blocks[i]!;
        await read;
        const found = nonFiniteRows(memory, dtype, dIn, begin, begin + rows);
        for (const badRow of found) bad.add(badRow);
        if (found.length > 0 && this.#nonFinite === "stop") throw notFinite(this.#source, this.#rowOf(first, found[0]! - begin));
      }
    } finally {
      await Promise.allSettled(blocks.map(({ read }) => read));
    }
    return { epoch, window, at, bytes: memory, bad };
  }

  /** The window is in the ring: its memory may hold another. */
  takeBack(loaded: Loaded): void {
    if (loaded.bytes !== undefined && this.#order.windows > 1) this.#spare = loaded.bytes;
    loaded.bytes = undefined;
  }

  /** Fresh memory costs more than what is read into it: the system clears every page. */
  #memory(bytes: number): Uint8Array<ArrayBuffer> {
    const spare = this.#spare?.buffer;
    this.#spare = undefined;
    if (spare !== undefined && spare.byteLength >= bytes) return new Uint8Array(spare, 0, bytes);
    const rowBytes = this.#source.dIn * BYTES[this.#source.dtype];
    return new Uint8Array(screenedMemory(this.#order.windowRows * rowBytes), 0, bytes);
  }

  /** Begins to read a block, whose rows that are not excluded go to row `at` of memory. */
  #begin({ first, count }: Range, memory: Uint8Array, at: number, slot: number): Block {
    const { dIn, dtype } = this.#source;
    const rowBytes = dIn * BYTES[dtype];
    const runs = this.#order.visited(first, count);
    const rows = runs.reduce((sum, run) => sum + run.count, 0);
    if (rows === count) {
      const read = this.#source.read(first, count, memory.subarray(at * rowBytes, (at + count) * rowBytes), this.#signal);
      return { at, rows, read };
    }
    const aside = this.#aside[slot];
    const whole = aside !== undefined && aside.length >= count * rowBytes ? aside : new Uint8Array(count * rowBytes);
    this.#aside[slot] = whole;
    const read = this.#source.read(first, count, whole, this.#signal).then(() => {
      let to = at;
      for (const run of runs) {
        const from = (run.first - first) * rowBytes;
        memory.set(whole.subarray(from, from + run.count * rowBytes), to * rowBytes);
        to += run.count;
      }
    });
    return { at, rows, read };
  }

  /** The row of the file after `visited` rows, from `first` on, that are not excluded. */
  #rowOf(first: number, visited: number): number {
    let row = first;
    for (let left = visited; left > 0 || this.#order.isExcluded(row); row++) if (!this.#order.isExcluded(row)) left--;
    return row;
  }
}

/** The error for a row that holds NaN or Inf, where such rows stop the run. */
export function notFinite(source: Source, row: number): SaettaError {
  return new SaettaError("holds NaN or Inf", {
    where: source.locate(row),
    mend: "mend the file, or pass --non-finite skip to leave such rows out and count them",
  });
}

/** Rows [begin, end) of memory that hold something not finite. */
export function nonFiniteRows(memory: Uint8Array, dtype: RowDType, dIn: number, begin: number, end: number): number[] {
  const found: number[] = [];
  for (let row = begin; row < end; row++) {
    const element = firstNonFinite(memory, dtype, row * dIn, (end - row) * dIn);
    if (element < 0) break;
    row = Math.floor(element / dIn);
    found.push(row);
  }
  return found;
}

/**
 * Batches of rows in the run's order. Two windows live in the engine's memory (the ring); while one is trained on, the next is read from
 * disk. A batch says what to put into the ring before it, and which rows of the ring it is.
 */

import { SaettaError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import type { Order, Window } from "./order.ts";
import type { RowDType, Source } from "./source.ts";

export interface Batch {
  /** To be written into the ring, from row `at` on, before the batch is used. */
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

export const ELEMENT_BYTES: Readonly<Record<RowDType, number>> = { f64: 8, f32: 4, bf16: 2, f16: 2 };

interface Loaded {
  readonly epoch: number;
  readonly window: Window;
  /** Where in the ring it belongs, in rows, and what to put there; undefined when it is there already. */
  readonly at: number;
  readonly bytes: Uint8Array | undefined;
  /** Rows of the window that hold something not finite. */
  readonly bad: ReadonlySet<number>;
}

/** Rows of the ring: two windows, or one where one is everything. */
export function ringRows(order: Order): number {
  return order.windows === 1 ? order.windowRows : 2 * order.windowRows;
}

/**
 * Batches of `size()` rows from `start` on, epoch after epoch; one may reach into the next epoch. Ends when `size` returns 0. Rejects when
 * a row cannot be read, or is not finite and `nonFinite` is "stop" (naming file and row).
 */
export async function* batches(
  source: Source,
  order: Order,
  nonFinite: NonFinite,
  start: Position,
  size: () => number,
): AsyncGenerator<Batch, void, void> {
  const reader = new WindowReader(source, order, nonFinite);
  let { row, skipped } = start;
  // A batch that ended with its epoch left off at the row after the last.
  if (row === order.rowsPerEpoch) row = 0;
  let window = await reader.load(start.epoch + (row < start.row ? 1 : 0), row);
  let next: Promise<Loaded> | undefined;
  let fresh: Loaded[] = [window];
  let barren = 0; // windows in a row without a finite row
  try {
    for (let rows = size(); rows > 0; rows = size()) {
      const chosen = new Uint32Array(rows);
      const from = new Set<Loaded>();
      for (let used = 0; used < rows; ) {
        const { position, rows: inOrder } = window.window;
        if (row === position + inOrder.length) {
          const epochEnds = row === order.rowsPerEpoch;
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
      fresh = [];
      if (next === undefined && order.windows > 1) {
        const end = window.window.position + window.window.rows.length;
        const epochEnds = end === order.rowsPerEpoch;
        next = reader.load(window.epoch + (epochEnds ? 1 : 0), epochEnds ? 0 : end, window);
        next.catch(() => undefined); // reported when the window is needed
      }
    }
  } finally {
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

class WindowReader {
  readonly #source: Source;
  readonly #order: Order;
  readonly #nonFinite: NonFinite;

  constructor(source: Source, order: Order, nonFinite: NonFinite) {
    this.#source = source;
    this.#order = order;
    this.#nonFinite = nonFinite;
  }

  async load(epoch: number, row: number, before?: Loaded): Promise<Loaded> {
    const window = this.#order.window(epoch, row);
    if (before !== undefined && before.window.key === window.key)
      return { epoch, window, at: before.at, bytes: undefined, bad: before.bad };
    // The other half of the ring; a window of which nothing is used gives up its own.
    const half = this.#order.windowRows;
    const at = before === undefined ? 0 : isBarren(before) ? before.at : half - before.at;
    const { dIn, dtype } = this.#source;
    const rowBytes = dIn * ELEMENT_BYTES[dtype];
    const longest = window.blocks.reduce((most, { count }) => Math.max(most, count), 0);
    // Room for one whole block at the end, before its excluded rows are squeezed out.
    const memory = new Uint8Array((window.rows.length + longest) * rowBytes);
    const bad = new Set<number>();
    let used = 0;
    for (const { first, count } of window.blocks) {
      await this.#source.read(first, count, memory.subarray(used * rowBytes, (used + count) * rowBytes));
      const block = used;
      for (let i = 0; i < count; i++) {
        if (this.#order.isExcluded(first + i)) continue;
        if (used !== block + i) memory.copyWithin(used * rowBytes, (block + i) * rowBytes, (block + i + 1) * rowBytes);
        used++;
      }
      for (const badRow of nonFiniteRows(memory, dtype, dIn, block, used)) bad.add(badRow);
      if (bad.size > 0 && this.#nonFinite === "stop") throw notFinite(this.#source, this.#rowOf(first, [...bad][0]! - block));
    }
    return { epoch, window, at, bytes: memory.subarray(0, used * rowBytes), bad };
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

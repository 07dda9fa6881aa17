/**
 * Batches of rows in the run's order. Two windows live in the engine's memory (the ring); while one
 * is trained on, the next is read from disk and brought there. A batch says which rows of the ring
 * it is.
 */

import { SaettaError } from "../util/errors.ts";
import type { Range } from "./holdout.ts";
import type { RowOrder, Window } from "./order.ts";
import { bytesPerRow, type Source } from "./source.ts";
import { StreamEnded } from "./stream-ended.ts";

/** The ring, as an engine holds it. */
export interface Ring {
  /** Memory of the host in which rows wait to be brought. */
  memory(bytes: number): Uint8Array<ArrayBuffer>;
  /**
   * Brings rows to row `at` of the ring; whoever asks for the next batch has queued all that reads
   * the last. Resolves when `bytes` may be used again, with those rows of them that hold something
   * not finite.
   */
  bring(at: number, bytes: Uint8Array): Promise<readonly number[]>;
}

export interface Batch {
  /** Rows of the ring. */
  readonly rows: Uint32Array;
  /** Where the next batch begins. */
  readonly next: Position;
}

/**
 * A place in the stream of all epochs. `skipped`: rows passed over so far for their values: not
 * finite, or left out by the source.
 */
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
  /** Where in the ring it is, in rows. */
  readonly at: number;
  /** Rows of the window that are passed over: not finite, or left out by the source. */
  readonly bad: ReadonlySet<number>;
  /** The stream ended in this window, which has only the rows before. */
  readonly ends?: boolean;
}

/** Rows of the ring: two windows, or one where one is everything. */
export function ringRows(order: RowOrder): number {
  return order.windows === 1 ? order.windowRows : 2 * order.windowRows;
}

/**
 * Batches of `size()` rows from `start` on, epoch after epoch; one may reach into the next epoch.
 * Ends when `size` returns 0, when the signal is aborted while a stream is waited for, when a
 * stream ends early, and after the last full batch of rows that are read once. Rejects when a row
 * cannot be read, or is not finite and `nonFinite` is "stop" (naming file and row).
 */
export async function* batches(
  source: Source,
  order: RowOrder,
  ring: Ring,
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
    ring,
    nonFinite,
    signal === undefined ? reading.signal : AbortSignal.any([signal, reading.signal]),
  );
  const once = source.stream === "once";
  let { row, skipped } = start;
  // A batch that ended with its epoch left off at the row after the last.
  if (row === order.rowsIn(start.epoch)) row = 0;
  let next: Promise<Loaded> | undefined;
  let barren = 0; // windows in a row without a finite row
  try {
    let window = await reader.load(start.epoch + (row < start.row ? 1 : 0), row);
    for (let rows = size(); rows > 0; rows = size()) {
      const chosen = new Uint32Array(rows);
      const from = new Set<Loaded>();
      for (let used = 0; used < rows; ) {
        const { position, rows: inOrder } = window.window;
        if (row === position + inOrder.length) {
          const epochEnds = row === order.rowsIn(window.epoch);
          if ((epochEnds && once) || window.ends === true) return;
          if (epochEnds) row = 0;
          barren = isBarren(window) ? barren + 1 : 0;
          if (barren > order.windows) throw tooManyBad(source, skipped); // a whole epoch, wherever it began
          window = await (next ?? reader.load(window.epoch + (epochEnds ? 1 : 0), row, window));
          next = undefined;
          continue;
        }
        const [before, hasBad] = [used, window.bad.size > 0];
        for (let i = row - position; i < inOrder.length && used < rows; i++, row++) {
          const at = inOrder[i]!;
          if (hasBad && window.bad.has(at)) skipped++;
          else chosen[used++] = window.at + at;
        }
        if (used > before) from.add(window);
        // A third window would overwrite the first before the batch is used; only rows passed over
        // can lead here.
        if (from.size > 2 && order.windows > 1) throw tooManyBad(source, skipped);
      }
      yield { rows: chosen, next: { epoch: window.epoch, row, skipped } };
      if (next === undefined && order.windows > 1 && window.ends !== true) {
        const end = window.window.position + window.window.rows.length;
        const epochEnds = end === order.rowsIn(window.epoch);
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

function rowsBeforeTheEnd(thrown: unknown): number {
  if (thrown instanceof StreamEnded) return thrown.rows;
  throw thrown;
}

function isBarren({ window, bad }: Loaded): boolean {
  return bad.size === window.rows.length;
}

function tooManyBad(source: Source, skipped: number): SaettaError {
  return new SaettaError(
    `too few finite rows to fill a batch (${skipped.toLocaleString("en")} rows were passed over)`,
    {
      where: source.paths.join(", "),
      mend: "look at the file with saetta inspect",
    },
  );
}

/** Blocks whose reads are under way at once. */
const AHEAD = 8;

/** So many bytes are brought over at a time, while others are read. */
const PIECE = 8 * 1024 * 1024;

/** A block on its way to row `at` of memory. */
interface Block {
  readonly at: number;
  readonly rows: number;
  readonly read: Promise<void>;
}

class WindowReader {
  readonly #source: Source;
  readonly #order: RowOrder;
  readonly #ring: Ring;
  readonly #nonFinite: NonFinite;
  readonly #signal: AbortSignal;
  /**
   * Memory of a window, which is used for one after the other, and of blocks of which rows are
   * excluded.
   */
  #memory: Uint8Array<ArrayBuffer> | undefined;
  readonly #aside: (Uint8Array | undefined)[] = [];

  constructor(source: Source, order: RowOrder, ring: Ring, nonFinite: NonFinite, signal: AbortSignal) {
    this.#source = source;
    this.#order = order;
    this.#ring = ring;
    this.#nonFinite = nonFinite;
    this.#signal = signal;
  }

  async load(epoch: number, row: number, before?: Loaded): Promise<Loaded> {
    const window = this.#order.window(epoch, row);
    if (before !== undefined && before.window.key === window.key)
      return { epoch, window, at: before.at, bad: before.bad };
    // The other half of the ring; a window of which nothing is used gives up its own.
    const half = this.#order.windowRows;
    const at = before === undefined ? 0 : isBarren(before) ? before.at : half - before.at;
    const rowBytes = bytesPerRow(this.#source);
    this.#memory ??= this.#ring.memory(half * rowBytes);
    const memory = this.#memory;
    const blocks: Block[] = [];
    const pieces: Promise<readonly number[]>[] = [];
    const leftOut: number[] = [];
    /** Rows that a read has been begun for, and that are on their way to the ring. */
    let [begun, brought] = [0, 0];
    let ended: number | undefined;
    const bring = (end: number) => {
      const [first, bytes] = [brought, memory.subarray(brought * rowBytes, end * rowBytes)];
      if (bytes.length === 0) return;
      for (const row of this.#source.leftOut?.(bytes, end - first) ?? []) leftOut.push(first + row);
      pieces.push(this.#ring.bring(at + first, bytes).then((found) => found.map((row) => first + row)));
      brought = end;
    };
    try {
      for (let i = 0; i < window.blocks.length; i++) {
        // Several reads are under way while one block is waited for; a stream is read in order.
        const ahead = this.#source.stream === undefined ? AHEAD : 1;
        for (const range of window.blocks.slice(blocks.length, i + ahead)) {
          const block = this.#begin(range, memory, begun, blocks.length % AHEAD);
          block.read.catch(() => undefined); // reported when its turn comes
          blocks.push(block);
          begun += block.rows;
        }
        const { at: begin, rows, read } = blocks[i]!;
        const there = await read.then(() => rows, rowsBeforeTheEnd);
        if (there < rows) {
          ended = begin + there;
          break;
        }
        if ((begin + rows - brought) * rowBytes >= PIECE) bring(begin + rows);
      }
      bring(ended ?? begun);
      const bad = (await Promise.all(pieces)).flat();
      if (bad.length > 0 && this.#nonFinite === "stop")
        throw notFinite(this.#source, this.#rowOf(window, blocks, Math.min(...bad)));
      if (this.#order.windows === 1) this.#memory = undefined; // it is not read again
      const loaded = { epoch, window, at, bad: new Set([...bad, ...leftOut]) };
      // Rows of a stream keep their order.
      const rows = window.rows.subarray(0, ended);
      return ended === undefined ? loaded : { ...loaded, window: { ...window, rows }, ends: true };
    } finally {
      await Promise.allSettled([...blocks.map(({ read }) => read), ...pieces]);
    }
  }

  /** Begins to read a block, whose rows that are not excluded go to row `at` of memory. */
  #begin({ first, count }: Range, memory: Uint8Array, at: number, slot: number): Block {
    const rowBytes = bytesPerRow(this.#source);
    const runs = this.#order.visited(first, count);
    const rows = runs.reduce((sum, run) => sum + run.count, 0);
    if (rows === count) {
      const read = this.#source.read(
        first,
        count,
        memory.subarray(at * rowBytes, (at + count) * rowBytes),
        this.#signal,
      );
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

  /** The row of the file that stands at row `at` of a window's memory. */
  #rowOf(window: Window, blocks: readonly Block[], at: number): number {
    const i = blocks.findIndex((block) => at < block.at + block.rows);
    let row = window.blocks[i]!.first;
    for (let left = at - blocks[i]!.at; left > 0 || this.#order.isExcluded(row); row++)
      if (!this.#order.isExcluded(row)) left--;
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

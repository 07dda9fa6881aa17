/**
 * Batches of rows in the run's order. Two windows live in the engine's memory (the ring); while one
 * is trained on, the next is read from disk and brought there. A batch says which rows of the ring
 * it is. Replicas read the lanes that their slots are filled from (`lanes.ts`), and the few rows
 * that come to a slot from another lane: after rows that were passed over, and in a short batch.
 */

import { rowsOfReplica } from "../collective/collective.ts";
import { SaettaError } from "../util/errors.ts";
import type { Span } from "./lanes.ts";
import type { RowOrder } from "./order.ts";
import type { Source } from "./source.ts";
import { type BatchInput, isBarren, type LoadedWindow, type Share, WindowReader } from "./window-reader.ts";

export type { BatchInput, NonFinite, Ring, Share } from "./window-reader.ts";
export { notFinite } from "./window-reader.ts";

export interface Batch {
  /** Rows of the ring: the whole batch, or the replica's part of it. */
  readonly rows: Uint32Array;
  /** Rows of the whole batch. */
  readonly size: number;
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

export interface BatchOptions {
  /** Ends the batches while a stream is waited for. */
  readonly signal?: AbortSignal | undefined;
  /** Default: all of each batch. */
  readonly share?: Share | undefined;
}

/** Rows of the ring: two windows, or one where one is everything. */
export function ringRows(order: RowOrder): number {
  return order.windows === 1 ? order.windowRows : 2 * order.windowRows;
}

/** Positions of a window that a batch takes, some of which may be passed over. */
interface Taken extends Span {
  readonly from: LoadedWindow;
}

/**
 * Batches of `size()` rows from `start` on, epoch after epoch; one may reach into the next epoch.
 * Ends when `size` returns 0, when the signal is aborted while a stream is waited for, when a
 * stream ends early, and after the last full batch of rows that are read once. Rejects when a row
 * cannot be read, or is not finite and `nonFinite` is "stop" (naming file and row).
 */
export async function* batches(
  input: BatchInput,
  start: Position,
  size: () => number,
  { signal, share }: BatchOptions = {},
): AsyncGenerator<Batch, void, void> {
  const { source, order } = input;
  // Also tells a window that is being read ahead that nobody wants it any more.
  const reading = new AbortController();
  const reader = new WindowReader(
    input,
    share,
    signal === undefined ? reading.signal : AbortSignal.any([signal, reading.signal]),
  );
  const once = source.stream === "once";
  let { row, skipped } = start;
  // A batch that ended with its epoch left off at the row after the last.
  if (row === order.rowsIn(start.epoch)) row = 0;
  let next: Promise<LoadedWindow> | undefined;
  let barren = 0; // windows in a row without a finite row
  try {
    let window = await reader.load(start.epoch + (row < start.row ? 1 : 0), row);
    for (let rows = size(); rows > 0; rows = size()) {
      const taken: Taken[] = [];
      const from = new Set<LoadedWindow>();
      for (let used = 0; used < rows; ) {
        const { position } = window.window;
        if (row === position + window.size) {
          const epochEnds = row === order.rowsIn(window.epoch);
          if ((epochEnds && once) || window.ends) return;
          if (epochEnds) row = 0;
          barren = isBarren(window) ? barren + 1 : 0;
          if (barren > order.windows) throw tooManyBad(source, skipped); // a whole epoch, wherever it began
          window = await (next ?? reader.load(window.epoch + (epochEnds ? 1 : 0), row, window));
          next = undefined;
          continue;
        }
        const first = row - position;
        const { end, passed } = upTo(window, first, rows - used);
        const found = end - first - passed;
        taken.push({ from: window, first, end });
        if (found > 0) from.add(window);
        [row, used, skipped] = [position + end, used + found, skipped + passed];
        // A third window would overwrite the first before the batch is used; only rows passed over
        // can lead here.
        if (from.size > 2 && order.windows > 1) throw tooManyBad(source, skipped);
      }
      const slots = share === undefined ? { first: 0, end: rows } : rowsOfReplica(share, rows);
      const { chosen, elsewhere } = fill(taken, slots);
      for (const [other, missing] of elsewhere) await reader.fetch(other, missing);
      yield { rows: chosen, size: rows, next: { epoch: window.epoch, row, skipped } };
      if (next === undefined && order.windows > 1 && !window.ends) {
        const end = window.window.position + window.size;
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

/**
 * Where the positions of a window from `first` on end that have `rows` rows which are not passed
 * over, or as many as there are; and how many are passed over.
 */
function upTo(
  { window, size, bad }: LoadedWindow,
  first: number,
  rows: number,
): { readonly end: number; readonly passed: number } {
  if (bad.size === 0) return { end: Math.min(size, first + rows), passed: 0 };
  let [end, passed] = [first, 0];
  for (; end < size && end - first - passed < rows; end++) if (bad.has(window.lanes.at(end))) passed++;
  return { end, passed };
}

/**
 * Fills slots [first, end) of a batch, which are sorted by lane. Returns their rows in the ring,
 * and which rows of a window are not there yet.
 */
function fill(
  taken: readonly Taken[],
  slots: Span,
): { readonly chosen: Uint32Array; readonly elsewhere: ReadonlyMap<LoadedWindow, readonly number[]> } {
  const chosen = new Uint32Array(slots.end - slots.first);
  const elsewhere = new Map<LoadedWindow, number[]>();
  let slot = 0;
  for (let lane = 0; lane < taken[0]!.from.window.lanes.count && slot < slots.end; lane++) {
    for (const { from, ...positions } of taken) {
      const { lanes } = from.window;
      const { first, end } = lanes.within(lane, positions);
      const before = slot;
      if (from.bad.size === 0) slot += end - first;
      if (from.bad.size === 0 && (slot <= slots.first || before >= slots.end)) continue;
      const missing: number[] = [];
      const isThere = from.own.first <= lanes.start(lane) && lanes.start(lane + 1) <= from.own.end;
      slot = before;
      for (const row of lanes.rows(lane).subarray(first, end)) {
        if (from.bad.has(row)) continue;
        if (slot >= slots.first && slot < slots.end) {
          chosen[slot - slots.first] = from.at + row;
          if (!isThere && !from.fetched.has(row)) missing.push(row);
        }
        slot++;
      }
      if (missing.length > 0) elsewhere.set(from, [...(elsewhere.get(from) ?? []), ...missing]);
    }
  }
  return { chosen, elsewhere };
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

/** Windows of the order on their way from the source to the ring. */

import { rowsOfReplica } from "../collective/collective.ts";
import { SaettaError } from "../util/errors.ts";
import type { Range } from "./holdout.ts";
import { lanesOfSlots, type Span } from "./lanes.ts";
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

/** What to do with a row that holds NaN or Inf. */
export type NonFinite = "stop" | "skip";

/** What batches are made from. */
export interface BatchInput {
  readonly source: Source;
  readonly order: RowOrder;
  readonly ring: Ring;
  readonly nonFinite: NonFinite;
}

/** Which part of each batch is wanted, where replicas share them. */
export interface Share {
  readonly replica: number;
  readonly replicas: number;
  /** Rows of a full batch. */
  readonly batch: number;
  /** The values of all ranks together: called for the same windows in the same order by each. */
  readonly agree: (values: readonly number[]) => Promise<readonly number[]>;
}

/** A window of which this replica's lanes are in the ring. */
export interface LoadedWindow {
  readonly epoch: number;
  readonly window: Window;
  /** Rows of the order; fewer than the window's where the stream ended in it. */
  readonly size: number;
  readonly ends: boolean;
  /** Where in the ring it is, in rows. */
  readonly at: number;
  /** Rows of the window's memory that were read here, and single ones that were fetched since. */
  readonly own: Span;
  readonly fetched: Set<number>;
  /** Rows of the window that are passed over: not finite, or left out by the source. */
  readonly bad: ReadonlySet<number>;
}

export function isBarren({ size, bad }: LoadedWindow): boolean {
  return bad.size === size;
}

/** Blocks whose reads are under way at once. */
const AHEAD = 8;

/** So many bytes are brought over at a time, while others are read. */
const PIECE = 8 * 1024 * 1024;

/** Runs between excluded rows are read one by one where they have so many bytes on average. */
const RUN = 32 * 1024;

/** Runs of rows that go to rows [at, at + rows) of the window's memory. */
interface Part {
  readonly runs: readonly Range[];
  readonly at: number;
  readonly rows: number;
}

export class WindowReader {
  readonly #input: BatchInput;
  readonly #share: Share | undefined;
  readonly #signal: AbortSignal;
  readonly #rowBytes: number;
  /**
   * Memory of a window, which is used for one after the other, and of parts of which rows are
   * excluded.
   */
  #memory: Uint8Array<ArrayBuffer> | undefined;
  readonly #aside: (Uint8Array | undefined)[] = [];

  constructor(input: BatchInput, share: Share | undefined, signal: AbortSignal) {
    this.#input = input;
    this.#share = share;
    this.#signal = signal;
    this.#rowBytes = bytesPerRow(input.source);
  }

  /** `before`: the window that is in use, which stays where it is. */
  async load(epoch: number, row: number, before?: LoadedWindow): Promise<LoadedWindow> {
    const { source, order, ring, nonFinite } = this.#input;
    const window = order.window(epoch, row);
    if (before !== undefined && before.window.key === window.key) return { ...before, epoch, window };
    // The other half of the ring; a window of which nothing is used gives up its own.
    const half = order.windowRows;
    const at = before === undefined ? 0 : isBarren(before) ? before.at : half - before.at;
    const { lanes } = window;
    const ownLanes = this.#ownLanes(lanes.count);
    const own = { first: lanes.start(ownLanes.first), end: lanes.start(ownLanes.end) };
    const rowBytes = this.#rowBytes;
    const most = Math.min(half, (ownLanes.end - ownLanes.first) * Math.ceil(half / lanes.count));
    this.#memory ??= ring.memory(most * rowBytes);
    const memory = this.#memory;
    const parts = [...this.#parts(window, own)];
    const reads: Promise<void>[] = [];
    const pieces: Promise<readonly number[]>[] = [];
    const leftOut: number[] = [];
    let brought = own.first;
    let ended: number | undefined;
    const bring = (end: number) => {
      const first = brought;
      const bytes = memory.subarray((first - own.first) * rowBytes, (end - own.first) * rowBytes);
      if (bytes.length === 0) return;
      for (const row of source.leftOut?.(bytes, end - first) ?? []) leftOut.push(first + row);
      pieces.push(ring.bring(at + first, bytes).then((found) => found.map((row) => first + row)));
      brought = end;
    };
    try {
      for (const [i, part] of parts.entries()) {
        // Several reads are under way while one part is waited for; a stream is read in order.
        const ahead = source.stream === undefined ? AHEAD : 1;
        for (const next of parts.slice(reads.length, i + ahead)) {
          const into = memory.subarray((next.at - own.first) * rowBytes, (next.at + next.rows - own.first) * rowBytes);
          const read = this.#read(next, into, reads.length % AHEAD);
          read.catch(() => undefined); // reported when its turn comes
          reads.push(read);
        }
        const there = await reads[i]!.then(() => part.rows, rowsBeforeTheEnd);
        if (there < part.rows) {
          ended = part.at + there;
          break;
        }
        if ((part.at + part.rows - brought) * rowBytes >= PIECE) bring(part.at + part.rows);
      }
      bring(ended ?? own.end);
      const bad = (await Promise.all(pieces)).flat();
      if (bad.length > 0 && nonFinite === "stop") throw notFinite(source, this.#rowOf(window, Math.min(...bad)));
      if (order.windows === 1) this.#memory = undefined; // it is not read again
      const passed = [...bad, ...leftOut];
      const canPass = nonFinite === "skip" || source.leftOut !== undefined;
      const all = this.#share !== undefined && canPass ? await this.#share.agree(passed) : passed;
      return {
        ...{ epoch, window, at, own },
        // Rows of a stream keep their order.
        size: ended ?? lanes.size,
        ends: ended !== undefined,
        fetched: new Set(),
        bad: new Set(all),
      };
    } finally {
      await Promise.allSettled([...reads, ...pieces]);
    }
  }

  /** Brings single rows of a window that another replica has read. */
  async fetch(loaded: LoadedWindow, rows: readonly number[]): Promise<void> {
    const { source, ring } = this.#input;
    await Promise.all(
      rows.map(async (at) => {
        const bytes = new Uint8Array(this.#rowBytes);
        await source.read(this.#rowOf(loaded.window, at), 1, bytes, this.#signal);
        await ring.bring(loaded.at + at, bytes);
        loaded.fetched.add(at);
      }),
    );
  }

  /** The lanes that are read here: those that full batches take. */
  #ownLanes(lanes: number): Span {
    if (this.#share === undefined) return { first: 0, end: lanes };
    const { batch } = this.#share;
    return lanesOfSlots(rowsOfReplica(this.#share, batch), batch, lanes);
  }

  /** What is read of the blocks of a window to fill `own` rows of its memory. */
  *#parts({ blocks }: Window, own: Span): Generator<Part> {
    let at = 0;
    for (const { first, count, visited } of blocks) {
      const from = Math.max(own.first - at, 0);
      const to = Math.min(own.end - at, visited);
      if (from < to) {
        const whole = visited === count ? [{ first, count }] : this.#input.order.visited(first, count);
        yield { runs: between(whole, from, to), at: at + from, rows: to - from };
      }
      at += visited;
    }
  }

  async #read({ runs, rows }: Part, into: Uint8Array, slot: number): Promise<void> {
    const { source } = this.#input;
    const rowBytes = this.#rowBytes;
    const places = placesOf(runs, rowBytes);
    const canSkip = source.grain === 1 && source.stream === undefined;
    if (runs.length === 1 || (canSkip && rows * rowBytes >= RUN * runs.length)) {
      const reads = runs.map(({ first, count }, i) =>
        source.read(first, count, into.subarray(places[i], places[i]! + count * rowBytes), this.#signal),
      );
      await Promise.allSettled(reads);
      await Promise.all(reads);
      return;
    }
    const { first } = runs[0]!;
    const last = runs.at(-1)!;
    const count = last.first + last.count - first;
    const before = this.#aside[slot];
    const aside = before !== undefined && before.length >= count * rowBytes ? before : new Uint8Array(count * rowBytes);
    this.#aside[slot] = aside;
    await source.read(first, count, aside, this.#signal);
    for (const [i, run] of runs.entries()) {
      const start = (run.first - first) * rowBytes;
      into.set(aside.subarray(start, start + run.count * rowBytes), places[i]);
    }
  }

  /** The row of the file that is row `at` of a window's memory. */
  #rowOf(window: Window, at: number): number {
    const [{ runs }] = [...this.#parts(window, { first: at, end: at + 1 })] as [Part];
    return runs[0]!.first;
  }
}

/** Rows [from, to) of those of the runs together. */
function between(runs: readonly Range[], from: number, to: number): Range[] {
  const found: Range[] = [];
  let at = 0;
  for (const { first, count } of runs) {
    const begin = Math.max(from - at, 0);
    const end = Math.min(to - at, count);
    if (begin < end) found.push({ first: first + begin, count: end - begin });
    at += count;
  }
  return found;
}

/** Where each run begins in the memory that they are put into one after the other, in bytes. */
function placesOf(runs: readonly Range[], rowBytes: number): number[] {
  let at = 0;
  return runs.map(({ count }) => {
    const place = at;
    at += count * rowBytes;
    return place;
  });
}

function rowsBeforeTheEnd(thrown: unknown): number {
  if (thrown instanceof StreamEnded) return thrown.rows;
  throw thrown;
}

/** The error for a row that holds NaN or Inf, where such rows stop the run. */
export function notFinite(source: Source, row: number): SaettaError {
  return new SaettaError("holds NaN or Inf", {
    where: source.locate(row),
    mend: "mend the file, or pass --non-finite skip to leave such rows out and count them",
  });
}

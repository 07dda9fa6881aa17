/**
 * Rows that a program makes, as a Source: read from the first to the last, once or as often as they
 * can be made anew.
 */

import { unlessAborted } from "../util/aborted.ts";
import { BYTES, bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { macrotask } from "../util/macrotask.ts";
import { mustBe, numberInWords } from "../util/must.ts";
import { checkRows } from "../util/rows.ts";
import { type KeepOptions, RowKeeper } from "./row-keeper.ts";
import { bytesPerRow, type Source } from "./source.ts";
import { StreamEnded } from "./stream-ended.ts";

/** One or more whole rows: [m*dIn] numbers. Stored as f32. */
export type RowChunk = Float32Array | Float64Array | readonly number[];

/** Chunks of rows, each with as many rows as it likes. */
export type Rows = Iterable<RowChunk> | AsyncIterable<RowChunk>;

export interface RowsOptions {
  /** Numbers a row. */
  readonly dIn: number;
  /** Rows in all. What comes after them is not asked for. */
  readonly rows: number;
  /** Also writes the rows as files; the last one is whole once the source is closed. */
  readonly keep?: KeepOptions | undefined;
}

const NAME = "fromRows";
/** Milliseconds that chunks may come without a pause before timers and signals are let in. */
const BREATH_MS = 10;

/**
 * A source of rows that a program makes. `rows` is a function that returns the rows from the first
 * on, the same ones whenever it is called (once for the statistics, once for the hold-out, once an
 * epoch); or an iterable of them that can be read once: one epoch in the order given, no hold-out,
 * no resume, and the median and variance that a run starts from are those of its first rows. A
 * function's rows are shuffled within windows of 64 MiB. Rejects, when read, with UsageError for
 * what is no row of `dIn` numbers, SaettaError when the rows end early, and whatever the iterable
 * itself throws. Close it when done: an iterable that is still open is told to `return`.
 */
export function fromRows(rows: Rows | (() => Rows), options: RowsOptions): Source & AsyncDisposable {
  for (const name of ["dIn", "rows"] as const) {
    const value = options[name];
    if (!Number.isSafeInteger(value) || value < 1)
      throw new UsageError(mustBe(name, numberInWords({ least: 1 }, "whole number"), value), { where: NAME });
  }
  const { dIn, rows: total, keep } = options;
  const reader = new Reader(rows, dIn, total, keep);
  const close = () => reader.close();
  return {
    description: `rows of the program: ${total.toLocaleString("en-US")} x ${dIn} f32`,
    paths: [],
    dIn,
    rows: total,
    dtype: "f32",
    sequence: undefined,
    grain: 1,
    origin: {},
    stream: typeof rows === "function" ? "again" : "once",
    read: (first, count, into, signal) => reader.read(first, count, into, signal),
    tokens: undefined,
    locate: (row) => `${NAME}, row ${row}`,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/**
 * The source with its first `rows` rows kept until rows beyond them are read, so that those of a
 * stream that is read once serve twice.
 */
export function keepingHead(source: Source, rows: number): Source {
  const rowBytes = bytesPerRow(source);
  const kept = Math.min(rows, source.rows);
  let head: Uint8Array | undefined = new Uint8Array(kept * rowBytes);
  let have = 0;
  return {
    ...source,
    async read(first, count, into, signal) {
      if (source.heldOut !== undefined && first >= source.heldOut.first) return source.read(first, count, into, signal);
      const end = first + count;
      let done = 0;
      if (head !== undefined && first < kept) {
        const upTo = Math.min(end, kept);
        if (upTo > have) await source.read(have, upTo - have, head.subarray(have * rowBytes), signal);
        have = Math.max(have, upTo);
        into.set(head.subarray(first * rowBytes, upTo * rowBytes));
        done = upTo - first;
      }
      if (done === count) return;
      head = undefined;
      try {
        await source.read(first + done, count - done, into.subarray(done * rowBytes), signal);
      } catch (thrown) {
        throw thrown instanceof StreamEnded ? new StreamEnded(thrown.where ?? "", done + thrown.rows) : thrown;
      }
    },
  };
}

/** The source with the signal given to every read that brings none of its own. */
export function stoppable(source: Source, signal: AbortSignal | undefined): Source {
  return { ...source, read: (first, count, into, own = signal) => source.read(first, count, into, own) };
}

class Reader {
  readonly #rows: Rows | (() => Rows);
  readonly #dIn: number;
  readonly #total: number;
  #iterator: Iterator<RowChunk> | AsyncIterator<RowChunk> | undefined;
  /** The row that comes next: the first of `rest`, if there is any. */
  #at = 0;
  /** What is left of the chunk that came last. */
  #rest: Float32Array = new Float32Array(0);
  /** A chunk that was asked for and whose reader did not wait. */
  #pending: Promise<IteratorResult<RowChunk, unknown>> | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;
  readonly #keep: KeepOptions | undefined;
  #keeper: RowKeeper | undefined;
  /** Rows that were kept. */
  #kept = 0;

  constructor(rows: Rows | (() => Rows), dIn: number, total: number, keep: KeepOptions | undefined) {
    this.#rows = rows;
    this.#dIn = dIn;
    this.#total = total;
    this.#keep = keep;
  }

  read(first: number, count: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const result = this.#turn.then(() => this.#read(first, count, into, signal));
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#end();
    await this.#keeper?.close();
  }

  async #read(first: number, count: number, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    checkRows(first, count, this.#total);
    const end = first + count;
    if (this.#closed)
      throw new UsageError("read after it was closed", { where: NAME, mend: "close the source when the run is over" });
    if (this.#iterator === undefined || first < this.#at) await this.#begin();
    const rowBytes = this.#dIn * BYTES.f32;
    let breath = performance.now();
    while (this.#at < end) {
      if (this.#rest.length === 0) this.#rest = await this.#next(signal);
      const rows = Math.min(this.#rest.length / this.#dIn, (this.#at < first ? first : end) - this.#at);
      const part = this.#rest.subarray(0, rows * this.#dIn);
      if (this.#at >= first) into.set(bytesOf(part), (this.#at - first) * rowBytes);
      this.#rest = this.#rest.subarray(part.length);
      this.#at += rows;
      if (performance.now() - breath < BREATH_MS) continue;
      await macrotask();
      breath = performance.now();
    }
  }

  /** Starts from the first row. */
  async #begin(): Promise<void> {
    let rows = this.#rows;
    if (typeof rows === "function") {
      await this.#end();
      rows = rows();
    } else if (this.#iterator !== undefined) {
      throw new UsageError(`an iterable is read once, and it has been read to row ${this.#at}`, {
        where: NAME,
        mend: "give a function that returns the rows anew",
      });
    }
    if (typeof rows === "object" && rows !== null && Symbol.asyncIterator in rows)
      this.#iterator = rows[Symbol.asyncIterator]();
    else if (typeof rows === "object" && rows !== null && Symbol.iterator in rows)
      this.#iterator = rows[Symbol.iterator]();
    else
      throw new UsageError("the rows are not iterable", {
        where: NAME,
        mend: "give an iterable of Float32Array, or a function that returns one",
      });
    this.#at = 0;
    this.#rest = new Float32Array(0);
    this.#pending = undefined;
  }

  /**
   * Tells an iterator that nothing more will be asked of it. One that owes a chunk is not waited
   * for.
   */
  async #end(): Promise<void> {
    const iterator = this.#iterator;
    const owes = this.#pending !== undefined;
    if (typeof this.#rows === "function") this.#iterator = undefined;
    const ended = Promise.resolve(iterator?.return?.());
    if (!owes) await ended;
    else ended.catch(() => undefined);
  }

  async #next(signal: AbortSignal | undefined): Promise<Float32Array> {
    const iterator = this.#iterator!;
    this.#pending ??= (async () => iterator.next())();
    this.#pending.catch(() => undefined); // whoever waits for it is told
    const { done, value } = await unlessAborted(this.#pending, signal);
    this.#pending = undefined;
    if (done === true) {
      throw new SaettaError(
        `the rows end after ${this.#at.toLocaleString("en-US")}, but ${this.#total.toLocaleString("en-US")} were announced`,
        {
          where: NAME,
          mend: "give it the number of rows that there are",
        },
      );
    }
    const chunk = this.#checked(value);
    await this.#keepNew(chunk);
    return chunk;
  }

  /** Keeps what of the chunk at the row that comes next was not kept before. */
  async #keepNew(chunk: Float32Array): Promise<void> {
    const [begin, end] = [this.#at, Math.min(this.#total, this.#at + chunk.length / this.#dIn)];
    if (this.#keep === undefined || end <= this.#kept) return;
    if (this.#keeper === undefined) {
      this.#keeper = await RowKeeper.open(this.#keep);
      await this.#keeper.begin({ width: this.#dIn, dtype: "f32" });
    }
    const first = Math.max(begin, this.#kept);
    const values = bytesOf(chunk.subarray((first - begin) * this.#dIn, (end - begin) * this.#dIn));
    await this.#keeper.add({ rows: end - first, values });
    this.#kept = end;
  }

  #checked(chunk: unknown): Float32Array {
    const known =
      chunk instanceof Float32Array ||
      chunk instanceof Float64Array ||
      (Array.isArray(chunk) && chunk.every((it) => typeof it === "number"));
    if (!known) throw this.#wrong("is neither a Float32Array nor a Float64Array nor an array of numbers");
    if (chunk.length % this.#dIn !== 0)
      throw this.#wrong(`has ${chunk.length} numbers, which are no whole rows of ${this.#dIn}`);
    return chunk instanceof Float32Array ? chunk : Float32Array.from(chunk as ArrayLike<number>);
  }

  #wrong(what: string): UsageError {
    return new UsageError(`the chunk from row ${this.#at} on ${what}`, { where: NAME });
  }
}

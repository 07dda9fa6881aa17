/**
 * Rows that another program makes while they are trained on, as a Source: read once, mixed on the
 * way, some contexts of the first ones held out.
 */

import { unlessAborted } from "../util/aborted.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { macrotask } from "../util/macrotask.ts";
import { hash32, PURPOSE } from "../util/rng.ts";
import { checkRows } from "../util/rows.ts";
import type { ByteReader } from "../util/socket-bytes.ts";
import { ROWS_TOGETHER } from "./holdout.ts";
import { type ExcludePositions, type ExcludeTokens, excludedIds } from "./mask.ts";
import { MixingBuffer } from "./mixing.ts";
import { type Frame, FrameReader, type FramesHeader, type RowFrames } from "./row-frames.ts";
import type { RowKeeper } from "./row-keeper.ts";
import { bytesPerRow, type Origin, type Source } from "./source.ts";
import { StreamEnded } from "./stream-ended.ts";

export interface StreamOptions {
  /** Rows to train on; default: what the header says, without the hold-out. */
  readonly tokens?: number | undefined;
  /** Share of the rows to hold out. */
  readonly holdout: number;
  readonly excludeTokens: ExcludeTokens;
  readonly excludePositions?: ExcludePositions | undefined;
  /** Rows of the mixing buffer; default: 1 GiB of them at most, and a million. */
  readonly buffer?: number | undefined;
  readonly seed: number;
  /** false: rows keep their order. */
  readonly shuffle?: boolean | undefined;
  /** Rows that the run that is continued has taken from an earlier stream. */
  readonly from?: number | undefined;
  /** Gets every frame that is read, before anything is left out or mixed. */
  readonly keep?: RowKeeper | undefined;
  /** Called with what ended the stream in the middle: the rows before it are used. */
  readonly onFailure?: ((error: SaettaError) => void) | undefined;
}

/** Held-out rows are kept in memory. */
const MOST_HELD_OUT = 16_384;
const BUFFER_ROWS = 1_000_000;
const BUFFER_BYTES = 2 ** 30;
/** A slow program may let timers and signals in now and then. */
const BREATH_MS = 10;

/**
 * Reads the header and the first rows of the stream, until the mixing buffer is full: the
 * statistics and the hold-out are of these. Rows [0, n) are those to train on, which can be read
 * once, from the first to the last; the held-out rows come after them. Throws UsageError where
 * nothing says how many rows to train on.
 */
export function openRowStream(
  bytes: AsyncIterable<Uint8Array> | ByteReader,
  where: string,
  options: StreamOptions,
): Promise<Source> {
  return openFrames(new FrameReader(bytes, where), options);
}

/** As `openRowStream`, of frames from anywhere. Closes them where it throws. */
export async function openFrames(frames: RowFrames, options: StreamOptions): Promise<Source> {
  return opened(frames, options).catch(async (thrown: unknown) => {
    await frames.close(false);
    throw thrown;
  });
}

async function opened(frames: RowFrames, options: StreamOptions): Promise<Source> {
  const { where } = frames;
  const header = await frames.header();
  const { width, dtype, context } = header;
  const { excludeTokens } = options;
  if (!header.tokens && excludeTokens !== "none" && excludeTokens !== "start")
    throw new UsageError("--exclude-tokens: the rows have no tokens", { where, mend: "send tokens with them" });
  const coming = options.tokens ?? header.rows;
  if (coming === undefined)
    throw new UsageError("nothing says how many rows to train on", { where, mend: "give --tokens, such as 10M" });
  const held = Math.min(MOST_HELD_OUT, Math.floor(options.holdout * coming));
  const from = options.from ?? 0;
  const rowBytes = bytesPerRow({ dIn: width, dtype });
  const byDefault = Math.max(1, Math.min(BUFFER_ROWS, Math.floor(BUFFER_BYTES / rowBytes), Math.ceil(coming / 8)));
  const capacity = Math.max(1, Math.min(options.buffer ?? byDefault, coming));
  const mixing = new MixingBuffer(capacity, rowBytes, options.shuffle === false ? undefined : options.seed);
  const origin = originOf(header);
  await options.keep?.begin({ width, dtype, context, origin });
  const stream = new RowStream(frames, header, mixing, options, held);
  await stream.fill();
  const rows = options.tokens ?? stream.expected(coming);
  stream.wanted = rows;
  const total = rows + stream.heldOut;
  let turn: Promise<unknown> = Promise.resolve();
  return {
    description: `rows of ${where}: ${rows.toLocaleString("en-US")} x ${width} ${dtype}`,
    paths: [],
    dIn: width,
    rows: total,
    dtype,
    sequence: undefined,
    grain: 1,
    origin,
    stream: "once",
    ...(from === 0 ? {} : { from }),
    ready: mixing.size,
    heldOut: { first: rows, count: stream.heldOut },
    read(first, count, into, signal) {
      checkRows(first, count, total);
      const result = turn.then(() => {
        if (first >= rows) return stream.readHeldOut(first - rows, count, into);
        return stream.read(first, count, into, signal);
      });
      turn = result.catch(() => undefined);
      return result;
    },
    tokens: undefined,
    notes: notesOf(header, options),
    locate: (row) => `${where}, row ${row} as it left the mixing buffer`,
    close: () => frames.close(stream.isUsed),
  };
}

function originOf({ model, tensor, tokenizer, startToken }: FramesHeader): Origin {
  const all = Object.entries({ model, tensor, tokenizer, startToken });
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

function notesOf({ tokens, startToken }: FramesHeader, { excludeTokens }: StreamOptions): readonly string[] {
  if (!tokens || startToken !== undefined || excludeTokens === "none") return [];
  return ["the rows have tokens but no start_token, so no row is left out; name start tokens with --exclude-tokens ID"];
}

class RowStream {
  readonly #frames: RowFrames;
  readonly #mixing: MixingBuffer;
  readonly #rowBytes: number;
  readonly #together: number;
  readonly #excluded: ReadonlySet<number>;
  readonly #positions: ReadonlySet<number> | undefined;
  readonly #context: number | undefined;
  readonly #options: StreamOptions;
  readonly #held: Uint8Array;
  readonly #mostHeld: number;
  heldOut = 0;
  /** Rows to train on: no more come in than that. */
  wanted = Number.POSITIVE_INFINITY;
  /** The frame under way, its rows that are used, and how many of them were taken. */
  #frame: Frame | undefined;
  #used: Uint32Array = new Uint32Array(0);
  #taken = 0;
  #usedSoFar = 0;
  /** Rows that came before the frame under way, and contexts of frames that have their own. */
  #before = 0;
  #contextsBefore = 0;
  /** The row that is read next. */
  #out: number;
  #ended = false;
  #asked: Promise<Frame | undefined> | undefined;

  constructor(frames: RowFrames, header: FramesHeader, mixing: MixingBuffer, options: StreamOptions, held: number) {
    this.#frames = frames;
    this.#mixing = mixing;
    this.#options = options;
    this.#rowBytes = bytesPerRow({ dIn: header.width, dtype: header.dtype });
    this.#context = header.context;
    this.#together = header.context ?? ROWS_TOGETHER;
    this.#excluded = excludedIds(options.excludeTokens, header.startToken);
    const { excludePositions = "none" } = options;
    this.#positions = excludePositions === "none" ? undefined : new Set(excludePositions);
    this.#mostHeld = held;
    this.#out = options.from ?? 0;
    this.#held = new Uint8Array((held + this.#together) * this.#rowBytes);
  }

  /** Whether all rows that came were taken. */
  get isUsed(): boolean {
    return this.#taken === this.#used.length;
  }

  /** Fills the mixing buffer, and sets some contexts of these rows aside. */
  async fill(): Promise<void> {
    const share = this.#mostHeld / (this.#mostHeld + this.#mixing.capacity);
    let heldContext = -1;
    while (this.#mixing.size < this.#mixing.capacity && (await this.#hasRow())) {
      const row = this.#used[this.#taken++]!;
      const { context: own } = this.#frame!;
      const context =
        own === undefined
          ? Math.floor((this.#before + row) / this.#together)
          : this.#contextsBefore + Math.floor(row / own);
      const isDrawn = hash32(this.#options.seed, PURPOSE.holdout, context) < share * 0x1_0000_0000;
      if (isDrawn && this.heldOut + (own ?? this.#together) <= this.#mostHeld) heldContext = context;
      const at = row * this.#rowBytes;
      if (context === heldContext) {
        const to = this.#rowBytes * this.heldOut++;
        this.#held.set(this.#frame!.values.subarray(at, at + this.#rowBytes), to);
      } else this.#mixing.add(this.#frame!.values, at);
    }
  }

  /** Rows to train on of `coming` in all, where as many are left out as of those that came. */
  expected(coming: number): number {
    const share = this.#usedSoFar / Math.max(1, this.#before + (this.#frame?.rows ?? 0));
    return Math.max(1, Math.floor(coming * share) - this.heldOut);
  }

  readHeldOut(first: number, count: number, into: Uint8Array): void {
    into.set(this.#held.subarray(first * this.#rowBytes, (first + count) * this.#rowBytes));
  }

  async read(first: number, count: number, into: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    // A window may begin before the rows that are still to come; what is there is not used again.
    const gone = Math.max(0, Math.min(count, (this.#options.from ?? 0) - first));
    if (gone > 0) {
      into.fill(0, 0, gone * this.#rowBytes);
      return this.read(first + gone, count - gone, into.subarray(gone * this.#rowBytes), signal);
    }
    if (count === 0) return;
    if (first !== this.#out)
      throw new UsageError(`rows of a stream are read once, and row ${this.#out} comes next`, {
        where: this.#frames.where,
      });
    let breath = performance.now();
    for (let i = 0; i < count; ) {
      const to = i * this.#rowBytes;
      // Rows in their order leave the buffer first; the others come past it.
      const isPast = this.#options.shuffle === false && this.#mixing.size === 0;
      const isEnough = this.#options.shuffle === false || this.#mixing.size >= this.wanted - this.#out - i;
      const isThere =
        (isPast || !isEnough) && (this.#taken < this.#used.length || (!this.#ended && (await this.#hasRow(signal))));
      if (isThere && isPast) i += this.#takeRun(into.subarray(to), count - i);
      else if (isThere) {
        this.#mixing.exchange(into, to, this.#frame!.values, this.#used[this.#taken++]! * this.#rowBytes);
        i++;
      } else if (this.#mixing.size > 0) {
        this.#mixing.take(into, to);
        i++;
      } else throw new StreamEnded(this.#frames.where, i);
      if ((isPast || (i & 1023) === 0) && performance.now() - breath > BREATH_MS) {
        await macrotask();
        signal?.throwIfAborted();
        breath = performance.now();
      }
    }
    this.#out += count;
  }

  /** Takes rows of the frame that follow one another, past the buffer; returns how many. */
  #takeRun(into: Uint8Array, most: number): number {
    const [begin, first] = [this.#taken, this.#used[this.#taken]!];
    const end = Math.min(this.#used.length, begin + most);
    while (this.#taken < end && this.#used[this.#taken] === first + this.#taken - begin) this.#taken++;
    const count = this.#taken - begin;
    into.set(this.#frame!.values.subarray(first * this.#rowBytes, (first + count) * this.#rowBytes));
    return count;
  }

  /** A frame that was asked for is kept where the wait for it is given up. */
  async #nextFrame(signal?: AbortSignal): Promise<Frame | undefined> {
    this.#asked ??= this.#keptFrame().catch((thrown: unknown) => {
      const error = thrown instanceof SaettaError ? thrown : this.#broken(thrown);
      if (this.#options.onFailure === undefined) throw error;
      this.#options.onFailure(error);
      return undefined;
    });
    this.#asked.catch(() => undefined);
    const frame = await unlessAborted(this.#asked, signal);
    this.#asked = undefined;
    return frame;
  }

  async #keptFrame(): Promise<Frame | undefined> {
    const frame = await this.#frames.next();
    if (frame !== undefined) await this.#options.keep?.add(frame);
    return frame;
  }

  #broken(cause: unknown): SaettaError {
    return new SaettaError(`cannot be read any more (${messageOf(cause)})`, { where: this.#frames.where, cause });
  }

  /** Whether there is a row to take, after waiting for a frame where need be. */
  async #hasRow(signal?: AbortSignal): Promise<boolean> {
    while (this.#taken === this.#used.length) {
      if (this.#ended) return false;
      const { rows = 0, context = rows } = this.#frame ?? {};
      this.#before += rows;
      this.#contextsBefore += rows === 0 ? 0 : rows / context;
      this.#frame = await this.#nextFrame(signal);
      this.#taken = 0;
      this.#used = new Uint32Array(0);
      if (this.#frame === undefined) {
        this.#ended = true;
        return false;
      }
      this.#used = this.#usedOf(this.#frame);
      this.#usedSoFar += this.#used.length;
    }
    return true;
  }

  /** The rows of a frame that are no padding and not left out for their token or position. */
  #usedOf({ rows, tokens, mask, context = this.#context }: Frame): Uint32Array {
    if (this.#positions !== undefined && context === undefined)
      throw new UsageError("--exclude-positions: the rows are in no contexts", {
        where: this.#frames.where,
        mend: "send contexts, or leave the option out",
      });
    const used = new Uint32Array(rows);
    let count = 0;
    let start = 0; // the first row of the context that is no padding
    let begun = false;
    for (let row = 0; row < rows; row++) {
      if (context !== undefined && row % context === 0) begun = false;
      if (mask !== undefined && mask[row] === 0) continue;
      if (!begun) [start, begun] = [row, true];
      if (tokens !== undefined && this.#excluded.has(tokens[row]!)) continue;
      if (this.#positions?.has(row - start) === true) continue;
      used[count++] = row;
    }
    return used.subarray(0, count);
  }
}

/**
 * Rows in frames, as a program writes them into a pipe or a socket: docs/guides/streams.md has the
 * format. A reader takes one frame at a time, so that a full pipe holds the program back.
 */

import { BYTES } from "../util/bytes.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { type JsonObject, parseJson } from "../util/json.ts";
import { countInWords, eitherOf, mustBe } from "../util/must.ts";
import type { ByteReader } from "../util/socket-bytes.ts";

/** "SAETTA", the version, a line's end. */
export const MAGIC = Uint8Array.from([0x53, 0x41, 0x45, 0x54, 0x54, 0x41, 0x01, 0x0a]);
const DTYPES = ["f16", "bf16", "f32"] as const;
const MOST_HEADER = 1 << 20;
const MOST_ROWS = 1 << 24;
const MOST_WIDTH = 1 << 20;
const MOST_PAYLOAD = 2 ** 31 - 1;

export interface FramesHeader {
  readonly width: number;
  readonly dtype: (typeof DTYPES)[number];
  /** Whether frames have a token id per row, and whether they have a mask. */
  readonly tokens: boolean;
  readonly mask: boolean;
  /** Rows of a context; every frame holds whole contexts. */
  readonly context: number | undefined;
  /** Rows that will come, where the program knows. */
  readonly rows: number | undefined;
  readonly model: string | undefined;
  readonly tensor: string | undefined;
  readonly tokenizer: string | undefined;
  readonly startToken: number | undefined;
}

/** Where frames of rows come from: a program, or the files that one writes. */
export interface RowFrames {
  /** Names them in errors. */
  readonly where: string;
  header(): Promise<FramesHeader>;
  /** The next frame; undefined after the last. */
  next(): Promise<Frame | undefined>;
  /** No more is read. `isUsed`: all rows of the last frame were taken. */
  close(isUsed: boolean): Promise<void>;
}

/** Valid until the next frame is asked for. */
export interface Frame {
  readonly rows: number;
  /** Rows of a context, where frames differ; the frame holds whole contexts. */
  readonly context?: number | undefined;
  /** [rows, width], row-major. */
  readonly values: Uint8Array;
  readonly tokens: Int32Array | undefined;
  /** 1: a row, 0: padding. */
  readonly mask: Uint8Array | undefined;
}

/** Bytes that come in chunks of any size. */
class ChunkBytes implements ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  async read(into: Uint8Array): Promise<number> {
    let have = 0;
    while (have < into.length) {
      if (this.#chunk.length === 0) {
        const { done, value } = await this.#chunks.next();
        if (done === true) break;
        this.#chunk = value;
        continue;
      }
      const part = this.#chunk.subarray(0, into.length - have);
      into.set(part, have);
      have += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
    return have;
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}

export class FrameReader implements RowFrames {
  readonly where: string;
  readonly #bytes: ByteReader;
  /** Bytes read so far. */
  #at = 0;
  #header: FramesHeader | undefined;
  #payload = new Uint8Array(0);
  #ended = false;

  /** `where` names the stream in errors. */
  constructor(bytes: AsyncIterable<Uint8Array> | ByteReader, where: string) {
    this.#bytes = Symbol.asyncIterator in bytes ? new ChunkBytes(bytes) : bytes;
    this.where = where;
  }

  /** Reads the header. Throws FormatError where the stream does not begin as it must. */
  async header(): Promise<FramesHeader> {
    const begin = new Uint8Array(MAGIC.length + 4);
    const got = await this.#into(begin);
    if (got === 0) throw new SaettaError("nothing came", { where: this.where, mend: "pipe rows into it" });
    if (MAGIC.some((byte, i) => begin[i] !== byte)) {
      throw new FormatError("these are no rows in frames (they begin with SAETTA, 1, a line feed)", {
        where: this.where,
        mend: "write them as docs/guides/streams.md says, or with the Python package",
      });
    }
    const bytes = new DataView(begin.buffer).getUint32(MAGIC.length, true);
    if (got < begin.length || bytes > MOST_HEADER) throw this.#wrong("the header's size is missing or above 1 MiB");
    const text = new Uint8Array(bytes);
    if ((await this.#into(text)) < bytes) throw this.#cut();
    this.#header = headerOf(parseJson(text, this.where), this.where);
    return this.#header;
  }

  /** The next frame; undefined after the last. Throws SaettaError where the stream was cut. */
  async next(): Promise<Frame | undefined> {
    const header = this.#header!;
    if (this.#ended) return undefined;
    const head = new Uint8Array(8);
    if ((await this.#into(head)) < head.length) throw this.#cut();
    const view = new DataView(head.buffer);
    const [rows, bytes] = [view.getUint32(0, true), view.getUint32(4, true)];
    if (rows === 0 && bytes === 0) {
      this.#ended = true;
      return undefined;
    }
    const { width, dtype, tokens, mask, context } = header;
    const valueBytes = rows * width * BYTES[dtype];
    const due = valueBytes + (tokens ? 4 * rows : 0) + (mask ? rows : 0);
    if (rows === 0 || rows > MOST_ROWS || due > MOST_PAYLOAD)
      throw this.#wrong(`a frame of ${rows} rows; frames have 1 to ${MOST_ROWS} rows and less than 2 GiB`, 8);
    if (bytes !== due) {
      throw this.#wrong(
        `a frame of ${rows} rows has ${bytes} bytes, but rows of ${width} ${dtype} numbers take ${due}: another width?`,
        8,
      );
    }
    if (context !== undefined && rows % context !== 0)
      throw this.#wrong(`a frame of ${rows} rows, which are no whole contexts of ${context}`, 8);
    if (this.#payload.length < bytes) this.#payload = new Uint8Array(Math.ceil(bytes / 4096) * 4096);
    const payload = this.#payload.subarray(0, bytes);
    if ((await this.#into(payload)) < bytes) throw this.#cut();
    const maskAt = tokens ? 4 * rows : 0;
    const valuesAt = bytes - valueBytes;
    return {
      rows,
      values: payload.subarray(valuesAt),
      tokens: tokens ? new Int32Array(payload.slice(0, maskAt).buffer) : undefined,
      mask: mask ? payload.subarray(maskAt, valuesAt) : undefined,
    };
  }

  /** Tells the program that nothing more is read. */
  async close(): Promise<void> {
    this.#ended = true;
    await this.#bytes.close();
  }

  /** Fills `target`; returns fewer bytes where the stream ends before. */
  async #into(target: Uint8Array): Promise<number> {
    const have = await this.#bytes.read(target);
    this.#at += have;
    return have;
  }

  #cut(): SaettaError {
    return new SaettaError(`the rows were cut off after byte ${this.#at}, in the middle`, {
      where: this.where,
      mend: "look why the program that writes them ended; it must write the end mark",
    });
  }

  #wrong(what: string, back = 0): FormatError {
    return new FormatError(`byte ${this.#at - back}: ${what}`, { where: this.where });
  }
}

function headerOf(json: unknown, where: string): FramesHeader {
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new FormatError("the header is no JSON object", { where });
  const fields = json as JsonObject;
  const count = (name: string, most: number, least = 1): number | undefined => {
    const value = fields[name];
    if (value === undefined || value === null) return undefined;
    if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
    throw new FormatError(`header: ${mustBe(name, countInWords(least, most), value)}`, { where });
  };
  const flag = (name: string): boolean => {
    const value = fields[name] ?? false;
    if (typeof value === "boolean") return value;
    throw new FormatError(`header: ${mustBe(name, "true or false", value)}`, { where });
  };
  const text = (name: string): string | undefined => {
    const value = fields[name] ?? undefined;
    if (value === undefined || typeof value === "string") return value;
    throw new FormatError(`header: ${mustBe(name, "a text", value)}`, { where });
  };
  const dtype = DTYPES.find((name) => name === fields.dtype);
  if (dtype === undefined)
    throw new FormatError(`header: ${mustBe("dtype", eitherOf(DTYPES), fields.dtype)}`, { where });
  const width = count("width", MOST_WIDTH);
  if (width === undefined) throw new FormatError("header: width is missing", { where });
  return {
    width,
    dtype,
    tokens: flag("tokens"),
    mask: flag("mask"),
    context: count("context", MOST_ROWS),
    rows: count("rows", Number.MAX_SAFE_INTEGER),
    model: text("model"),
    tensor: text("tensor"),
    tokenizer: text("tokenizer"),
    startToken: count("start_token", 2 ** 31 - 1, 0),
  };
}

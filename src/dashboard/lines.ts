/**
 * A file of lines that grows, is cut back when a run is resumed, and may be replaced: read on from
 * where the last look ended.
 */

import type { FileHandle } from "node:fs/promises";
import { openPlain } from "./read.ts";

const CHUNK = 1024 * 1024;
/**
 * How much of what was read last is looked at again, to see whether the file is still the one that
 * it was.
 */
const ANCHOR = 512;

export interface LineListener {
  /** A whole line, without its line feed. */
  readonly line: (text: string) => void;
  /** All lines that came so far are void: the file was cut back or replaced, and comes anew. */
  readonly reset: () => void;
}

export class LineReader {
  readonly #path: string;
  readonly #listener: LineListener;
  /** Bytes read, up to the end of a line. */
  #offset = 0;
  /** The bytes before `#offset`. */
  #anchor: Buffer = Buffer.alloc(0);
  #identity = "";
  /** The line under way is longer than a chunk, and is left out. */
  #overlong = false;

  constructor(path: string, listener: LineListener) {
    this.#path = path;
    this.#listener = listener;
  }

  /**
   * Tells of the lines that were added since the last call. A line that has no end yet comes with a
   * later call. Calls must not overlap.
   */
  async read(): Promise<void> {
    const file = await openPlain(this.#path);
    if (file === undefined) {
      this.#forget();
      return;
    }
    try {
      const { size, ino, dev } = await file.stat();
      const identity = `${dev}:${ino}`;
      if (identity !== this.#identity || size < this.#offset || !(await this.#same(file))) this.#forget();
      this.#identity = identity;
      await this.#readOn(file, size);
    } finally {
      await file.close();
    }
  }

  /** A file that was cut back may have grown beyond where it was since: its bytes tell. */
  async #same(file: FileHandle): Promise<boolean> {
    const { length } = this.#anchor;
    if (length === 0) return true;
    const now = Buffer.alloc(length);
    const { bytesRead } = await file.read(now, 0, length, this.#offset - length);
    return bytesRead === length && now.equals(this.#anchor);
  }

  #forget(): void {
    if (this.#offset > 0) this.#listener.reset();
    this.#offset = 0;
    this.#anchor = Buffer.alloc(0);
    this.#overlong = false;
  }

  async #readOn(file: FileHandle, size: number): Promise<void> {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(0, size - this.#offset)));
    while (this.#offset < size) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(chunk.length, size - this.#offset), this.#offset);
      const end = chunk.subarray(0, bytesRead).lastIndexOf(10) + 1;
      if (end === 0 && bytesRead < CHUNK) return;
      const used = end === 0 ? bytesRead : end;
      let begin = 0;
      while (begin < end) {
        const feed = chunk.indexOf(10, begin);
        if (!this.#overlong) this.#listener.line(chunk.toString("utf8", begin, feed));
        this.#overlong = false;
        begin = feed + 1;
      }
      if (end === 0) this.#overlong = true;
      this.#anchor = Buffer.concat([this.#anchor, chunk.subarray(Math.max(0, used - ANCHOR), used)]).subarray(-ANCHOR);
      this.#offset += used;
    }
  }
}

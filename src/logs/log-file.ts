/**
 * A file that is appended to in the background. Nothing that goes wrong with it reaches the one who
 * writes.
 */

import { type FileHandle, open } from "node:fs/promises";
import { messageOf } from "../util/errors.ts";

/** More than this waiting to be written means that the disk has stalled. */
const MOST_WAITING = 32 * 1024 * 1024;
/** How long closing waits for a disk that has stalled. */
export const PATIENCE_MS = 10_000;

export interface LogFileOptions {
  /** Told once, in a line, when the file cannot be written; nothing is written after that. */
  readonly onNote: (note: string) => void;
  /** Default: 32 MiB may wait, and closing takes at most 10 s. */
  readonly mostWaiting?: number;
  readonly patience?: number;
}

/** What is asked of a file. */
type Written = Pick<FileHandle, "appendFile" | "close">;

export class LogFile {
  readonly path: string;
  readonly #options: LogFileOptions;
  #file: Written | undefined;
  #waiting: Uint8Array[] = [];
  #bytes = 0;
  #writing: Promise<void> | undefined;
  #failed = false;

  constructor(path: string, file: Written, options: LogFileOptions) {
    this.path = path;
    this.#file = file;
    this.#options = options;
  }

  /** Creates the file. Rejects when that cannot be done: EEXIST where it is there already. */
  static async create(path: string, options: LogFileOptions): Promise<LogFile> {
    return new LogFile(path, await open(path, "wx"), options);
  }

  /** Takes the pieces, in the order of the calls, and returns at once. */
  append(pieces: readonly Uint8Array[]): void {
    if (this.#failed || this.#file === undefined) return;
    for (const piece of pieces) {
      this.#waiting.push(piece);
      this.#bytes += piece.length;
    }
    if (this.#bytes > (this.#options.mostWaiting ?? MOST_WAITING)) this.#fail("the disk does not keep up");
    else this.#writing ??= this.#write();
  }

  /** Waits until all that was appended so far is written. Never rejects. */
  async drained(): Promise<void> {
    while (this.#writing !== undefined && !this.#failed) await this.#writing;
  }

  /** Waits until all is written, but not for ever. Never rejects. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    const ended = await within(this.#options.patience ?? PATIENCE_MS, this.#writing ?? Promise.resolve());
    if (ended === "late") this.#fail("the disk does not answer");
    const closed = file.close().catch((thrown: unknown) => this.#fail(messageOf(thrown)));
    if (ended !== "late") await closed;
  }

  async #write(): Promise<void> {
    const file = this.#file;
    try {
      while (file !== undefined && this.#waiting.length > 0 && !this.#failed) {
        const bytes = Buffer.concat(this.#waiting);
        this.#waiting = [];
        this.#bytes = 0;
        await file.appendFile(bytes);
      }
    } catch (thrown) {
      this.#fail(messageOf(thrown));
    }
    this.#writing = undefined;
  }

  #fail(why: string): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#waiting = [];
    this.#options.onNote(`${this.path}: cannot be written (${why}); the run goes on without it`);
  }
}

/** What the promise gives, or "late" when it takes longer than `ms`. */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T | "late"> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

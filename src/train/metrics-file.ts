/** metrics.jsonl of a run folder, written line by line. */

import { createReadStream } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { disk, type OutputFile } from "../checkpoint/storage.ts";
import type { LogLine } from "../logs/run-log.ts";
import type { Report } from "../run-files/metrics.ts";
import { METRICS } from "../run-files/names.ts";
import { SaettaError } from "../util/errors.ts";

/**
 * Lines are kept in memory until they are on the disk, which they are at the latest when this many
 * bytes of them have come together.
 */
const MOST_KEPT = 1024 * 1024;

/**
 * Lines appear in the file as they are appended, and are on the disk after `flush`. One that could
 * not be written is kept: a later `flush` writes it where it belongs, so that a run that waited for
 * room has the lines of one that did not.
 */
export class MetricsFile {
  readonly #file: OutputFile;
  /** Bytes of the file that are on the disk. */
  #synced: number;
  /**
   * Lines after them, of which the first `#written` were given to the system: it has the file up to
   * byte `#end`.
   */
  #lines: Uint8Array[] = [];
  #written = 0;
  #end: number;
  /** Bytes of the file when all of them are. */
  #length: number;
  #failed = false;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(file: OutputFile, bytes: number) {
    this.#file = file;
    this.#synced = bytes;
    this.#end = bytes;
    this.#length = bytes;
  }

  /**
   * Opens the file cut back to its first `bytes`: what was logged after the checkpoint that a run
   * goes on from will be logged again.
   */
  static async open(dir: string, bytes: number): Promise<MetricsFile> {
    const path = join(dir, METRICS);
    const file = await disk.open(path);
    try {
      if (file.size < bytes) {
        throw new SaettaError(`has ${file.size} bytes, but the checkpoint was saved when it had ${bytes}`, {
          where: path,
          mend: "restore the file; the checkpoint itself is whole",
        });
      }
      await file.truncate(bytes);
    } catch (thrown) {
      await file.close();
      throw thrown;
    }
    return new MetricsFile(file, bytes);
  }

  /** Appends a line. Lines are written in the order of the calls; a failure surfaces at `flush`. */
  append(report: Report): void {
    const line = Buffer.from(`${JSON.stringify(report)}\n`);
    this.#lines.push(line);
    this.#length += line.byteLength;
    this.#next(async () => {
      if (this.#failed) return; // until somebody asks
      await this.#write();
      if (this.#end - this.#synced > MOST_KEPT) await this.#sync();
    }).catch(() => undefined);
  }

  /**
   * Waits until every line so far is on the disk. Returns the length in bytes of the file up to
   * them. Rejects when a line cannot be written; it may be called again then.
   */
  flush(): Promise<number> {
    const length = this.#length;
    return this.#next(async () => {
      this.#failed = false;
      await this.#write();
      await this.#sync();
      return length;
    });
  }

  async close(): Promise<void> {
    await this.#turn;
    await this.#file.close();
  }

  #next<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work).catch((thrown: unknown) => {
      // Nobody knows what the disk has of the lines that it was not yet said to have: they are
      // written again.
      this.#failed = true;
      this.#written = 0;
      this.#end = this.#synced;
      throw thrown;
    });
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #write(): Promise<void> {
    const fresh = this.#lines.slice(this.#written);
    const bytes = Buffer.concat(fresh);
    if (bytes.byteLength === 0) return;
    await this.#file.write(bytes, this.#end);
    this.#written += fresh.length;
    this.#end += bytes.byteLength;
  }

  async #sync(): Promise<void> {
    const [lines, end] = [this.#written, this.#end];
    await this.#file.sync();
    this.#lines.splice(0, lines);
    this.#written -= lines;
    this.#synced = end;
  }
}

/**
 * The lines in the first `bytes` of metrics.jsonl, without what was not finite; as if all of the
 * run had gone on since `began`, in seconds since 1970.
 */
export async function* earlierLines(dir: string, bytes: number, began: number): AsyncGenerator<LogLine> {
  if (bytes === 0) return;
  const file = createReadStream(join(dir, METRICS), { end: bytes - 1 });
  for await (const text of createInterface({ input: file, crlfDelay: Number.POSITIVE_INFINITY })) {
    const { step, elapsed_s, ...rest } = JSON.parse(text) as Readonly<Record<string, number | null>>;
    const values = Object.entries({ step, elapsed_s, ...rest }).filter(
      (entry): entry is [string, number] => typeof entry[1] === "number",
    );
    if (typeof step === "number")
      yield { step, wallTime: began + (elapsed_s ?? 0), values: Object.fromEntries(values) };
  }
}

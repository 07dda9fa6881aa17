/**
 * The files that a program writes into a folder, as frames of rows: each is taken when it is whole,
 * and deleted after use where that is asked for. docs/guides/streams.md says when a file is whole.
 */

import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cannotOpen } from "../formats/open-file.ts";
import { formatBytes } from "../util/bytes.ts";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { formatDuration } from "../util/progress.ts";
import { NoRowsError, type OpenOptions } from "./array-source.ts";
import { isActivationsName, kindOf, natural } from "./file-names.ts";
import { openFileSource } from "./open.ts";
import type { Frame, FramesHeader, RowFrames } from "./row-frames.ts";
import { bytesPerRow, type Source } from "./source.ts";

export interface WatchOptions extends OpenOptions {
  /** Deletes each file once all of its rows are taken. */
  readonly consume: boolean;
  /** Milliseconds that a file may take to become whole, and that may pass without a new one. */
  readonly timeout: number;
  readonly onNote: (note: string) => void;
  /** Bytes that are free where the folder is; undefined where the system does not say. */
  readonly free?: ((folder: string) => Promise<number | undefined>) | undefined;
  /** Milliseconds between two looks at the folder. */
  readonly pause?: number | undefined;
}

/** The name of the file that says that no more files will come. */
export const DONE = "DONE";
const LOCK = ".lock";
const PAUSE_MS = 200;
/**
 * Looks in which a file must be the same: those of some formats say how long they are, others may
 * look whole before they are.
 */
const LOOKS = { safetensors: 1, npy: 1, torch: 1 } as const;
const LOOKS_OF_OTHERS = 10;
/** Rows of so many bytes are a frame. */
const FRAME_BYTES = 8 * 2 ** 20;
/** With less, a program that fills the folder is likely to stop. */
const LITTLE_ROOM = 256 * 2 ** 20;

/** What is known of a file that is not used yet. */
interface Waiting {
  readonly size: number;
  readonly changed: number;
  readonly inode: number;
  readonly lock: string | undefined;
  /** Why it could not be opened. */
  readonly problem: string | undefined;
  /** In how many looks after the first it was the same; many once its lock is gone. */
  readonly looks: number;
}

interface Taken {
  readonly name: string;
  readonly path: string;
  readonly source: Source;
  readonly file: Waiting;
  /** The row that is read next. */
  at: number;
}

export class FolderFrames implements RowFrames {
  readonly where: string;
  readonly #options: WatchOptions;
  readonly #waiting = new Map<string, Waiting>();
  /** Names of files that were used and are still there. */
  readonly #used = new Set<string>();
  #current: Taken | undefined;
  #header: FramesHeader | undefined;
  #memory = new Uint8Array(0);
  /** When something last happened in the folder. */
  #changed = 0;
  #saidRoom = false;
  readonly #closing = new AbortController();

  constructor(folder: string, options: WatchOptions) {
    this.where = folder;
    this.#options = options;
  }

  /** Waits for the first file: the others must be like it. */
  async header(): Promise<FramesHeader> {
    this.#current = await this.#nextFile();
    if (this.#current === undefined)
      throw new SaettaError("no file of activations came", {
        where: this.where,
        mend: "start the program that writes them, or name the folder that it writes into",
      });
    const { dIn, dtype, tokens, mask, origin, notes } = this.#current.source;
    for (const note of notes ?? []) this.#options.onNote(note);
    const { model, tensor, tokenizer, startToken } = origin;
    if (dtype === "f64")
      throw new SaettaError("holds f64", { where: this.#current.path, mend: "write f32, f16 or bf16" });
    this.#header = {
      ...{ width: dIn, dtype, tokens: tokens !== undefined, mask: mask !== undefined, context: undefined },
      ...{ rows: undefined, model, tensor, tokenizer, startToken },
    };
    return this.#header;
  }

  async next(): Promise<Frame | undefined> {
    if (this.#current !== undefined && this.#current.at === this.#current.source.rows) await this.#finish();
    this.#current ??= await this.#nextFile();
    const taken = this.#current;
    if (taken === undefined) return undefined;
    this.#check(taken);
    const { source, at } = taken;
    const rowBytes = bytesPerRow(source);
    const together = source.sequence ?? 1;
    const most = together * Math.max(1, Math.floor(FRAME_BYTES / rowBytes / together));
    const rows = Math.min(most, source.rows - at);
    if (this.#memory.length < rows * rowBytes) this.#memory = new Uint8Array(rows * rowBytes);
    const values = this.#memory.subarray(0, rows * rowBytes);
    await source.read(at, rows, values);
    const tokens = await source.tokens?.(at, rows);
    const mask = await source.mask?.(at, rows);
    taken.at += rows;
    return { rows, values, tokens, mask, context: source.sequence };
  }

  async close(isUsed: boolean): Promise<void> {
    this.#closing.abort();
    const taken = this.#current;
    if (taken === undefined) return;
    if (isUsed && taken.at === taken.source.rows) await this.#finish();
    else await taken.source.close();
    this.#current = undefined;
  }

  /** The file is used: closes it, and deletes it where that is asked for and it is the same. */
  async #finish(): Promise<void> {
    const { name, path, source, file } = this.#current!;
    this.#current = undefined;
    await source.close();
    const now = await found(path);
    if (now === undefined || !isSame(now, file)) return; // another file of this name is a new one
    if (this.#options.consume)
      await rm(path).catch((cause: unknown) => {
        throw new SaettaError(`cannot be deleted (${messageOf(cause)})`, {
          where: path,
          mend: "leave out --consume, or choose a folder that you may write to",
          cause,
        });
      });
    else this.#used.add(name);
  }

  #check({ path, source }: Taken): void {
    const { width, dtype, tokens } = this.#header!;
    const differ = (what: string): never => {
      throw new SaettaError(what, { where: path, mend: "give the files of each tensor a folder" });
    };
    if (source.dIn !== width) differ(`rows of ${source.dIn} numbers, but the files before have ${width}`);
    if (source.dtype !== dtype) differ(`holds ${source.dtype}, but the files before hold ${dtype}`);
    if ((source.tokens !== undefined) !== tokens)
      differ(tokens ? "has no tokens, but the files before have" : "has tokens, but the files before have none");
  }

  /** The next file that is whole; undefined where no more come, or it is closed. */
  async #nextFile(): Promise<Taken | undefined> {
    const { pause = PAUSE_MS } = this.#options;
    // Every file is looked at often enough to be taken.
    const timeout = Math.max(this.#options.timeout, (LOOKS_OF_OTHERS + 5) * pause);
    this.#changed = performance.now();
    for (;;) {
      const isDone = await this.#look();
      for (const name of natural([...this.#waiting.keys()])) {
        const taken = await this.#take(name);
        if (taken === undefined) continue;
        if (!this.#closing.signal.aborted) return taken;
        await taken.source.close();
      }
      if (this.#closing.signal.aborted) return undefined;
      await this.#noteRoom();
      if (isDone && this.#waiting.size === 0) return undefined;
      if (performance.now() - this.#changed >= timeout) {
        for (const [name, file] of this.#waiting) throw this.#stuck(name, file);
        if (this.#header !== undefined)
          this.#options.onNote(
            `${this.where}: no new file came in ${this.#time()}, and no file ${DONE} says that none will come`,
          );
        return undefined;
      }
      await sleep(pause, undefined, { signal: this.#closing.signal }).catch(() => undefined);
    }
  }

  /** Looks at what is in the folder. Returns whether the program says that it is done. */
  async #look(): Promise<boolean> {
    const names = await readdir(this.where).catch((cause: unknown) => {
      throw cannotOpen(this.where, cause);
    });
    const there = new Set(names);
    for (const name of this.#used) if (!there.has(name)) this.#used.delete(name);
    for (const name of this.#waiting.keys()) if (!there.has(name)) this.#waiting.delete(name);
    for (const name of names) {
      if (name.startsWith(".") || !isActivationsName(name) || this.#used.has(name)) continue;
      const now = await found(join(this.where, name));
      if (now === undefined) continue;
      const lock = [`${name}${LOCK}`, name.replace(/\.[^.]*$/, LOCK)].find((each) => there.has(each));
      this.#see(name, now, lock);
    }
    return there.has(DONE);
  }

  #see(name: string, now: Pick<Waiting, "size" | "changed" | "inode">, lock: string | undefined): void {
    const before = this.#waiting.get(name);
    const isNew = before === undefined || !isSame(before, now);
    if (isNew || before.lock !== lock) this.#changed = performance.now();
    this.#waiting.set(name, {
      ...now,
      lock,
      problem: isNew ? undefined : before.problem,
      // A lock that was released says more than a size.
      looks: lock !== undefined ? 0 : before?.lock !== undefined ? LOOKS_OF_OTHERS : isNew ? 0 : before.looks + 1,
    });
  }

  /** Opens the file where it is whole. One without rows is passed over. */
  async #take(name: string): Promise<Taken | undefined> {
    const file = this.#waiting.get(name)!;
    const kind = kindOf(name) as keyof typeof LOOKS;
    if (file.looks < (LOOKS[kind] ?? LOOKS_OF_OTHERS)) return undefined;
    const path = join(this.where, name);
    try {
      const source = await openFileSource(path, this.#options);
      this.#waiting.delete(name);
      return { name, path, source, file, at: 0 };
    } catch (thrown) {
      if (!(thrown instanceof SaettaError)) throw thrown;
      // Its words are wrong, not the file.
      if (thrown.exitCode === 2) throw thrown;
      if (thrown instanceof NoRowsError && file.size > 0) {
        this.#waiting.delete(name);
        this.#used.add(name);
        this.#options.onNote(`${path} has no rows and is left out`);
        return undefined;
      }
      const problem = thrown.message.startsWith(`${path}: `) ? thrown.message.slice(path.length + 2) : thrown.message;
      this.#waiting.set(name, { ...file, problem });
      return undefined;
    }
  }

  /** What keeps a file from being used. */
  #stuck(name: string, { lock, problem }: Waiting): SaettaError {
    const where = join(this.where, name);
    if (lock !== undefined)
      return new SaettaError(`its lock ${lock} was not released in ${this.#time()}`, {
        where,
        mend: "look whether the program that writes it still runs; remove the lock if the file is whole",
      });
    return new SaettaError(`did not become whole in ${this.#time()}${problem === undefined ? "" : ` (${problem})`}`, {
      where,
      mend: "look whether the program that writes it still runs",
    });
  }

  #time(): string {
    return formatDuration(this.#options.timeout / 1000);
  }

  async #noteRoom(): Promise<void> {
    if (this.#saidRoom) return;
    const free = await this.#options.free?.(this.where);
    if (free === undefined || free >= LITTLE_ROOM) return;
    this.#saidRoom = true;
    this.#options.onNote(
      `${this.where}: ${formatBytes(free)} are free there, so that the program that writes the files may stop; ` +
        (this.#options.consume ? "files are deleted as they are used" : "--consume deletes files after use"),
    );
  }
}

/** Size, time of change and inode of a file; undefined where there is none. */
async function found(path: string): Promise<Pick<Waiting, "size" | "changed" | "inode"> | undefined> {
  try {
    const about = await stat(path);
    return about.isFile() ? { size: about.size, changed: about.mtimeMs, inode: about.ino } : undefined;
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return undefined;
    throw cannotOpen(path, cause);
  }
}

function isSame(
  a: Pick<Waiting, "size" | "changed" | "inode">,
  b: Pick<Waiting, "size" | "changed" | "inode">,
): boolean {
  return a.size === b.size && a.changed === b.changed && a.inode === b.inode;
}

/** Files that are there whole or not at all: written aside, synced, renamed. */

import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { pieces } from "./bytes.ts";
import { hasCode, messageOf, SaettaError } from "./errors.ts";

/** A file that gets its name when it is whole. Call `finish` or `abandon` once. */
export class AtomicFile {
  readonly #path: string;
  readonly #aside: string;
  readonly #file: FileHandle;

  private constructor(path: string, aside: string, file: FileHandle) {
    this.#path = path;
    this.#aside = aside;
    this.#file = file;
  }

  /** Throws SaettaError when the file cannot be written there. */
  static async create(path: string): Promise<AtomicFile> {
    const aside = `${path}.${process.pid}.tmp`;
    return new AtomicFile(path, aside, await open(aside, "w").catch((cause: unknown) => refuseWriting(path, cause)));
  }

  /** Appends the bytes, or writes them from byte `at` on. */
  async write(bytes: Uint8Array, at?: number): Promise<void> {
    await appendTo(this.#file, bytes, this.#path, at);
  }

  /** Replaces the file at the path, if there is one. */
  async finish(): Promise<void> {
    try {
      await this.#file.sync();
      await this.#file.close();
      await rename(this.#aside, this.#path);
    } catch (cause) {
      refuseWriting(this.#path, cause);
    }
  }

  /** Leaves nothing. */
  async abandon(): Promise<void> {
    await this.#file.close();
    await rm(this.#aside, { force: true });
  }
}

/**
 * Writes the file that `content` makes by calling `write`, in order. Nothing is left when it fails.
 */
export async function atomicWrite(
  path: string,
  content: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const file = await AtomicFile.create(path);
  try {
    await content((bytes) => file.write(bytes));
    await file.finish();
  } catch (thrown) {
    await file.abandon();
    throw thrown;
  }
}

/**
 * Appends bytes to a file, or writes them from byte `at` on. Throws SaettaError that names `path`.
 */
export async function appendTo(file: FileHandle, bytes: Uint8Array, path: string, at?: number): Promise<void> {
  let next = at;
  try {
    for (const piece of pieces(bytes)) {
      for (let done = 0; done < piece.length; ) {
        const { bytesWritten } = await file.write(piece, done, piece.length - done, next);
        done += bytesWritten;
        if (next !== undefined) next += bytesWritten;
      }
    }
  } catch (cause) {
    refuseWriting(path, cause);
  }
}

/** Throws SaettaError that says why `path` cannot be written. */
export function refuseWriting(path: string, cause: unknown): never {
  const full = hasCode(cause, "ENOSPC", "EDQUOT");
  throw new SaettaError(`cannot be written (${messageOf(cause)})`, {
    where: path,
    cause,
    ...(full ? { mend: "free some space or write elsewhere" } : {}),
  });
}

/** Throws SaettaError where there is something at `path`. */
export async function refuseExisting(path: string): Promise<void> {
  try {
    await stat(path);
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return;
    refuseWriting(path, cause);
  }
  throw new SaettaError("exists already", { where: path, mend: "remove it or choose another name" });
}

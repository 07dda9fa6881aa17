/**
 * The few calls of the file system that make a run folder last: all that a run stands on,
 * checkpoints, metrics.jsonl and config.json, goes through this seam, so that a test can kill the
 * process, fill the disk or cut the power at any one of them. Reading does not: what is read is
 * verified.
 */

import { mkdir, open, readdir, rename, rm, statfs } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { pieces } from "../util/bytes.ts";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";

export interface OutputFile {
  /** Writes all of the bytes from byte `at` of the file on. */
  write(bytes: Uint8Array, at: number): Promise<void>;
  /** Cuts the file back to its first `size` bytes. */
  truncate(size: number): Promise<void>;
  /** Returns when the bytes are on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Storage {
  /** Names in a folder; none when it does not exist. */
  list(folder: string): Promise<string[]>;
  /** Makes the folder, whose parent exists; false where the folder exists already. */
  makeFolder(path: string): Promise<boolean>;
  /** A new file; fails when it exists. */
  create(path: string): Promise<OutputFile>;
  /** A file to be written into where it is, made when it does not exist, and its size in bytes. */
  open(path: string): Promise<OutputFile & { readonly size: number }>;
  rename(from: string, to: string): Promise<void>;
  /** A file or a folder with all in it; nothing when it does not exist. */
  remove(path: string): Promise<void>;
  /** Returns when the names in the folder are on the disk. */
  syncFolder(path: string): Promise<void>;
  /** Returns after a while, when a full disk may have room again, or when the signal is aborted. */
  later(signal: AbortSignal): Promise<void>;
}

/** Between two tries to write to a full disk. */
const LATER_MS = 5000;

/** The real one. */
export const disk: Storage = {
  async list(folder) {
    try {
      return await readdir(folder);
    } catch (thrown) {
      if (hasCode(thrown, "ENOENT")) return [];
      throw failure(thrown, folder);
    }
  },

  async makeFolder(path) {
    return mkdir(path).then(
      () => true,
      (thrown: unknown) => {
        if (!hasCode(thrown, "EEXIST")) throw failure(thrown, path);
        return false;
      },
    );
  },

  async create(path) {
    return (await opened(path, "wx")).file;
  },

  async open(path) {
    const { file, size } = await opened(path, "r+").catch((thrown: unknown) => {
      if (thrown instanceof SaettaError && hasCode(thrown.cause, "ENOENT")) return opened(path, "wx");
      throw thrown;
    });
    return { ...file, size };
  },

  async rename(from, to) {
    await rename(from, to).catch((thrown: unknown) => {
      throw failure(thrown, to);
    });
  },

  async remove(path) {
    await rm(path, { recursive: true, force: true }).catch((thrown: unknown) => {
      throw failure(thrown, path);
    });
  },

  async syncFolder(path) {
    try {
      const folder = await open(path, "r");
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
    } catch (thrown) {
      // Some network file systems cannot sync a folder; they order names themselves. A folder that
      // may not be read cannot be synced either.
      if (!hasCode(thrown, "EINVAL", "ENOTSUP", "EACCES")) throw failure(thrown, path);
    }
  },

  async later(signal) {
    await sleep(LATER_MS, undefined, { signal }).catch(() => undefined);
  },
};

async function opened(path: string, flags: "wx" | "r+"): Promise<{ readonly file: OutputFile; readonly size: number }> {
  const named = (thrown: unknown): never => {
    throw failure(thrown, path);
  };
  const handle = await open(path, flags).catch(named);
  const { size } = await handle.stat();
  const file: OutputFile = {
    async write(bytes, at) {
      let end = at;
      for (const piece of pieces(bytes)) {
        for (let done = 0; done < piece.byteLength; ) {
          const { bytesWritten } = await handle.write(piece, done, piece.byteLength - done, end).catch(named);
          done += bytesWritten;
          end += bytesWritten;
        }
      }
    },
    truncate: (length) => handle.truncate(length).catch(named),
    sync: () => handle.sync().catch(named),
    close: () => handle.close().catch(named),
  };
  return { file, size };
}

const FULL = ["ENOSPC", "EDQUOT"] as const;

/** True for the error of a call that found no room on the disk. */
export function isDiskFull(thrown: unknown): thrown is SaettaError {
  return thrown instanceof SaettaError && hasCode(thrown.cause, ...FULL);
}

/** Bytes that may still be written where `path` is; undefined when the system does not say. */
export async function freeBytes(path: string): Promise<number | undefined> {
  const found = await statfs(path).catch(() => undefined);
  return found && found.bavail * found.bsize;
}

const MENDS: readonly (readonly [code: string, mend: string])[] = [
  ["ENOSPC", "free some space on that disk"],
  ["EDQUOT", "free some of your quota on that disk"],
  ["EACCES", "choose a folder that you may write to"],
  ["EPERM", "choose a folder that you may write to"],
  ["ENOENT", "choose another --out"],
  ["ENOTDIR", "choose another --out"],
  ["EROFS", "choose a folder on a disk that can be written to"],
  ["EIO", "look at the disk (dmesg); what was saved before is untouched"],
];

/** What went wrong with a call on `path`, in one line. */
export function failure(cause: unknown, path: string): SaettaError {
  const mend = MENDS.find(([code]) => hasCode(cause, code))?.[1];
  return new SaettaError(`could not be written (${messageOf(cause)})`, {
    where: path,
    cause,
    ...(mend === undefined ? {} : { mend }),
  });
}

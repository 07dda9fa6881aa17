/** The few calls of the file system that make a checkpoint last, behind one seam, so that a test can make any one of them fail. */

import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { pieces } from "../util/bytes.ts";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";

export interface OutputFile {
  write(bytes: Uint8Array): Promise<void>;
  /** Returns when the bytes are on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Storage {
  /** Names in a folder; none when it does not exist. */
  list(folder: string): Promise<string[]>;
  /** Makes the folder; its parent exists, and so may the folder. */
  makeFolder(path: string): Promise<void>;
  /** A new file; fails when it exists. */
  create(path: string): Promise<OutputFile>;
  rename(from: string, to: string): Promise<void>;
  /** A file or a folder with all in it; nothing when it does not exist. */
  remove(path: string): Promise<void>;
  /** Returns when the names in the folder are on the disk. */
  syncFolder(path: string): Promise<void>;
}

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
    await mkdir(path).catch((thrown: unknown) => {
      if (!hasCode(thrown, "EEXIST")) throw failure(thrown, path);
    });
  },

  async create(path) {
    const file = await open(path, "wx").catch((thrown: unknown) => {
      throw failure(thrown, path);
    });
    return {
      async write(bytes) {
        try {
          for (const piece of pieces(bytes)) {
            for (let done = 0; done < piece.byteLength; ) done += (await file.write(piece, done)).bytesWritten;
          }
        } catch (thrown) {
          throw failure(thrown, path);
        }
      },
      async sync() {
        await file.sync().catch((thrown: unknown) => {
          throw failure(thrown, path);
        });
      },
      close: () => file.close(),
    };
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
    const folder = await open(path, "r");
    try {
      await folder.sync();
    } catch (thrown) {
      // Some network file systems cannot sync a folder; they order names themselves.
      if (!hasCode(thrown, "EINVAL", "ENOTSUP")) throw failure(thrown, path);
    } finally {
      await folder.close();
    }
  },
};

const MENDS: readonly (readonly [code: string, mend: string])[] = [
  ["ENOSPC", "free some space on that disk"],
  ["EDQUOT", "free some of your quota on that disk"],
  ["EACCES", "choose a folder that you may write to"],
  ["EPERM", "choose a folder that you may write to"],
  ["EROFS", "choose a folder on a disk that can be written to"],
];

function failure(cause: unknown, path: string): SaettaError {
  const mend = MENDS.find(([code]) => hasCode(cause, code))?.[1];
  return new SaettaError(`could not be written (${messageOf(cause)})`, { where: path, cause, ...(mend === undefined ? {} : { mend }) });
}

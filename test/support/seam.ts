/** Faults at the one seam through which a run folder is written (checkpoint/storage.ts). */

import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { disk, failure, type OutputFile, type Storage } from "../../src/checkpoint/storage.ts";

/** A call of the seam that is about to happen. `number` counts from 1. */
export interface Call {
  readonly name: keyof Storage | "write" | "truncate" | "sync" | "close";
  readonly path: string;
  readonly number: number;
}

const real: Storage = { ...disk };

/**
 * The disk, with `fault` asked before each call; an error that it returns is what the call fails
 * with. One that fails has done half of its work: half of the bytes are written, half of the files
 * removed.
 */
export function faulty(fault: (call: Call) => Error | undefined): Storage {
  let number = 0;
  const ask = (name: Call["name"], path: string) => fault({ name, path, number: ++number });
  const before = (name: Call["name"], path: string): Storage => {
    const error = ask(name, path);
    if (error !== undefined) throw error;
    return real;
  };
  const opened = <T extends OutputFile>(file: T, path: string): T => ({
    ...file,
    async write(bytes: Uint8Array, at: number) {
      const error = ask("write", path);
      await file.write(error === undefined ? bytes : bytes.subarray(0, bytes.byteLength >> 1), at);
      if (error !== undefined) throw error;
    },
    async truncate(size: number) {
      before("truncate", path);
      await file.truncate(size);
    },
    async sync() {
      before("sync", path);
      await file.sync();
    },
    async close() {
      await file.close(); // the system closes the files of a process that was killed, too
      before("close", path);
    },
  });
  return {
    list: async (folder) => before("list", folder).list(folder),
    makeFolder: async (path) => before("makeFolder", path).makeFolder(path),
    create: async (path) => opened(await before("create", path).create(path), path),
    open: async (path) => opened(await before("open", path).open(path), path),
    rename: async (from, to) => before("rename", to).rename(from, to),
    syncFolder: async (path) => before("syncFolder", path).syncFolder(path),
    later: async () => {
      before("later", "");
    },
    async remove(path) {
      const error = ask("remove", path);
      if (error === undefined) return real.remove(path);
      const names = await readdir(path).catch(() => []);
      for (const name of names.slice(0, Math.ceil(names.length / 2))) await rm(join(path, name), { recursive: true });
      throw error;
    },
  };
}

/** Does `work` while everything is written through `storage`. One at a time in a process. */
export async function through<T>(storage: Storage, work: () => Promise<T>): Promise<T> {
  Object.assign(disk, storage);
  try {
    return await work();
  } finally {
    Object.assign(disk, real);
  }
}

export class Killed extends Error {}

/**
 * From call `number` on nothing is done any more, as when the process is killed in the middle of
 * that call.
 */
export function killedAt(number: number): Storage {
  return faulty((call) =>
    call.number >= number ? new Killed(`killed at call ${number}, ${call.name} ${call.path}`) : undefined,
  );
}

/** What the system says of each error. */
const SAYS = { ENOSPC: "no space left on device", EIO: "i/o error" } as const;

/** Call `number`, and it alone, fails as the system's calls do. */
export function failingAt(number: number, code: keyof typeof SAYS): Storage {
  return faulty((call) =>
    call.number === number
      ? failure(Object.assign(new Error(`${code}: ${SAYS[code]}, ${call.name}`), { code }), call.path)
      : undefined,
  );
}

/** How many calls `work` makes. */
export async function callsOf(work: () => Promise<unknown>): Promise<number> {
  let calls = 0;
  await through(
    faulty((call) => {
      calls = call.number;
      return undefined;
    }),
    work,
  );
  return calls;
}

/** A sweep's folder: sweep.json, and the run folder of each member. */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { RunLock } from "../../checkpoint/lock.ts";
import { disk } from "../../checkpoint/storage.ts";
import { LOCK, SWEEP } from "../../run-files/names.ts";
import { type SweepFile, sweepOf } from "../../run-files/sweep.ts";
import { FormatError } from "../../util/errors.ts";
import { readJsonFile } from "../../util/json.ts";
import { lockNewFolder, replaceJson } from "../run-folder.ts";

/** Whether the folder is that of a sweep. */
export async function isSweep(dir: string): Promise<boolean> {
  return (await stat(join(dir, SWEEP)).catch(() => undefined))?.isFile() === true;
}

/** Throws FormatError when sweep.json is not one. */
export async function readSweep(dir: string): Promise<SweepFile> {
  const path = join(dir, SWEEP);
  const found = sweepOf(await readJsonFile(path));
  if (found === undefined)
    throw new FormatError("does not say which runs belong to the sweep", {
      where: path,
      mend: "restore the file; each run in the folder can be resumed alone",
    });
  return found;
}

/** sweep.json while the sweep trains. */
export class SweepRecord {
  readonly dir: string;
  #file: SweepFile;
  #turn: Promise<void> = Promise.resolve();

  constructor(dir: string, file: SweepFile) {
    this.dir = dir;
    this.#file = file;
  }

  get file(): SweepFile {
    return this.#file;
  }

  /** Resolves when what is added is on the disk. */
  async add(part: Partial<Pick<SweepFile, "rungs" | "failed">>): Promise<void> {
    const { rungs, failed } = this.#file;
    const next = { rungs: [...rungs, ...(part.rungs ?? [])], failed: [...failed, ...(part.failed ?? [])] };
    this.#file = { ...this.#file, ...next };
    await this.write();
  }

  async write(): Promise<void> {
    const path = join(this.dir, SWEEP);
    this.#turn = this.#turn.catch(() => undefined).then(() => replaceJson(path, `${path}.tmp`, this.#file));
    await this.#turn;
  }
}

/** Makes the folder of a sweep, which must be empty, and locks it. */
export function createSweepFolder(dir: string): Promise<RunLock> {
  return lockNewFolder(dir);
}

/** Takes back a folder in which no sweep began; its members are gone by then. */
export async function discardSweepFolder(dir: string, lock: RunLock): Promise<void> {
  const ours = [SWEEP, `${SWEEP}.tmp`, LOCK];
  try {
    if ((await disk.list(dir)).every((name) => ours.includes(name))) await disk.remove(dir);
  } catch {
    // The caller throws what went wrong first; what is left is no sweep.
  } finally {
    lock.release();
  }
}

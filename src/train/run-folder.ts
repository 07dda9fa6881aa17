/** A run folder: config.json, metrics.jsonl, density.jsonl, checkpoints/. */

import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFile } from "../checkpoint/commit.ts";
import { lockRun, type RunLock } from "../checkpoint/lock.ts";
import { disk } from "../checkpoint/storage.ts";
import { type Config, configFromJson, configToJson, EARLIER, type TrainOptions } from "../config.ts";
import { CONFIG, DENSITY, LOCK, METRICS } from "../run-files/names.ts";
import { hasCode, SaettaError } from "../util/errors.ts";
import { readTextFile } from "../util/json.ts";
import { relativeTo } from "../util/moved.ts";
import { type PlannedRecord, type RunRecord, recordFromJson, recordToJson } from "./run-record.ts";

const TEMPORARY = `${CONFIG}.tmp`;

/**
 * Makes the folder, locks it and writes config.json. Throws SaettaError when a run is in it, or it
 * cannot be written. Of several that do this at once one gets the folder: the lock decides.
 */
export async function createRunFolder(dir: string, config: Config, record: PlannedRecord): Promise<RunLock> {
  const lock = await lockNewFolder(dir);
  try {
    await writeConfig(dir, config, record);
    return lock;
  } catch (thrown) {
    await discardRunFolder(dir, lock);
    throw thrown;
  }
}

/** Makes the folder and locks it. Throws SaettaError when something is in it. */
export async function lockNewFolder(dir: string): Promise<RunLock> {
  await makeLasting(dir);
  await refuseTaken(dir);
  const lock = lockRun(dir);
  try {
    await refuseTaken(dir);
    return lock;
  } catch (thrown) {
    lock.release();
    throw thrown;
  }
}

/**
 * Makes the folder `name`, or where it exists the first of `name-2`, `name-3` and so on that does
 * not; resolves to its path. Of several processes that do this at once each gets another folder.
 */
export async function claimFolder(name: string): Promise<string> {
  await makeLasting(dirname(name));
  for (let number = 1; ; number++) {
    const dir = number === 1 ? name : `${name}-${number}`;
    if (await disk.makeFolder(dir)) return dir;
  }
}

/** Makes the folder and its parents, and sees to it that a power cut does not take their names. */
async function makeLasting(path: string): Promise<void> {
  const parent = dirname(path);
  await disk.makeFolder(path).catch(async (thrown: unknown) => {
    if (!(thrown instanceof SaettaError && hasCode(thrown.cause, "ENOENT")) || parent === path) throw thrown;
    await makeLasting(parent);
    await disk.makeFolder(path);
  });
  await disk.syncFolder(parent);
}

/** What a start that was killed leaves is no run. */
async function refuseTaken(dir: string): Promise<void> {
  const names = await disk.list(dir).catch((thrown: unknown) => {
    if (thrown instanceof SaettaError && hasCode(thrown.cause, "ENOTDIR")) return [dir];
    throw thrown;
  });
  if (names.every((name) => name === LOCK || name === TEMPORARY)) return;
  throw new SaettaError("exists already, and a run never writes over another", {
    where: dir,
    mend: "choose another --out, or go on with saetta resume",
  });
}

/** Takes back a folder in which no run began, as far as the disk lets it. */
export async function discardRunFolder(dir: string, lock: RunLock): Promise<void> {
  const ours = [CONFIG, TEMPORARY, METRICS, DENSITY, LOCK];
  try {
    // The folder goes as a whole, unless something of somebody else's is in it.
    if ((await disk.list(dir)).every((name) => ours.includes(name))) await disk.remove(dir);
    else for (const name of ours) await disk.remove(join(dir, name));
  } catch {
    // What went wrong first is what is told; what is left is no run.
  } finally {
    lock.release();
  }
}

/**
 * Replaces config.json in one step, where it is to change: a run that goes on as it was needs no
 * room for it.
 */
export async function writeConfig(dir: string, config: Config, record: PlannedRecord): Promise<void> {
  const [path, temporary] = [join(dir, CONFIG), join(dir, TEMPORARY)];
  const near = { data: await relativeTo(dir, config.data), target: await relativeTo(dir, config.target ?? []) };
  const run = recordToJson({ ...record, ...near });
  await replaceJson(path, temporary, { ...configToJson(config), run });
}

/** Replaces the file by the value as JSON in one step, where it is to change. */
export async function replaceJson(path: string, temporary: string, value: unknown): Promise<void> {
  const text = `${JSON.stringify(value, undefined, 2)}\n`;
  const before = await readFile(path, "utf8").catch(() => undefined);
  if (before !== text) {
    await disk.remove(temporary);
    await writeFile(temporary, (write) => write(new TextEncoder().encode(text)));
    await disk.rename(temporary, path);
  }
  await disk.syncFolder(dirname(path));
}

export interface RunConfig {
  readonly options: TrainOptions;
  readonly data: readonly string[];
  /** The largest norm of a row that the run keeps, where it found one. */
  readonly normLimit: number | undefined;
  readonly record: RunRecord;
}

/** The config of a run folder. Throws SaettaError when the folder is none. */
export async function readRunConfig(dir: string): Promise<RunConfig> {
  const path = join(dir, CONFIG);
  let text: string;
  try {
    text = await readTextFile(path);
  } catch (thrown) {
    if (hasCode((thrown as Error).cause, "ENOENT", "ENOTDIR")) {
      const found = await stat(dir).catch(() => undefined);
      const what = found?.isDirectory() ? "is not a run folder: it has no config.json" : "not a folder";
      throw new SaettaError(found === undefined ? "there is no such folder" : what, {
        where: dir,
        mend: "name the folder that saetta train wrote",
      });
    }
    throw thrown;
  }
  const { options, data, run, normLimit } = configFromJson(text, path);
  if (data === undefined) throw new SaettaError("does not say which data the run was trained on", { where: path });
  return { options: { ...EARLIER, ...options }, data, normLimit, record: recordFromJson(run, path) };
}

/** A run folder: config.json, metrics.jsonl, density.jsonl, checkpoints/. */

import { appendFile, type FileHandle, mkdir, open, readFile, rename, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { LOCK, lockRun, type RunLock } from "../checkpoint/lock.ts";
import { type Config, configFromJson, configToJson, type TrainOptions } from "../config.ts";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { makeFolders } from "../util/folders.ts";
import type { Report } from "./report.ts";
import type { HeldOutDensity } from "./validate.ts";

export const CONFIG = "config.json";
export const METRICS = "metrics.jsonl";
export const DENSITY = "density.jsonl";

/** Makes the folder, locks it and writes config.json. Throws SaettaError when it exists or cannot be written. */
export async function createRunFolder(dir: string, config: Config): Promise<RunLock> {
  const parent = dirname(dir);
  await makeFolders(parent).catch((thrown: unknown) => {
    throw unwritable(parent, thrown);
  });
  await mkdir(dir).catch((thrown: unknown) => {
    if (!hasCode(thrown, "EEXIST")) throw unwritable(dir, thrown);
    throw new SaettaError("exists already, and a run never writes over another", {
      where: dir,
      mend: "choose another --out, or go on with saetta resume",
    });
  });
  let lock: RunLock | undefined;
  try {
    lock = lockRun(dir);
    await writeConfig(dir, config);
    return lock;
  } catch (thrown) {
    if (lock !== undefined) await discardRunFolder(dir, lock);
    throw thrown instanceof SaettaError ? thrown : unwritable(dir, thrown);
  }
}

/** Takes back a folder in which no run began. */
export async function discardRunFolder(dir: string, lock: RunLock): Promise<void> {
  for (const name of [CONFIG, `${CONFIG}.tmp`, METRICS, DENSITY, LOCK]) await rm(join(dir, name), { force: true });
  lock.release();
  await rmdir(dir).catch(() => undefined); // something of somebody else's is in it
}

/** Replaces config.json in one step. */
export async function writeConfig(dir: string, config: Config): Promise<void> {
  const temporary = join(dir, `${CONFIG}.tmp`);
  const file = await open(temporary, "w");
  try {
    await file.writeFile(`${JSON.stringify(configToJson(config), undefined, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, join(dir, CONFIG));
}

/** The config of a run folder. Throws SaettaError when the folder is none. */
export async function readRunConfig(dir: string): Promise<{ options: TrainOptions; data: readonly string[] }> {
  const path = join(dir, CONFIG);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (thrown) {
    if (hasCode(thrown, "ENOENT", "ENOTDIR")) {
      throw new SaettaError("is not a run folder: it has no config.json", { where: dir, mend: "name the folder that saetta train wrote" });
    }
    throw thrown;
  }
  const { options, data } = configFromJson(text, path);
  if (data === undefined) throw new SaettaError("does not say which data the run was trained on", { where: path });
  return { options, data };
}

/** metrics.jsonl, appended line by line. */
export class MetricsFile {
  readonly #file: FileHandle;
  readonly #path: string;
  #bytes: number;
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: FileHandle, path: string, bytes: number) {
    this.#file = file;
    this.#path = path;
    this.#bytes = bytes;
  }

  /** Opens the file cut back to its first `bytes`: what was logged after the checkpoint that a run goes on from will be logged again. */
  static async open(dir: string, bytes: number): Promise<MetricsFile> {
    const path = join(dir, METRICS);
    try {
      const size = (await stat(path).catch(() => undefined))?.size ?? 0;
      if (size < bytes) {
        throw new SaettaError(`has ${size} bytes, but the checkpoint was saved when it had ${bytes}`, {
          where: path,
          mend: "restore the file; the checkpoint itself is whole",
        });
      }
      const file = await open(path, "a");
      await file.truncate(bytes);
      return new MetricsFile(file, path, bytes);
    } catch (thrown) {
      throw thrown instanceof SaettaError ? thrown : unwritable(path, thrown);
    }
  }

  /** Appends a line. Lines are written in the order of the calls; a failure surfaces at `flush`. */
  append(report: Report): void {
    const line = Buffer.from(`${JSON.stringify(report)}\n`);
    this.#bytes += line.byteLength;
    this.#writing = this.#writing.then(() => this.#file.appendFile(line));
    this.#writing.catch(() => undefined);
  }

  /** Waits until every line is on disk. Returns the file's length in bytes. */
  async flush(): Promise<number> {
    try {
      await this.#writing;
      await this.#file.sync();
    } catch (thrown) {
      throw unwritable(this.#path, thrown);
    }
    return this.#bytes;
  }

  async close(): Promise<void> {
    await this.#writing.catch(() => undefined);
    await this.#file.close();
  }
}

/** density.jsonl, a line an evaluation. Nothing but pages reads it, so a disk that refuses it stops no run. */
export class DensityFile {
  readonly #path: string;
  #writing: Promise<void>;

  /** `step`: where the run begins; what the file says of later ones will be said again. */
  constructor(dir: string, step: number) {
    this.#path = join(dir, DENSITY);
    this.#writing = step > 0 ? this.#cut(step) : Promise.resolve();
  }

  /** Appends a line. */
  append(step: number, density: HeldOutDensity): void {
    const line = `${JSON.stringify({ step, ...density })}\n`;
    this.#writing = this.#writing.then(() => appendFile(this.#path, line)).catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#writing;
  }

  async #cut(step: number): Promise<void> {
    try {
      const lines = (await readFile(this.#path, "utf8")).split("\n").slice(0, -1);
      const kept = lines.filter((line) => (JSON.parse(line) as { readonly step: number }).step <= step);
      if (kept.length < lines.length) await writeFile(this.#path, kept.map((line) => `${line}\n`).join(""));
    } catch {
      await rm(this.#path, { force: true }).catch(() => undefined); // not there, or not what we write
    }
  }
}

function unwritable(path: string, thrown: unknown): SaettaError {
  return new SaettaError(`cannot be written (${messageOf(thrown)})`, {
    where: path,
    mend: "choose another --out, or make room",
    cause: thrown,
  });
}

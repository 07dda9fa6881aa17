/** One run folder as the page sees it. Nothing here is ever written. */

import { lstat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { flatValues } from "../run-files/metrics.ts";
import { CONFIG, DENSITY, FEATURES, LOCK, METRICS, SWEEP } from "../run-files/names.ts";
import { endedEarly, type SweepFile, sweepOf } from "../run-files/sweep.ts";
import { hasCode, messageOf } from "../util/errors.ts";
import type { Density, OptionValue, RunDetails, RunSummary } from "./api.ts";
import { Columns } from "./columns.ts";
import { withDensity } from "./density.ts";
import { LineReader } from "./lines.ts";
import { lastLines, objectOf, readSmall } from "./read.ts";
import { summarize } from "./summary.ts";

const MOST_CONFIG = 256 * 1024;
/** Of the end of the log, for the summary: some hundred lines. */
const TAIL = 64 * 1024;
/** Options shown, and characters of each. */
const MOST_OPTIONS = 200;
const MOST_VALUE = 2000;
/** Characters of an option in the list of runs. */
const MOST_WORD = 100;
const MOST_JSON = 16_384;
/** Bytes of sweep.json. */
const MOST_SWEEP = 4 * 1024 * 1024;

/** Whether a folder is one that training writes. `begun`: with a log already. */
export async function isRunFolder(folder: string, begun: boolean): Promise<boolean> {
  const plain = async (name: string) => (await lstat(join(folder, name)).catch(() => undefined))?.isFile() === true;
  return (await plain(CONFIG)) && (!begun || (await plain(METRICS)));
}

export class Run {
  readonly id: string;
  readonly name: string;
  readonly folder: string;
  #columns = new Columns();
  #reader: LineReader;
  #density: readonly Density[] = [];
  #densityReader: LineReader;
  #reading: Promise<void> | undefined;
  #used = 0;
  #written: number | null = null;
  /** The log as it was found at `at`, in milliseconds of `#now`, and its age then, in seconds. */
  #found = { stamp: "", at: 0, age: 0 };
  #looked = Number.NEGATIVE_INFINITY;
  readonly #now: () => number;
  #features = false;
  #problem: string | null = null;
  #details: RunDetails | undefined;
  #config: { readonly stamp: string; readonly values: Readonly<Record<string, unknown>> | undefined } = {
    stamp: "",
    values: undefined,
  };
  #sweep: { readonly stamp: string; readonly file: SweepFile | undefined } = { stamp: "", file: undefined };
  #tail: { readonly stamp: string; readonly lines: readonly Readonly<Record<string, unknown>>[] } = {
    stamp: "",
    lines: [],
  };

  /** `now`: a clock in milliseconds that never jumps, by which the run becomes quiet. */
  constructor(id: string, name: string, folder: string, now: () => number = () => performance.now()) {
    this.#now = now;
    this.id = id;
    this.name = name;
    this.folder = folder;
    [this.#reader, this.#densityReader] = this.#readers();
  }

  /** The lines that `update` has read. */
  get columns(): Columns {
    return this.#columns;
  }

  /** Milliseconds of `performance.now` when the lines were asked for last. */
  get used(): number {
    return this.#used;
  }

  /** The same object as long as nothing changes. */
  get details(): RunDetails {
    this.#details ??= this.#detail();
    return this.#details;
  }

  #detail(): RunDetails {
    const options = Object.entries(this.#config.values ?? {}).slice(0, MOST_OPTIONS);
    return {
      run: this.id,
      config: options.map(([name, value]) => [name.slice(0, MOST_VALUE), jsonOf(value).slice(0, MOST_VALUE)] as const),
      density: this.#density,
    };
  }

  /** Reads what was added to the log. */
  async update(): Promise<void> {
    this.#used = performance.now();
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  /** Forgets the lines, which take memory; `update` brings them back. */
  async unload(): Promise<void> {
    await this.#reading;
    this.#columns = new Columns();
    this.#density = [];
    this.#details = undefined;
    [this.#reader, this.#densityReader] = this.#readers();
  }

  async summary(): Promise<RunSummary> {
    let problem: string | null = null;
    let lock: string | undefined;
    let age = 0;
    try {
      const log = await lstat(join(this.folder, METRICS)).catch(absent);
      this.#written = log === undefined ? null : log.mtimeMs;
      const stamp = log === undefined ? "" : `${log.ino} ${log.size} ${log.mtimeMs}`;
      age = log === undefined ? 0 : this.#ageOf(stamp, log.mtimeMs);
      if (stamp !== this.#tail.stamp) {
        const lines = await lastLines(join(this.folder, METRICS), TAIL);
        this.#tail = { stamp, lines: lines.map(objectOf).filter((line) => line !== undefined) };
      }
      this.#features = (await lstat(join(this.folder, FEATURES)).catch(absent))?.isDirectory() === true;
      lock = await readSmall(join(this.folder, LOCK), 4096);
      await this.#readConfig();
      await this.#readSweep();
    } catch (thrown) {
      problem = messageOf(thrown);
    }
    const { last, ...found } = summarize({ config: this.#config.values, lines: this.#tail.lines, lock, age, alive });
    const early = this.#sweep.file && endedEarly(this.#sweep.file, basename(this.folder));
    return {
      id: this.id,
      name: this.name,
      written: this.#written,
      features: this.#features,
      ...found,
      ...(early === undefined || found.state === "done" ? {} : { state: early.reason, left_s: null }),
      sweep: this.#sweep.file === undefined ? null : basename(dirname(this.folder)),
      options: optionsIn(this.#config.values),
      last: this.#withOlder(last),
      problem: problem ?? this.#problem,
    };
  }

  /**
   * Seconds since the log was written. The system's clock may be set at any time: it counts only
   * when the log is seen for the first time, and for no more than the time since the last look.
   */
  #ageOf(stamp: string, mtimeMs: number): number {
    const now = this.#now();
    if (stamp !== this.#found.stamp) {
      const age = Math.max(0, Date.now() - mtimeMs);
      this.#found = { stamp, at: now, age: Math.min(age, now - this.#looked) / 1000 };
    }
    this.#looked = now;
    return this.#found.age + (now - this.#found.at) / 1000;
  }

  /** What is measured now and then may stand further back than the summary looks. */
  #withOlder(last: RunSummary["last"]): RunSummary["last"] {
    const told = new Set(this.#tail.lines.flatMap((line) => flatValues(line).map(([name]) => name)));
    return [...last, ...this.#columns.newest().filter(([name]) => !told.has(name))];
  }

  async #read(): Promise<void> {
    this.#problem = null;
    for (const [name, reader] of [
      [METRICS, this.#reader],
      [DENSITY, this.#densityReader],
    ] as const) {
      await reader.read().catch((thrown: unknown) => {
        this.#problem = `${name}: ${messageOf(thrown)}`;
      });
    }
    await this.#readConfig().catch(() => undefined); // the summary says so
    if (this.#columns.full) this.#problem = `${METRICS}: only its first ${this.#columns.lines} lines are shown`;
  }

  async #readConfig(): Promise<void> {
    const path = join(this.folder, CONFIG);
    const file = await lstat(path).catch(absent);
    const stamp = file === undefined ? "" : `${file.ino} ${file.size} ${file.mtimeMs}`;
    if (stamp === this.#config.stamp) return;
    const text = await readSmall(path, MOST_CONFIG).catch((thrown: unknown) => {
      throw new Error(`${CONFIG}: ${messageOf(thrown)}`, { cause: thrown });
    });
    const values = text === undefined ? undefined : objectOf(text);
    if (text !== undefined && values === undefined) throw new Error(`${CONFIG}: does not hold a JSON object`);
    this.#config = { stamp, values };
    this.#details = undefined;
  }

  /** The sweep that the run is a member of. */
  async #readSweep(): Promise<void> {
    const path = join(dirname(this.folder), SWEEP);
    const file = await lstat(path).catch(absent);
    const stamp = file === undefined ? "" : `${file.ino} ${file.size} ${file.mtimeMs}`;
    if (stamp === this.#sweep.stamp) return;
    const text = file === undefined ? undefined : await readSmall(path, MOST_SWEEP);
    const found = sweepOf(text === undefined ? undefined : objectOf(text));
    this.#sweep = { stamp, file: found?.members.includes(basename(this.folder)) === true ? found : undefined };
  }

  #readers(): [LineReader, LineReader] {
    return [
      new LineReader(join(this.folder, METRICS), {
        line: (text) => {
          const line = objectOf(text);
          if (line !== undefined) this.#columns.add(line);
        },
        reset: () => this.#columns.clear(),
      }),
      new LineReader(join(this.folder, DENSITY), {
        line: (text) => {
          this.#density = withDensity(this.#density, objectOf(text));
          this.#details = undefined;
        },
        reset: () => {
          this.#density = [];
          this.#details = undefined;
        },
      }),
    ];
  }
}

/** The options of which there is one value, without what the run found. */
function optionsIn(config: Readonly<Record<string, unknown>> | undefined): [string, OptionValue][] {
  return Object.entries(config ?? {})
    .slice(0, MOST_OPTIONS)
    .flatMap(([name, value]): [string, OptionValue][] => {
      if (typeof value === "string") return [[name, value.slice(0, MOST_WORD)]];
      return typeof value === "number" || typeof value === "boolean" ? [[name, value]] : [];
    });
}

/** What was read may be nested deeper than it can be written, or too long to look at. */
function jsonOf(value: unknown): string {
  try {
    const text = JSON.stringify(value);
    return text.length > MOST_JSON ? "…" : text;
  } catch {
    return "…";
  }
}

function absent(thrown: unknown): undefined {
  if (!hasCode(thrown, "ENOENT", "ENOTDIR")) throw thrown;
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0); // sends nothing
    return true;
  } catch (thrown) {
    return hasCode(thrown, "EPERM");
  }
}

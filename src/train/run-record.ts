/**
 * What config.json says of a run besides its options, under "run": what a resume must know. A
 * config file for another run is read without it.
 */

import { realpath } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { BUDGET_OPTIONS, type TrainOptions } from "../config.ts";
import type { Appended } from "../data/epochs.ts";
import { targetPaths } from "../transcoder-options.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { Fields, type Json } from "../util/json.ts";
import { firstThere } from "../util/moved.ts";
import type { Leg } from "./schedule.ts";

export interface RunRecord {
  /** Options that nobody gave and that follow from the budget: an extension derives them again. */
  readonly derived: readonly (keyof TrainOptions)[];
  /** Steps of the whole run; undefined in runs of earlier versions. */
  readonly steps: number | undefined;
  readonly legs: readonly Leg[];
  readonly appended: readonly Appended[];
  /**
   * Lanes of the order of the rows (data/lanes.ts); 1 in runs of earlier versions, which keep
   * their order.
   */
  readonly lanes: number;
  /** The data files as paths relative to the run folder, in the order of `data`. */
  readonly data: readonly string[];
  /** The files of the targets, likewise. */
  readonly target: readonly string[];
}

/** What config.json records of a run besides its options and where its files are. */
export type PlannedRecord = Omit<RunRecord, "data" | "target">;

/** What is not there. */
export const NO_RECORD: RunRecord = {
  ...{ derived: [], steps: undefined, legs: [], appended: [], data: [], target: [] },
  lanes: 1,
};

/** The record as JSON; lists with nothing in them are left out. */
export function recordToJson({ derived, steps, legs, appended, lanes, data, target }: RunRecord): Json {
  const named = {
    data,
    target,
    steps,
    derived,
    lanes,
    legs: legs.map(({ from, before, rise }) => ({ from, before, rise })),
    appended: appended.map(({ rows, grain, epoch }) => ({ rows, grain, epoch })),
  };
  return Object.fromEntries(
    Object.entries(named).filter(([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0)),
  ) as Json;
}

/** Reads the record. Throws FormatError naming the file and the field. */
export function recordFromJson(json: Json | undefined, where: string): RunRecord {
  if (json === undefined) return NO_RECORD;
  const run = new Fields(json, '"run"', where);
  const list = (name: string): readonly Json[] => {
    const value = run.get(name) ?? [];
    if (!Array.isArray(value)) throw new FormatError(`"${name}" must be a list`, { where });
    return value as readonly Json[];
  };
  const texts = (name: string) =>
    list(name).map((value) => {
      if (typeof value !== "string") throw new FormatError(`"${name}" must be a list of strings`, { where });
      return value;
    });
  return {
    derived: texts("derived").flatMap((name) => BUDGET_OPTIONS.filter((option) => option === name)),
    steps: run.has("steps") ? run.integer("steps", 1) : undefined,
    legs: list("legs").map((value) => {
      const leg = new Fields(value, "an entry of legs", where);
      return { from: leg.integer("from", 1), before: leg.integer("before", 1), rise: leg.integer("rise") };
    }),
    appended: list("appended").map((value) => {
      const part = new Fields(value, "an entry of appended", where);
      return { rows: part.integer("rows", 1), grain: part.integer("grain", 1), epoch: part.integer("epoch", 1) };
    }),
    lanes: run.has("lanes") ? run.integer("lanes", 1) : 1,
    data: texts("data"),
    target: texts("target"),
  };
}

/**
 * Where the data of the run in `dir` is now: for each file the path in config.json, the same place
 * seen from the run folder, or a file of that name next to the run folder or in it. Throws
 * SaettaError naming the first file that is in none of them; `mend`: how the command is given its
 * data.
 */
export async function locateData(
  dir: string,
  { data, record }: { readonly data: readonly string[]; readonly record: Pick<RunRecord, "data"> },
  mend: string,
  onNote: (note: string) => void,
): Promise<string[]> {
  const real = await realpath(dir).catch(() => resolve(dir));
  const found: string[] = [];
  let moved: string | undefined;
  for (const [i, path] of data.entries()) {
    const near = record.data[i];
    const name = basename(path);
    const places = [path, ...(near === undefined ? [] : [join(real, near)]), join(real, "..", name), join(real, name)];
    const at = await firstThere(places);
    if (at === undefined) throw new SaettaError("the data of the run is not there any more", { where: path, mend });
    if (at !== path) moved ??= `${path} is not there any more; the run's data is read from ${at}`;
    found.push(at);
  }
  if (moved !== undefined) onNote(moved);
  return found;
}

/**
 * Where the targets of the run are now, as `locateData` finds the data; undefined where it has
 * none.
 */
export async function locateTarget(
  dir: string,
  { options, record }: { readonly options: TrainOptions; readonly record: Pick<RunRecord, "target"> },
  mend: string,
  onNote: (note: string) => void,
): Promise<string[] | undefined> {
  const data = targetPaths(options);
  return data && locateData(dir, { data, record: { data: record.target } }, mend, onNote);
}

/** The names of files, without their folders. */
export function fileNames(paths: readonly string[]): string[] {
  return paths.map((path) => basename(path));
}

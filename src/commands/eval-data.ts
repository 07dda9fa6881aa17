/** The rows that `saetta eval` looks at. */

import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { runFolderOf } from "../checkpoint/layout.ts";
import { type TrainOptions, withDefaults } from "../config.ts";
import { chooseRows } from "../data/choose.ts";
import { common, type Range, without } from "../data/holdout.ts";
import type { ExcludePositions, ExcludeTokens } from "../data/mask.ts";
import { openData } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import { CONFIG } from "../run-files/names.ts";
import { readRunConfig } from "../train/run-folder.ts";
import { locateData, locateTarget } from "../train/run-record.ts";
import { targetPaths } from "../transcoder-options.ts";
import { SaettaError, UsageError } from "../util/errors.ts";

export interface EvalData {
  readonly source: Source;
  readonly ranges: readonly Range[];
  readonly nonFinite: "stop" | "skip";
  /** Whose rows are left out of the ranges. */
  readonly excludeTokens: ExcludeTokens;
  readonly excludePositions: ExcludePositions;
}

/** How the data of a run is found that is not where it was. */
export interface RunData {
  /** Where the files of the run are now. */
  readonly moved?: readonly string[] | undefined;
  /** What to do where they are not found. */
  readonly mend?: string;
  /** Whether rows that are named need the targets that the run had. Default: true. */
  readonly needsTarget?: boolean;
  readonly onNote?: (note: string) => void;
}

const NAME_THEM = "name the activations: saetta eval SAE acts.h5";

/**
 * Without `paths` the hold-out of the run that the checkpoint `saePath` belongs to; with them all
 * their rows. What the run left out (tokens, positions, zero rows, rows beyond its largest norm) is
 * left out of both. The caller closes the source.
 */
export async function evalData(
  saePath: string,
  paths: readonly string[],
  asked: TrainOptions,
  { moved, mend = NAME_THEM, needsTarget = true, onNote = () => undefined }: RunData = {},
): Promise<EvalData> {
  const run = await runOf(saePath);
  const config = run === undefined ? undefined : await readRunConfig(run);
  // The layer is that of the run's own files.
  const own = paths.length > 0 ? { ...config?.options, layer: undefined } : config?.options;
  const options = withDefaults({ ...own, ...asked });
  if (paths.length === 0 && config === undefined) {
    throw new UsageError("the autoencoder belongs to no run, so there is no hold-out", {
      where: saePath,
      mend,
    });
  }
  const files =
    paths.length > 0 || run === undefined || config === undefined
      ? paths
      : (moved ?? (await locateData(run, config, mend, onNote)));
  if (files.length === 0) {
    throw new UsageError("the rows of its run came from a model and were not kept, so there is no hold-out", {
      where: saePath,
      mend,
    });
  }
  const givenTarget = targetPaths(asked);
  if (needsTarget && paths.length > 0 && givenTarget === undefined && config?.options.target !== undefined) {
    throw new UsageError("belongs to a run with targets, so the activations need theirs", {
      where: saePath,
      mend: "name them with --target",
    });
  }
  const ofRun = paths.length === 0 && run !== undefined ? config : undefined;
  const target =
    givenTarget ?? (ofRun && (await locateTarget(run!, ofRun, "name where they are now with --target", onNote)));
  // A run's own files are what it was trained on, whatever repeats there are.
  const isOwn = paths.length === 0 && moved === undefined && givenTarget === undefined;
  const source = await openData(files, { ...options, target, ...(isOwn ? ({ repeats: "keep" } as const) : {}) });
  for (const each of source.notes ?? []) onNote(each);
  try {
    const rows = { ...options, normLimit: limitFor(asked, config) };
    const { untrained, holdout } =
      paths.length > 0
        ? await chooseRows(source, { ...rows, holdout: 0 })
        : await chooseRows(source, { ...rows, only: "holdout" }, config?.record.appended);
    const ranges = paths.length > 0 ? without([{ first: 0, count: source.rows }], untrained) : holdout;
    if (ranges.length > 0) return { source, ranges, ...pick(options) };
    throw new SaettaError(paths.length > 0 ? "every row is excluded" : "the run held no rows out", {
      where: paths.length > 0 ? paths.join(", ") : run,
      mend:
        paths.length > 0
          ? "leave out fewer: --exclude-tokens none --exclude-positions none --max-norm 0 --zero-rows keep"
          : mend,
    });
  } catch (thrown) {
    await source.close();
    throw thrown;
  }
}

/**
 * The rows that several autoencoders are compared on: with `paths` those that no run excludes, else
 * those that every run among them held out. Throws UsageError when their runs were trained on
 * different files, or held out nothing in common.
 */
export async function sharedData(
  saePaths: readonly string[],
  paths: readonly string[],
  asked: TrainOptions,
  runData: RunData,
): Promise<EvalData> {
  const [only = "", ...more] = saePaths;
  if (more.length === 0) return evalData(only, paths, asked, runData);
  const ofRuns: string[] = [];
  for (const path of saePaths) if ((await runOf(path)) !== undefined) ofRuns.push(path);
  // Without files, an autoencoder of no run is judged by what the runs beside it held out.
  const deciding = ofRuns.length > 0 ? ofRuns : saePaths;
  let shared: EvalData | undefined;
  for (const path of deciding) {
    const next: EvalData = await evalData(path, paths, asked, runData).catch(async (thrown: unknown) => {
      await shared?.source.close();
      throw thrown;
    });
    if (shared === undefined) {
      shared = next;
      continue;
    }
    await next.source.close();
    const ranges = common(shared.ranges, next.ranges);
    const sameFiles = filesOf(shared.source) === filesOf(next.source);
    if (sameFiles && ranges.length > 0) {
      shared = { ...shared, ranges };
      continue;
    }
    await shared.source.close();
    throw new UsageError(
      sameFiles ? "the runs held out no rows in common" : "the runs were trained on different files",
      {
        where: `${deciding[0]} and ${path}`,
        mend: "name the activations to compare them on: saetta eval A B acts.h5",
      },
    );
  }
  return shared!;
}

const pick = ({
  nonFinite,
  excludeTokens,
  excludePositions,
}: Pick<EvalData, "nonFinite" | "excludeTokens" | "excludePositions">) => ({
  nonFinite,
  excludeTokens,
  excludePositions,
});

/**
 * The largest norm that is kept, by the median norm that the run found. undefined: it is yet to be
 * found, or every norm is kept.
 */
function limitFor(
  { maxNorm: asked }: TrainOptions,
  run: { readonly options: TrainOptions; readonly normLimit: number | undefined } | undefined,
): number | undefined {
  const { normLimit, options } = run ?? {};
  if (asked === undefined || normLimit === undefined) return normLimit;
  return (asked / options!.maxNorm!) * normLimit;
}

/** The files of the data and of the targets, in one text. */
function filesOf({ paths, targetPaths: targets = [] }: Source): string {
  return JSON.stringify([paths, targets].map((files) => files.map((path) => resolve(path))));
}

/** The run folder around a checkpoint folder, if it has a config. */
async function runOf(saePath: string): Promise<string | undefined> {
  const run = runFolderOf(saePath);
  return run !== undefined && (await stat(join(run, CONFIG)).catch(() => undefined))?.isFile() ? run : undefined;
}

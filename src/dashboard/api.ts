/**
 * What the server tells the page: the only file that both read. Types alone, so that nothing of the
 * one gets into the other.
 *
 * GET /api/events?run=ID&run=ID&points=N&scale=linear|log
 *     Server-sent events, each named by a key of `Events`. First all runs and, of the runs that are
 *     named, details and the whole series; then only changes. A client that lost the connection
 *     connects again and forgets what it had.
 * GET /api/runs/ID/series?from=STEP&to=STEP&points=N&scale=linear|log
 *     A `Series`: a part of a run, closer.
 */

import type { DensityBin, DensityLine } from "../run-files/density.ts";

export type RunState = "running" | "done" | "stopped" | "quiet" | "waiting" | "halved" | "failed";

/** One run in the list. What is not known (yet) is null. */
export interface RunSummary {
  /** Stands for the run in addresses: letters, digits and `.~_-`. */
  readonly id: string;
  /** Its folder, from the folder that was named on. */
  readonly name: string;
  /**
   * running: it writes; done: the budget is spent; stopped: its process is gone; quiet: nothing was
   * written for long; waiting: nothing was written yet; halved, failed: of a member of a sweep that
   * ended early, for others were better, or its numbers were not finite.
   */
  readonly state: RunState;
  /** When its log was written last, in milliseconds since 1970. */
  readonly written: number | null;
  readonly step: number | null;
  /** Rows trained on. */
  readonly tokens: number | null;
  /** Rows to train on in all. */
  readonly budget: number | null;
  readonly elapsed_s: number | null;
  /**
   * Rows a second, evaluations and checkpoints included: of late, or of the whole run when it is
   * done.
   */
  readonly rate: number | null;
  /** Seconds to the end at that rate; null unless it runs. */
  readonly left_s: number | null;
  /** Whether its folder holds features, to be shown at /features/ID. */
  readonly features: boolean;
  /** The folder of its sweep; null for a run that is not of one. */
  readonly sweep: string | null;
  /** The options that are one number, word or yes and no. */
  readonly options: readonly (readonly [name: string, value: OptionValue])[];
  /** The last value of every metric. */
  readonly last: readonly (readonly [name: string, value: number])[];
  /** What is wrong with its files, for people; null when nothing is. */
  readonly problem: string | null;
}

export type OptionValue = string | number | boolean;

/** What a run was told to do, and how often its latents fire. */
export interface RunDetails {
  readonly run: string;
  /** config.json, each value as JSON. */
  readonly config: readonly (readonly [name: string, value: string])[];
  /** An entry an evaluation, in the order of steps. */
  readonly density: readonly Density[];
}

/** How many latents fire on which share of the held-out rows, at one step. */
export interface Density extends Omit<DensityLine, "density" | "density_unit"> {
  readonly bins: readonly DensityBin[];
}

export type Scale = "linear" | "log";

/**
 * Log lines in pieces of equal width in steps (or in log10 of steps): of every metric the mean of
 * each piece, and its least and largest value where the piece has more lines than one. So no spike
 * is lost, however few pieces there are. null: nothing finite.
 */
export interface Series {
  readonly run: string;
  /** Mean of the piece's steps; of its rows trained on; of its seconds. */
  readonly step: readonly number[];
  readonly tokens: readonly (number | null)[];
  readonly elapsed_s: readonly (number | null)[];
  readonly metrics: readonly SeriesMetric[];
}

export interface SeriesMetric {
  readonly name: string;
  readonly mean: readonly (number | null)[];
  /** Absent where every piece is one line: then they are the mean. */
  readonly min?: readonly (number | null)[];
  readonly max?: readonly (number | null)[];
}

export interface Events {
  /** Comes first. `runs` then holds all runs. */
  readonly hello: { readonly version: string };
  /** New or changed runs, and the ids of those that are gone. */
  readonly runs: { readonly runs: readonly RunSummary[]; readonly gone: readonly string[] };
  readonly details: RunDetails;
  /** The whole run, in place of what was sent of it before. */
  readonly series: Series;
  /** What came after. */
  readonly append: Series;
}

/** A sweep as its caller sees it: reports while it trains, and how each member ended. */

import type { Config } from "../../config.ts";
import type { Report } from "../../run-files/metrics.ts";
import { Newest } from "../../util/newest.ts";
import type { Forecast } from "../estimate.ts";
import type { DataInUse, TrainResult } from "../run.ts";

/** One autoencoder of a sweep. */
export interface SweepMember {
  readonly name: string;
  /** Its run folder. */
  readonly out: string;
  readonly config: Config;
  /** Steps and rows of the whole run. */
  readonly steps: number;
  readonly budget: number;
  /** Members with the same number train from one read; groups follow each other. */
  readonly group: number;
}

/**
 * waiting: for the groups before its own; halved: others were better; failed: its numbers were not
 * finite.
 */
export type MemberState = "waiting" | "running" | "done" | "stopped" | "halved" | "failed";

export interface MemberReport {
  readonly name: string;
  readonly state: MemberState;
  /** The last line of its metrics.jsonl; undefined where none was written since the sweep began. */
  readonly report: Report | undefined;
}

export interface SweepReport {
  /** Rows trained on since the start of the runs, counted once for all members of a group. */
  readonly tokens: number;
  readonly members: readonly MemberReport[];
}

export interface MemberResult extends MemberReport {
  readonly state: "done" | "stopped" | "halved" | "failed";
  readonly out: string;
  /** What `train` says of it; undefined where it was over before, or never began. */
  readonly result: Omit<TrainResult, "sae"> | undefined;
  /** Why it failed. */
  readonly error: string | undefined;
}

export interface SweepResult {
  /** "stopped": somebody asked it to stop. */
  readonly reason: "done" | "stopped";
  readonly members: readonly MemberResult[];
}

export interface SweepForecast extends Forecast {
  /** Bytes of the checkpoints that are kept, and that are free where they are written. */
  readonly disk: { readonly needed: number; readonly free: number | undefined };
}

type About = Pick<SweepRun, "out" | "members" | "groups" | "budget" | "engine" | "data" | "forecast" | "trainedBefore">;

/**
 * A sweep that is under way. Iterating gives its reports, and leaving the loop stops it; `stop()`
 * and the signal given to `sweep` stop it too. Each member has then saved a checkpoint.
 */
export class SweepRun implements AsyncIterable<SweepReport>, AsyncDisposable {
  readonly out: string;
  readonly members: readonly SweepMember[];
  readonly groups: number;
  /** Rows to train on in all: of each group those of the member that takes the most. */
  readonly budget: number;
  /** The engine that computes, for people. */
  readonly engine: string;
  /** What the first group trains on. */
  readonly data: DataInUse;
  /** Of all members; the time of those whose steps were timed or are like others' that were. */
  readonly forecast: SweepForecast;
  /** Rows trained on before. */
  readonly trainedBefore: number;
  /** Resolves when every member is over and saved; rejects when the sweep failed. */
  readonly finished: Promise<SweepResult>;
  readonly #stopping: AbortController;
  readonly #reports = new Newest<SweepReport>();

  /** `stopping` is aborted by `stop`. */
  constructor(
    about: About,
    stopping: AbortController,
    body: (publish: (report: SweepReport) => void) => Promise<SweepResult>,
  ) {
    this.out = about.out;
    this.members = about.members;
    this.groups = about.groups;
    this.budget = about.budget;
    this.engine = about.engine;
    this.data = about.data;
    this.forecast = about.forecast;
    this.trainedBefore = about.trainedBefore;
    this.#stopping = stopping;
    this.finished = body((report) => this.#reports.publish(report)).finally(() => this.#reports.end());
    this.finished.catch(() => undefined); // its reader gets what went wrong
  }

  /** Every member finishes its step, saves a checkpoint and ends. */
  async stop(): Promise<SweepResult> {
    this.#stopping.abort();
    return this.finished;
  }

  /** Stops the sweep if it still trains. Never rejects: `finished` says what went wrong. */
  async close(): Promise<void> {
    await this.stop().catch(() => undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * The reports as they come; never slows the sweep: a slow reader gets the newest. Leaving the
   * loop stops the sweep.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<SweepReport, void, void> {
    try {
      yield* this.#reports.read();
      await this.finished;
    } finally {
      await this.stop();
    }
  }
}

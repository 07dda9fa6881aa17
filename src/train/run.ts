/** A run as its caller sees it: reports while it goes on, and how it ended. */

import type { Config } from "../config.ts";
import type { RunPreflight } from "../data/preflight.ts";
import type { Sae } from "../inference/sae.ts";
import type { Report } from "../run-files/metrics.ts";
import { Newest } from "../util/newest.ts";
import type { Forecast } from "./estimate.ts";

export interface TrainResult {
  /** "done": the budget is spent. "stopped": somebody asked it to stop. */
  readonly reason: "done" | "stopped";
  readonly steps: number;
  /** Rows trained on. */
  readonly tokens: number;
  /** The last line of metrics.jsonl; undefined when no step was logged. */
  readonly report: Report | undefined;
  /**
   * What went badly and what to do, a sentence each; empty where the run went well or was stopped.
   */
  readonly advice: readonly string[];
  /** The folder of the last checkpoint; undefined with `out: false`. */
  readonly checkpoint: string | undefined;
  /**
   * The autoencoder, ready to use: the average of the weights where one was kept. It is the run's
   * own memory, now with the weights alone, and its engine: close it when done (`sae.close()`, or
   * `run.close()`). It computes products as training did, on a card in bfloat16 unless `dtype` says
   * otherwise, so near ties can select other latents; `loadSae(checkpoint)` computes in float32.
   */
  readonly sae: Sae;
}

/** What the run trains on, in rows. */
export interface DataInUse {
  readonly description: string;
  readonly rowsPerEpoch: number;
  readonly heldOut: number;
  /**
   * Rows left out for their token or position, for being all zero, and for a norm above --max-norm.
   */
  readonly excluded: number;
  readonly zeros: number;
  readonly above: number;
  /** Rows that the data's own mask leaves out, such as padding. */
  readonly masked: number;
  /** What the sample says that a new run draws for its start; undefined where none was drawn. */
  readonly preflight?: RunPreflight | undefined;
}

/** What the caller of a run gives besides options. */
export interface RunContext {
  /** Stops the run, with a checkpoint. */
  readonly signal?: AbortSignal | undefined;
  /** Gets notes: what is worth knowing and no error, a sentence each. */
  readonly onNote: (note: string) => void;
}

/** What the work of a run gets from the run, and gives to it. */
export interface RunControl extends RunContext {
  /** Aborted when the run is to finish the step, save a checkpoint and end. */
  readonly signal: AbortSignal;
  readonly publish: (report: Report) => void;
}

/**
 * A run that is under way. Iterating gives its reports, and leaving the loop stops it; `stop()` and
 * the signal given to `train` stop it too. Stopped runs have saved a checkpoint, if they save at
 * all.
 */
export class TrainRun implements AsyncIterable<Report>, AsyncDisposable {
  /** Every choice made: what config.json holds. */
  readonly config: Config;
  /** The run folder; undefined with `out: false`. */
  readonly out: string | undefined;
  /** Steps in all, those done before a resume included. */
  readonly steps: number;
  /** Rows to train on in all. */
  readonly budget: number;
  /** The engine that computes, for people. */
  readonly engine: string;
  readonly data: DataInUse;
  /** Memory and time that the run will take, as estimated before its first step. */
  readonly forecast: Forecast;
  /** Rows trained on before, in the parts of the run that this one goes on from. */
  readonly trainedBefore: number;
  /** Resolves when the run is over and everything is saved; rejects when it failed. */
  readonly finished: Promise<TrainResult>;
  readonly #stopping = new AbortController();
  readonly #reports = new Newest<Report>();

  constructor(
    about: Pick<TrainRun, "config" | "out" | "steps" | "budget" | "engine" | "data" | "forecast" | "trainedBefore"> & {
      readonly signal?: AbortSignal | undefined;
    },
    body: (control: Omit<RunControl, "onNote">) => Promise<TrainResult>,
  ) {
    this.config = about.config;
    this.out = about.out;
    this.steps = about.steps;
    this.budget = about.budget;
    this.engine = about.engine;
    this.data = about.data;
    this.forecast = about.forecast;
    this.trainedBefore = about.trainedBefore;
    const signal =
      about.signal === undefined ? this.#stopping.signal : AbortSignal.any([about.signal, this.#stopping.signal]);
    const publish = (report: Report) => this.#reports.publish(report);
    this.finished = body({ signal, publish }).finally(() => this.#reports.end());
    this.finished.catch(() => undefined); // whoever awaits it is told
  }

  /** Finishes the step, saves a checkpoint and ends the run. */
  async stop(): Promise<TrainResult> {
    this.#stopping.abort();
    return this.finished;
  }

  /**
   * Stops the run if it still goes on, and closes its autoencoder. Never rejects: what went wrong
   * is told by `finished`.
   */
  async close(): Promise<void> {
    const result = await this.stop().catch(() => undefined);
    await result?.sae.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * The reports as they come; never slows the run: a slow reader gets the newest. Leaving the loop
   * stops the run.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Report, void, void> {
    try {
      yield* this.#reports.read();
      await this.finished;
    } finally {
      await this.stop();
    }
  }
}

/** A run as its caller sees it: reports while it goes on, and how it ended. */

import type { Config } from "../config.ts";
import type { Report } from "./report.ts";

export interface TrainResult {
  /** "done": the budget is spent. "stopped": somebody asked it to stop. */
  readonly reason: "done" | "stopped";
  readonly steps: number;
  /** Rows trained on. */
  readonly tokens: number;
  /** The last line of metrics.jsonl; undefined when no step was logged. */
  readonly report: Report | undefined;
  /** The folder of the last checkpoint; undefined with `out: false`. */
  readonly checkpoint: string | undefined;
}

/** What the run trains on, in rows. */
export interface DataInUse {
  readonly description: string;
  readonly rowsPerEpoch: number;
  readonly heldOut: number;
  readonly excluded: number;
}

/** What a run is told and tells while it goes on; `body` does the work. */
export class TrainRun implements AsyncIterable<Report> {
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
  /** Rows trained on before, in the parts of the run that this one goes on from. */
  readonly trainedBefore: number;
  /** Resolves when the run is over and everything is saved; rejects when it failed. */
  readonly finished: Promise<TrainResult>;
  #newest: Report | undefined;
  #over = false;
  #stopped = false;
  #waiting: (() => void)[] = [];

  constructor(
    about: Pick<TrainRun, "config" | "out" | "steps" | "budget" | "engine" | "data" | "trainedBefore"> & {
      readonly signal?: AbortSignal | undefined;
    },
    body: (run: { stopped: () => boolean; publish: (report: Report) => void }) => Promise<TrainResult>,
  ) {
    this.config = about.config;
    this.out = about.out;
    this.steps = about.steps;
    this.budget = about.budget;
    this.engine = about.engine;
    this.data = about.data;
    this.trainedBefore = about.trainedBefore;
    const { signal } = about;
    const stopped = () => this.#stopped || (signal?.aborted ?? false);
    const publish = (report: Report) => {
      this.#newest = report;
      this.#wake();
    };
    this.finished = body({ stopped, publish }).finally(() => {
      this.#over = true;
      this.#wake();
    });
    this.finished.catch(() => undefined); // whoever awaits it is told
  }

  /** Finishes the step, saves a checkpoint and ends the run. */
  async stop(): Promise<TrainResult> {
    this.#stopped = true;
    return this.finished;
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** The reports as they come; never slows the run: a slow reader gets the newest. Leaving the loop stops the run. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Report, void, void> {
    let seen: Report | undefined;
    try {
      while (true) {
        const report = this.#newest;
        if (report !== undefined && report !== seen) {
          seen = report;
          yield report;
        } else if (this.#over) {
          await this.finished;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#waiting.push(resolve);
          });
        }
      }
    } finally {
      await this.stop();
    }
  }
}

/** What watches the steps of a run: the hold-out, the log, the checkpoints. */

import { basename, resolve } from "node:path";
import { checkpointBytes, pruneCheckpoints, saveCheckpoint, sayingNeeds } from "../checkpoint/save.ts";
import { saveSharded } from "../checkpoint/save-sharded.ts";
import { retryWhenFull } from "../checkpoint/wait-for-disk.ts";
import { configToJson } from "../config.ts";
import type { Params } from "../engine/engine.ts";
import type { RunLog } from "../logs/run-log.ts";
import { openRunLogs } from "../logs/run-logs.ts";
import { flat, type Report } from "../run-files/metrics.ts";
import type { JsonObject } from "../util/json.ts";
import { evaluateAverage } from "./average.ts";
import { DensityFile } from "./density-file.ts";
import type { RunObserver, StepSeen } from "./loop.ts";
import type { Member } from "./member.ts";
import { earlierLines, MetricsFile } from "./metrics-file.ts";
import { describe, factsOf, type RunPlan } from "./plan.ts";
import type { RunControl } from "./run.ts";
import type { Progress, StartState } from "./start-state.ts";
import {
  densityOfAll,
  type HeldOutDensity,
  type HeldRows,
  MOST_ROWS,
  readHeldOut,
  spread,
  Validator,
} from "./validate.ts";

/** Reads the held-out rows that a run is evaluated on; undefined where there are none. */
export async function heldOutOf({ source, choice, config }: RunPlan): Promise<HeldRows | undefined> {
  const held = spread(choice.holdout, MOST_ROWS, source.computed);
  return held.length === 0 ? undefined : readHeldOut(source, held, config.nonFinite);
}

/** Evaluates on the hold-out, at the last step the running average too. */
export class HoldoutObserver implements RunObserver {
  readonly reads = true;
  readonly holds = true;
  /** Of the last evaluation. */
  density: HeldOutDensity | undefined;
  readonly #plan: RunPlan;
  readonly #start: StartState;
  readonly #validator: Validator;

  readonly #also: Member["evaluates"];

  private constructor(plan: RunPlan, start: StartState, validator: Validator, also: Member["evaluates"]) {
    this.#plan = plan;
    this.#start = start;
    this.#validator = validator;
    this.#also = also;
  }

  /** undefined where no rows are held out. `member`: of a sweep, which has read them. */
  static async open(plan: RunPlan, start: StartState, member?: Member): Promise<HoldoutObserver | undefined> {
    const { engine, shard } = plan;
    const held = await (member?.heldOut() ?? heldOutOf(plan));
    if (held === undefined) return undefined;
    const validator = new Validator(engine, shard, { ...start.hyper, lr: 0, rows: 0 }, held, start);
    return new HoldoutObserver(plan, start, validator, member?.evaluates);
  }

  due(step: number, last: boolean): boolean {
    const { evalEvery } = this.#plan.config;
    return last || (evalEvery > 0 && step % evalEvery === 0) || this.#also?.(step) === true;
  }

  async see(seen: StepSeen): Promise<void> {
    const { engine, collective, config, shard, steps } = this.#plan;
    const { state } = this.#start;
    const run = (params: Params) => this.#validator.run(params, collective);
    const found = await run(state.params);
    this.density = this.#validator.density && (await densityOfAll(collective, this.#validator.density));
    seen.heldOut = found;
    if (seen.progress.step < steps) return;
    const average = { decay: config.ema, unitDecoder: config.decoderNorm === "unit", d: shard.whole.dOut };
    seen.heldOut = { ...found, ...(await evaluateAverage(engine, state, average, run)) };
  }

  close(): void {
    this.#validator.close();
  }
}

/**
 * Makes the report of a step: to the run's readers, and on rank 0 into metrics.jsonl, density.jsonl
 * and the logs that were asked for.
 */
export class LogObserver implements RunObserver {
  readonly reads = true;
  readonly holds = false;
  last: Report | undefined;
  readonly #plan: RunPlan;
  readonly #holdout: HoldoutObserver | undefined;
  readonly #publish: RunControl["publish"];
  readonly #clock: RunClock;
  #before: { readonly at: number; readonly tokens: number };
  #metrics: MetricsFile | undefined;
  #densities: DensityFile | undefined;
  #logs: RunLog | undefined;

  constructor(
    plan: RunPlan,
    start: StartState,
    holdout: HoldoutObserver | undefined,
    clock: RunClock,
    publish: RunControl["publish"],
  ) {
    this.#plan = plan;
    this.#holdout = holdout;
    this.#publish = publish;
    this.#clock = clock;
    this.#before = { at: clock.elapsed(), tokens: start.progress.tokens };
  }

  /** Opens the files of the run folder. */
  async open(out: string, { metricsBytes, progress }: StartState, onNote: (note: string) => void): Promise<void> {
    const { config } = this.#plan;
    this.#metrics = await MetricsFile.open(out, metricsBytes);
    this.#densities = new DensityFile(out, progress.step);
    this.#logs = openRunLogs({
      dir: out,
      from: progress.step,
      earlier: earlierLines(out, metricsBytes, this.#clock.startTime),
      tensorboard: config.tensorboard,
      wandb: config.wandb,
      name: basename(resolve(out)),
      config: configToJson(config),
      onNote,
    });
  }

  due(step: number, last: boolean): boolean {
    return last || this.#holdout?.due(step, last) === true || step % this.#plan.config.logEvery === 0;
  }

  see({ progress: { step, tokens, position }, lr, lossScale, metrics, heldOut }: StepSeen): void {
    if (metrics === undefined) return;
    const now = this.#clock.elapsed();
    const { holdout_fvu, holdout_mse, holdout_fvu_ema, holdout_mse_ema, holdout_l0, holdout_prefix_fvu } = heldOut;
    const report: Report = {
      step,
      tokens,
      epoch: position.epoch + position.row / this.#plan.order.rowsIn(position.epoch),
      elapsed_s: now,
      ...metrics,
      lr,
      loss_scale: lossScale,
      skipped_rows: position.skipped,
      tokens_per_second: (tokens - this.#before.tokens) / Math.max(1e-9, now - this.#before.at),
      ...(holdout_fvu === undefined ? {} : { holdout_fvu, holdout_mse }),
      ...(holdout_fvu_ema === undefined ? {} : { holdout_fvu_ema, holdout_mse_ema }),
      ...(holdout_l0 === undefined ? {} : { holdout_l0 }),
      ...(holdout_prefix_fvu === undefined ? {} : { holdout_prefix_fvu }),
    };
    this.last = report;
    this.#before = { at: now, tokens };
    this.#metrics?.append(report);
    this.#logs?.append({ step, wallTime: this.#clock.startTime + now, values: flat(report) });
    const density = this.#holdout?.density;
    if (holdout_fvu !== undefined && density !== undefined) this.#densities?.append(step, density);
    this.#publish(report);
  }

  /** Waits until every line so far is on the disk; returns the length of metrics.jsonl in bytes. */
  async flush(): Promise<number> {
    return (await this.#metrics?.flush()) ?? 0;
  }

  /** `exitCode`: how the run ended, for the logs. */
  async close(exitCode: number): Promise<void> {
    await this.#metrics?.close();
    await this.#logs?.close(exitCode);
    await this.#densities?.close();
  }
}

/** Saves checkpoints. */
export class CheckpointObserver implements RunObserver {
  readonly reads = false;
  readonly holds = true;
  /** The folder of the last one saved. */
  path: string | undefined;
  readonly #plan: RunPlan;
  readonly #start: StartState;
  readonly #out: string;
  readonly #log: LogObserver;
  readonly #clock: RunClock;
  readonly #waiting: Omit<Parameters<typeof retryWhenFull>[1], "needed">;

  constructor(
    plan: RunPlan,
    start: StartState,
    out: string,
    log: LogObserver,
    clock: RunClock,
    { signal, onNote }: Pick<RunControl, "signal" | "onNote">,
  ) {
    this.#plan = plan;
    this.#start = start;
    this.#out = out;
    this.#log = log;
    this.#clock = clock;
    // Several ranks would not wait for room for the same time.
    const onDiskFull = plan.shard.grid.size === 1 ? plan.config.onDiskFull : "stop";
    this.#waiting = { onDiskFull, signal, onNote, runDir: out };
  }

  due(step: number, last: boolean): boolean {
    const { checkpointEvery } = this.#plan.config;
    return !last && checkpointEvery > 0 && step % checkpointEvery === 0;
  }

  /** Saves the state as it is after the step, of which everything is logged by then. */
  see({ progress }: Pick<StepSeen, "progress">): Promise<void> {
    return this.save(progress);
  }

  async save(at: Progress): Promise<void> {
    const { engine, collective, shard, source, choice, config } = this.#plan;
    const { state, normalization, targetNormalization } = this.#start;
    const out = this.#out;
    this.path = await retryWhenFull(
      async () => {
        const progress: JsonObject = {
          tokens: at.tokens,
          position: { ...at.position },
          ...(at.lossScale === undefined ? {} : { loss_scale: { ...at.lossScale } }),
          elapsed_s: this.#clock.elapsed(),
          metrics_bytes: await sayingNeeds(out, state, () => this.#log.flush()),
          mse_scale: this.#start.mseScale,
          left_out: choice.leftOut.size,
          data: factsOf(source),
        };
        engine.complete(state);
        const description = describe(this.#plan, normalization, targetNormalization);
        const snapshot = { engine, state, step: at.step, description, progress };
        return shard.grid.size === 1 ? saveCheckpoint(out, snapshot) : saveSharded(out, snapshot, collective);
      },
      { ...this.#waiting, needed: checkpointBytes(state) },
    );
    if (shard.grid.rank !== 0) return;
    await retryWhenFull(() => pruneCheckpoints(out, config.keep), { ...this.#waiting, needed: 0 });
  }
}

/** The time of a run: seconds of training over all its parts. */
export class RunClock {
  /**
   * When all of the run would have begun, in seconds since 1970. Read once: the system's clock may
   * be set while the run lasts.
   */
  readonly startTime: number;
  readonly #began = performance.now();
  readonly #before: number;

  /** `before`: seconds trained in earlier parts of the run. */
  constructor(before: number) {
    this.#before = before;
    this.startTime = Date.now() / 1000 - before;
  }

  elapsed(): number {
    return this.#before + (performance.now() - this.#began) / 1000;
  }
}

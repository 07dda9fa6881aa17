/** A run from the plan to the last checkpoint: what `train` and `resume` have in common. */

import { availableParallelism, hostname } from "node:os";
import { basename, resolve } from "node:path";
import { newestCheckpoint } from "../checkpoint/load.ts";
import { withRoom } from "../checkpoint/room.ts";
import { checkpointBytes, pruneCheckpoints, saveCheckpoint, sayingNeeds } from "../checkpoint/save.ts";
import { saveTogether } from "../checkpoint/together.ts";
import type { Collective } from "../collective/collective.ts";
import {
  budgetRows,
  type Config,
  configToJson,
  derivedOptions,
  type FoundOptions,
  resolveConfig,
  specOf,
  type TrainOptions,
  totalSteps,
  withDefaults,
} from "../config.ts";
import { ringRows } from "../data/batches.ts";
import { type Choice, chooseRows, leavingOut } from "../data/choose.ts";
import { orderOf } from "../data/epochs.ts";
import { countRows } from "../data/holdout.ts";
import { keepingHead, stoppable } from "../data/rows-source.ts";
import type { Source } from "../data/source.ts";
import { BYTES, type Engine, type Hyper, type Normalization, type State } from "../engine/engine.ts";
import { prepareEngine, selectEngine } from "../engine/select.ts";
import { trainedSae } from "../inference/trained.ts";
import type { RunLog } from "../logs/run-log.ts";
import { openRunLogs } from "../logs/run-logs.ts";
import { type ArchitectureSpec, paramsOf, rulesOf } from "../sae/architectures/index.ts";
import type { SaeDescription } from "../sae/description.ts";
import { autoencoderDims, type Dims } from "../sae/dims.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import type { JsonObject } from "../util/json.ts";
import { VERSION } from "../util/version.ts";
import { runAdvice } from "./advice.ts";
import { evaluateAverage } from "./average.ts";
import { DensityFile } from "./density-file.ts";
import type { Forecast } from "./estimate.ts";
import { type Progress, trainLoop } from "./loop.ts";
import { availableMemory, checkMemory } from "./memory.ts";
import { earlierLines, MetricsFile } from "./metrics-file.ts";
import { checkBatch, fromFirst, type RankShard, rankShard, trainingSelections } from "./rank-shard.ts";
import type { Report } from "./report.ts";
import type { RunControl, TrainResult } from "./run.ts";
import { NO_RECORD, type RunRecord } from "./run-record.ts";
import { densityOfAll, type HeldOutDensity, MOST_ROWS, spread, Validator } from "./validate.ts";

/** Everything that is decided before the first step. */
export interface Plan {
  readonly source: Source;
  readonly config: Config;
  readonly choice: Choice;
  readonly order: ReturnType<typeof orderOf>;
  /** What config.json records of the run besides its options. */
  readonly record: Omit<RunRecord, "data">;
  readonly engine: Engine;
  readonly collective: Collective;
  readonly spec: ArchitectureSpec;
  readonly shard: RankShard;
  readonly budget: number;
  readonly steps: number;
  readonly memory: Forecast["memory"];
  /** Told what is worth knowing and no error. */
  readonly onNote: (note: string) => void;
}

/** Decides everything, starts the engine, and refuses what cannot run, with the numbers. `before`: the record of a run that is resumed. */
export async function plan(
  given: Source,
  wanted: FoundOptions,
  collective: Collective,
  onNote: (note: string) => void,
  before: Omit<RunRecord, "data"> = { ...NO_RECORD, derived: derivedOptions(wanted) },
): Promise<Plan> {
  const { grid } = collective;
  if (grid.size > 1 && given.stream !== undefined)
    throw new UsageError("rows of a program cannot be trained on by several ranks");
  for (const note of given.notes ?? []) onNote(note);
  const once = given.stream === "once";
  const asked = excludable(given, once ? inOnePass(wanted) : wanted, onNote);
  const read = once ? keepingHead(given, withDefaults(asked).statisticsRows) : given;
  const choice = await chooseRows(read, { ...withDefaults(asked), normLimit: wanted.normLimit }, before.appended);
  const source = leavingOut(read, choice);
  const rowsPerEpoch = source.rows - choice.untrained.size;
  if (rowsPerEpoch === 0)
    throw new SaettaError("no row is left to train on", {
      where: source.paths.join(", "),
      mend: "lower --holdout, or leave out fewer rows (--exclude-tokens, --exclude-positions, --max-norm, --zero-rows)",
    });
  const config = resolveConfig(
    { ...asked, normLimit: choice.normLimit, shards: grid.shards, replicas: grid.replicas },
    source.paths.map((path) => resolve(path)),
    { dIn: source.dIn, rowsPerEpoch },
  );
  const spec = specOf(config);
  const dims = autoencoderDims(source.dIn, config.latents);
  const shard = rankShard(dims, rulesOf(spec), grid, config.capacityFactor);
  const selections = trainingSelections(shard);
  const rowBytes = source.dIn * BYTES[source.dtype];
  const order = orderOf(
    { rows: source.rows, rowBytes, grain: source.grain, stream: source.stream },
    choice.untrained,
    config,
    before.appended,
  );
  const budget = budgetRows(config, rowsPerEpoch);
  if (once && budget > rowsPerEpoch) throw notTwice(`trained on for ${budget} rows, being ${rowsPerEpoch}`);
  checkBatch(grid, config.batch, config.dropLast ? 0 : budget % config.batch);
  // Ranks of one host share its processors and its memory.
  const hosts = await collective.exchange(hostname());
  const here = hosts.filter((host) => host === hostname()).length;
  if (hosts.indexOf(hostname()) === grid.rank) await prepareEngine(config.engine, collective.kind);
  await collective.barrier();
  const threads = config.threads ?? (here > 1 ? Math.max(1, Math.floor(availableParallelism() / here)) : undefined);
  const engine = await selectEngine(config.engine, { threads, dtype: config.dtype, collective, onNote });
  let memory: Forecast["memory"];
  try {
    const refusal = engine.refuses(shard.dims, selections);
    if (refusal !== undefined)
      throw new SaettaError(`the ${engine.name} engine cannot run this: ${refusal}`, { mend: "lower --latents" });
    const held = Math.min(MOST_ROWS, countRows(choice.holdout));
    const raw = (ringRows(order) + 2 * order.windowRows + held) * rowBytes;
    const free = Math.floor(availableMemory() / here);
    const sampled = Math.min(config.statisticsRows, rowsPerEpoch);
    const batch = Math.ceil(Math.min(config.batch, budget) / grid.replicas);
    memory = {
      free,
      needed: checkMemory(
        {
          dims: shard.dims,
          params: paramsOf(spec),
          selections,
          real: engine.real,
          ema: config.ema > 0,
          dense: grid.replicas > 1,
          batch,
          rowBytes: raw,
          sampled,
        },
        free,
      ),
    };
  } catch (error) {
    await engine[Symbol.asyncDispose]();
    throw error;
  }
  const steps = totalSteps(budget, config.batch, config.dropLast);
  const record = { ...before, steps };
  return { source, config, choice, order, record, engine, collective, spec, shard, budget, memory, onNote, steps };
}

/** What rows that are read once allow: their own order, and none kept for evaluation. */
function inOnePass(asked: TrainOptions): TrainOptions {
  if (asked.shuffle === true) throw notTwice("shuffled");
  if ((asked.holdout ?? 0) > 0) throw notTwice("held out");
  return { ...asked, shuffle: false, holdout: 0 };
}

function notTwice(what: string): UsageError {
  return new UsageError(`rows that are read once cannot be ${what}`, {
    mend: "give a function that returns the rows anew",
  });
}

/**
 * Start tokens are left out unless somebody decides otherwise; where the file does not say which they are, that is said, and nothing is left out. Zero rows of a program were written, so they are
 * kept unless somebody decides otherwise.
 */
function excludable(source: Source, given: TrainOptions, onNote: (note: string) => void): TrainOptions {
  const keepsZeros = source.stream !== undefined && given.zeroRows === undefined;
  const asked = keepsZeros ? { ...given, zeroRows: "keep" as const } : given;
  const decided = withDefaults(asked).excludeTokens !== "start" || asked.excludeTokens !== undefined;
  if (decided || source.tokens === undefined || source.origin.startToken !== undefined) return asked;
  onNote(
    `${source.paths.join(", ")} has tokens but no attribute start_token, so no row is left out; name start tokens with --exclude-tokens ID`,
  );
  return { ...asked, excludeTokens: "none" };
}

/** Where a run begins: step 0, or a checkpoint. */
export interface Beginning {
  readonly progress: Progress;
  readonly mseScale: number;
  readonly normalization: Normalization;
  readonly elapsed: number;
  readonly metricsBytes: number;
}

export function hyperOf(config: Config, mseScale: number): Omit<Hyper, "lr" | "rows"> {
  return {
    beta1: 0.9,
    beta2: 0.999,
    eps: config.eps,
    clip: config.clip,
    emaDecay: config.ema,
    mseScale,
    auxCoef: config.auxkCoef,
    deadAfter: config.deadTokens,
    firedAbove: config.firedThreshold,
  };
}

/** Trains from `begin` to the end, logging and saving into `out` (undefined: nowhere). State and engine go over to the autoencoder of the result, or are freed. */
export async function trainFrom(
  { source: planned, config, choice, order, record, engine, collective, spec, shard, budget, steps }: Plan,
  state: State,
  begin: Beginning,
  out: string | undefined,
  { signal, publish }: RunControl,
  onNote: (note: string) => void,
): Promise<TrainResult> {
  const source = stoppable(planned, signal);
  let metrics: MetricsFile | undefined;
  let logs: RunLog | undefined;
  let exitCode = 1;
  let densities: DensityFile | undefined;
  let density: HeldOutDensity | undefined; // of the last evaluation
  const began = performance.now();
  const elapsed = () => begin.elapsed + (performance.now() - began) / 1000;
  // Read once, in seconds since 1970: the system's clock may be set while the run lasts.
  const startTime = Date.now() / 1000 - begin.elapsed;
  const description = describe(source, config, engine, shard.whole, spec, begin.normalization);
  let last: Report | undefined;
  let checkpoint: string | undefined;
  let before = { at: elapsed(), tokens: begin.progress.tokens };

  const unlessStopped = (thrown: unknown): undefined => {
    if (!signal.aborted || thrown !== signal.reason) throw thrown;
  };

  const save = async (at: Progress): Promise<void> => {
    if (out === undefined) return;
    const [file, alone] = [metrics, shard.grid.size === 1];
    // Several ranks would not wait for room for the same time.
    const waiting = { onDiskFull: alone ? config.onDiskFull : "stop", signal, onNote, runDir: out } as const;
    checkpoint = await withRoom(
      async () => {
        const progress: JsonObject = {
          tokens: at.tokens,
          position: { ...at.position },
          elapsed_s: elapsed(),
          metrics_bytes: file === undefined ? 0 : await sayingNeeds(out, state, () => file.flush()),
          mse_scale: begin.mseScale,
          left_out: choice.leftOut.size,
          data: factsOf(source),
        };
        engine.complete(state);
        const snapshot = { engine, state, step: at.step, description, progress };
        return alone ? saveCheckpoint(out, snapshot) : saveTogether(out, snapshot, collective);
      },
      { ...waiting, needed: checkpointBytes(state) },
    );
    if (shard.grid.rank === 0) await withRoom(() => pruneCheckpoints(out, config.keep), { ...waiting, needed: 0 });
  };

  try {
    if (out !== undefined && shard.grid.rank === 0) {
      metrics = await MetricsFile.open(out, begin.metricsBytes);
      densities = new DensityFile(out, begin.progress.step);
      logs = logsOf(out, config, begin, startTime, onNote);
    }
    const ring = engine.alloc(source.dtype, [ringRows(order), source.dIn]);
    const hyper = hyperOf(config, begin.mseScale);
    const held = spread(choice.holdout, MOST_ROWS);
    const validator =
      held.length > 0
        ? await Validator.open(
            engine,
            shard,
            { ...hyper, lr: 0, rows: 0 },
            source,
            held,
            config.nonFinite,
            begin.normalization,
          ).catch(unlessStopped)
        : undefined;
    const end = await trainLoop({
      engine,
      collective,
      shard,
      state,
      source,
      order,
      ring,
      hyper,
      budget,
      schedule: { lr: config.lr, warmup: config.warmup, decay: config.decay, steps, legs: record.legs },
      batch: config.batch,
      nonFinite: config.nonFinite,
      normalization: begin.normalization,
      from: begin.progress,
      logEvery: config.logEvery,
      evalEvery: config.evalEvery,
      signal,
      evaluate:
        validator &&
        (async (step) => {
          const found = await validator.run(state.params);
          density = validator.density && (await densityOfAll(collective, validator.density));
          if (step < steps) return found;
          const average = await evaluateAverage(engine, state, config.ema, shard.whole.dOut, (params) =>
            validator.run(params),
          );
          return { ...found, ...average };
        }),
      onLog: (at, lr, findings) => {
        const now = elapsed();
        const { step, tokens, position } = at;
        const { holdout_fvu, holdout_mse, holdout_fvu_ema, holdout_mse_ema, ...found } = findings;
        last = {
          step,
          tokens,
          epoch: position.epoch + position.row / order.rowsIn(position.epoch),
          elapsed_s: now,
          ...found,
          lr,
          loss_scale: 1,
          skipped_rows: position.skipped,
          tokens_per_second: (tokens - before.tokens) / Math.max(1e-9, now - before.at),
          ...(holdout_fvu === undefined ? {} : { holdout_fvu, holdout_mse }),
          ...(holdout_fvu_ema === undefined ? {} : { holdout_fvu_ema, holdout_mse_ema }),
        };
        before = { at: now, tokens };
        metrics?.append(last);
        logs?.append({ step, wallTime: startTime + now, values: { ...last } });
        if (holdout_fvu !== undefined && density !== undefined) densities?.append(step, density);
        publish(last);
      },
      saveEvery: config.checkpointEvery,
      onSave: save,
    });
    const newest = await fromFirst(collective, async () => {
      const found = out === undefined ? undefined : (await newestCheckpoint(out, [])).checkpoint;
      return found === undefined ? null : { step: found.step, path: found.path };
    });
    if (newest?.step === end.step) checkpoint = newest.path;
    else await save(end);
    validator?.close();
    engine.free(ring);
    const reason = end.step < steps && (signal.aborted || shard.grid.size > 1) ? "stopped" : "done";
    engine.complete(state);
    const sae = await trainedSae(engine, state, description, { path: checkpoint, step: end.step }, shard.dims);
    exitCode = 0;
    const advice = reason === "done" && last !== undefined ? runAdvice(last, config, steps) : [];
    return { reason, steps: end.step, tokens: end.tokens, report: last, advice, checkpoint, sae };
  } catch (thrown) {
    await engine.close();
    throw thrown;
  } finally {
    await metrics?.close();
    await logs?.close(exitCode);
    await densities?.close();
  }
}

/** The copies of the metrics that were asked for. */
function logsOf(
  dir: string,
  config: Config,
  { progress, metricsBytes }: Beginning,
  startTime: number,
  onNote: (note: string) => void,
): RunLog {
  const { tensorboard, wandb } = config;
  const earlier = earlierLines(dir, metricsBytes, startTime);
  return openRunLogs({
    dir,
    from: progress.step,
    earlier,
    tensorboard,
    wandb,
    name: basename(resolve(dir)),
    config: configToJson(config),
    onNote,
  });
}

/** What must be the same when a run goes on. */
export function factsOf({ rows, dIn, dtype, sequence, grain, stream }: Source): JsonObject {
  return {
    rows,
    d_in: dIn,
    dtype,
    sequence: sequence ?? null,
    grain,
    ...(stream === undefined ? {} : { stream: true }),
  };
}

function describe(
  source: Source,
  config: Config,
  engine: Engine,
  dims: Dims,
  spec: ArchitectureSpec,
  { kind, factor }: Normalization,
): SaeDescription {
  const { model, tensor, tokenizer } = source.origin;
  return {
    dims,
    spec,
    saetta: {
      version: VERSION,
      engine: engine.description,
      normalization: kind,
      ...(kind === "scale" ? { normalizationFactor: factor } : {}),
      ...(config.ema > 0 ? { emaDecay: config.ema } : {}),
      ...(model === undefined ? {} : { model }),
      ...(tensor === undefined ? {} : { tensor }),
      ...(tokenizer === undefined ? {} : { tokenizer }),
    },
  };
}

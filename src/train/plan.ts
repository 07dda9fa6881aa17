/** Everything that is decided before the first step of a run. */

import { availableParallelism, hostname } from "node:os";
import { resolve } from "node:path";
import type { Collective } from "../collective/collective.ts";
import {
  budgetRows,
  type Config,
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
import { lanesFor } from "../data/lanes.ts";
import { keepingHead } from "../data/rows-source.ts";
import { bytesPerRow, rowWidth, type Source } from "../data/source.ts";
import type { Engine, Hyper, Normalization } from "../engine/engine.ts";
import { prepareEngine, selectEngine } from "../engine/select.ts";
import { type ArchitectureSpec, architectureNamed, rulesOf } from "../sae/architectures/index.ts";
import { hasUnitDecoder, paramNames, type SaeDescription } from "../sae/description.ts";
import { autoencoderDims, transcoderDims } from "../sae/dims.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import type { JsonObject } from "../util/json.ts";
import { VERSION } from "../util/version.ts";
import type { Forecast } from "./estimate.ts";
import { availableMemory, checkMemory, type Needs } from "./memory.ts";
import { checkBatch, type RankShard, rankShard, trainingSelections } from "./rank-shard.ts";
import type { RunContext } from "./run.ts";
import { NO_RECORD, type PlannedRecord } from "./run-record.ts";
import type { Schedule } from "./schedule.ts";
import { MOST_ROWS } from "./validate.ts";

/** Everything that is decided before the first step. */
export interface RunPlan {
  readonly source: Source;
  readonly config: Config;
  readonly choice: Choice;
  readonly order: ReturnType<typeof orderOf>;
  /** What config.json records of the run besides its options. */
  readonly record: PlannedRecord;
  readonly engine: Engine;
  readonly collective: Collective;
  readonly spec: ArchitectureSpec;
  readonly shard: RankShard;
  readonly budget: number;
  readonly steps: number;
  readonly memory: Forecast["memory"];
  readonly needs: Needs;
  /** Numbers of the architecture that change from step to step; `step` counts from 0. */
  readonly numbers: (step: number, rows: number) => Partial<Hyper>;
}

/** Bytes of a window of rows that have to be computed before the first step. */
const COMPUTED_WINDOW = 16 * 1024 * 1024;

/** What runs that are planned together have in common. */
export interface PlannedBefore {
  readonly engine: Engine;
  /** The rows, where they were chosen for a run with the same options of rows. */
  readonly rows?: Pick<RunPlan, "source" | "choice"> | undefined;
}

/**
 * Decides everything, starts the engine, and refuses what cannot run, with the numbers. `before`:
 * the record of a run that is resumed. `shared`: of another run of a sweep; its engine is then not
 * closed when this throws.
 */
export async function planRun(
  given: Source,
  wanted: FoundOptions,
  collective: Collective,
  { onNote }: RunContext,
  before?: PlannedRecord,
  shared?: PlannedBefore,
): Promise<RunPlan> {
  const { grid } = collective;
  const { appended } = before ?? NO_RECORD;
  if (grid.size > 1 && given.stream !== undefined)
    throw new UsageError("rows of a program cannot be trained on by several ranks");
  if (collective.kind === "nccl" && wanted.wire !== undefined && wanted.wire !== "f32")
    throw new UsageError(
      `--wire ${wanted.wire}: ranks on cards exchange rows and weights in --dtype, and sums in f32`,
      {
        mend: "leave --wire out, or choose --engine cpu",
      },
    );
  const noteOnce = shared?.rows === undefined ? onNote : () => undefined;
  for (const note of given.notes ?? []) noteOnce(note);
  const once = given.stream === "once";
  const asked = excludable(given, once ? inOnePass(wanted, given) : wanted, noteOnce);
  const { source, choice } = shared?.rows ?? (await choose(given, { ...asked, normLimit: wanted.normLimit }, appended));
  const rowsPerEpoch = source.rows - choice.untrained.size;
  if (rowsPerEpoch === 0)
    throw new SaettaError("no row is left to train on", {
      where: source.paths.join(", "),
      mend: "lower --holdout, or leave out fewer rows (--exclude-tokens, --exclude-positions, --max-norm, --zero-rows)",
    });
  const config = resolveConfig(
    { ...asked, normLimit: choice.normLimit, shards: grid.shards, replicas: grid.replicas },
    source.paths.map((path) => resolve(path)),
    { dIn: source.dIn, target: source.targetPaths?.map((path) => resolve(path)), rowsPerEpoch },
  );
  const spec = specOf(config);
  const { dIn, dOut } = source;
  const dims = dOut === undefined ? autoencoderDims(dIn, config.latents) : transcoderDims(dIn, config.latents, dOut);
  const shard = rankShard(dims, rulesOf(spec), grid, config.capacityFactor);
  const selections = trainingSelections(shard);
  const rowBytes = bytesPerRow(source);
  const lanes = before?.lanes ?? (config.shuffle ? lanesFor(config.batch) : 1);
  const order = orderOf(
    { rows: source.rows, rowBytes, grain: source.grain, stream: source.stream },
    choice.untrained,
    { ...config, lanes, ...(source.computed === undefined ? {} : { windowBytes: COMPUTED_WINDOW }) },
    appended,
  );
  const budget = budgetRows(config, rowsPerEpoch);
  if (once && budget > rowsPerEpoch) throw notTwice(`trained on for ${budget} rows, being ${rowsPerEpoch}`);
  checkBatch(grid, config.batch, config.dropLast ? 0 : budget % config.batch);
  // Ranks of one host share its processors and its memory.
  const hosts = await collective.exchange(hostname());
  const here = hosts.filter((host) => host === hostname()).length;
  const engine = shared?.engine ?? (await startEngine(config, collective, hosts, onNote));
  let memory: Forecast["memory"];
  let needs: Needs;
  try {
    const refusal = engine.refuses(shard.dims, selections);
    if (refusal !== undefined)
      throw new SaettaError(`the ${engine.name} engine cannot run this: ${refusal}`, { mend: "lower --latents" });
    const held = Math.min(MOST_ROWS, countRows(choice.holdout));
    const raw = (ringRows(order) + 2 * order.windowRows + held) * rowBytes;
    const free = Math.floor(availableMemory() / here);
    const sampled = Math.min(config.statisticsRows, rowsPerEpoch) * rowWidth(source);
    const batch = Math.ceil(Math.min(config.batch, budget) / grid.replicas);
    needs = {
      dims: shard.dims,
      params: paramNames({ spec, skip: config.skip }),
      selections,
      real: engine.real,
      ema: config.ema > 0,
      dense: grid.replicas > 1,
      batch,
      rowBytes: raw,
      sampled,
    };
    memory = { free, needed: checkMemory(needs, free) };
  } catch (error) {
    if (shared === undefined) await engine.close();
    throw error;
  }
  const steps = totalSteps(budget, config.batch, config.dropLast);
  const record = { ...(before ?? { ...NO_RECORD, derived: derivedOptions(wanted) }), lanes, steps };
  const numbers = (step: number, rows: number) =>
    architectureNamed(spec.architecture).stepHyper?.(config, { step, steps, rows }) ?? {};
  return {
    numbers,
    source,
    config,
    choice,
    order,
    record,
    engine,
    collective,
    spec,
    shard,
    budget,
    memory,
    needs,
    steps,
  };
}

/** The rows of the run, and the source that leaves out what is only seen when rows are read. */
async function choose(
  given: Source,
  asked: FoundOptions,
  appended: PlannedRecord["appended"],
): Promise<Pick<RunPlan, "source" | "choice">> {
  const once = given.stream === "once";
  const read = once && given.from === undefined ? keepingHead(given, withDefaults(asked).statisticsRows) : given;
  // Rows of a stream were left out for their tokens and positions as they came.
  const leftOut = given.heldOut === undefined ? {} : ({ excludeTokens: "none", excludePositions: "none" } as const);
  const choice = await chooseRows(read, { ...withDefaults(asked), ...leftOut, normLimit: asked.normLimit }, appended);
  return { source: leavingOut(read, choice), choice };
}

/** The engine of this rank; `hosts`: of all ranks. */
async function startEngine(
  config: Config,
  collective: Collective,
  hosts: readonly string[],
  onNote: (note: string) => void,
): Promise<Engine> {
  const here = hosts.filter((host) => host === hostname()).length;
  if (hosts.indexOf(hostname()) === collective.grid.rank) await prepareEngine(config.engine, collective.kind);
  await collective.barrier();
  const threads = config.threads ?? (here > 1 ? Math.max(1, Math.floor(availableParallelism() / here)) : undefined);
  return selectEngine(config.engine, { threads, dtype: config.dtype, collective, onNote });
}

/**
 * What rows that are read once allow: the order in which they come, and none kept for evaluation,
 * unless some were set aside on the way.
 */
function inOnePass(asked: TrainOptions, { heldOut, ready = 1 }: Source): TrainOptions {
  if (heldOut !== undefined) {
    const statisticsRows = Math.min(withDefaults(asked).statisticsRows, ready);
    return { ...asked, shuffle: false, statisticsRows };
  }
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
 * Start tokens are left out unless the caller decides otherwise; where the file does not say which
 * they are, a note says so, and nothing is left out. Zero rows of a program or a model are meant,
 * so they are kept unless the caller decides otherwise.
 */
function excludable(source: Source, given: TrainOptions, onNote: (note: string) => void): TrainOptions {
  const written = (source.stream !== undefined && source.heldOut === undefined) || source.computed !== undefined;
  const keepsZeros = written && given.zeroRows === undefined;
  const asked = keepsZeros ? { ...given, zeroRows: "keep" as const } : given;
  const decided = withDefaults(asked).excludeTokens !== "start" || asked.excludeTokens !== undefined;
  if (decided || source.tokens === undefined || source.origin.startToken !== undefined) return asked;
  onNote(
    `${source.paths.join(", ")} has tokens but no attribute start_token, so no row is left out; name start tokens with --exclude-tokens ID`,
  );
  return { ...asked, excludeTokens: "none" };
}

/** The numbers of every step but the learning rate and the rows. */
export function hyperOf(config: Config, mseScale: number): Omit<Hyper, "lr" | "rows"> {
  const spec = specOf(config);
  const { hyper, lossWeight } = architectureNamed(spec.architecture);
  return {
    beta1: config.beta1,
    beta2: config.beta2,
    eps: config.eps,
    clip: config.clip,
    emaDecay: config.ema,
    mseScale: mseScale * (lossWeight?.(spec as never) ?? 1),
    auxCoef: config.auxkCoef ?? 0,
    deadAfter: config.deadTokens,
    firedAbove: config.firedThreshold,
    unitRows: config.decoderNorm === "unit" ? 1 : 0,
    ...hyper?.(config, spec as never),
  };
}

/** The learning rates of the run. */
export function scheduleOf({ config: { lr, warmup, decay }, steps, record: { legs } }: RunPlan): Schedule {
  return { lr, warmup, decay, steps, legs };
}

/** What must be the same when a run is resumed. */
export function factsOf({ rows, dIn, dOut, dtype, sequence, grain, stream, heldOut }: Source): JsonObject {
  return {
    rows: heldOut?.first ?? rows,
    d_in: dIn,
    ...(dOut === undefined ? {} : { d_out: dOut }),
    dtype,
    sequence: sequence ?? null,
    grain,
    ...(stream === undefined ? {} : { stream: true }),
  };
}

/** What the checkpoints of the run say of the autoencoder. */
export function describe(
  { source, config, engine, shard, spec }: RunPlan,
  { kind, factor }: Normalization,
  target?: Normalization,
): SaeDescription {
  const { model, tensor, targetTensor, tokenizer } = source.origin;
  return {
    dims: shard.whole,
    ...(config.skip ? { skip: true } : {}),
    ...(hasUnitDecoder({ dims: shard.whole }) === (config.decoderNorm === "unit")
      ? {}
      : { decoderNorm: config.decoderNorm }),
    spec,
    saetta: {
      version: VERSION,
      engine: engine.description,
      normalization: kind,
      ...(kind === "scale" ? { normalizationFactor: factor } : {}),
      ...(kind === "scale" && target !== undefined ? { targetFactor: target.factor } : {}),
      ...(config.ema > 0 ? { emaDecay: config.ema } : {}),
      ...(model === undefined ? {} : { model }),
      ...(tensor === undefined ? {} : { tensor }),
      ...(targetTensor === undefined ? {} : { targetTensor }),
      ...(tokenizer === undefined ? {} : { tokenizer }),
    },
  };
}

/** A run before its next step: new, or as a checkpoint left it. */

import { foldOf } from "../checkpoint/fold.ts";
import { type Position, START } from "../data/batches.ts";
import { countRows } from "../data/holdout.ts";
import { splitSample } from "../data/pair-statistics.ts";
import type { RunPreflight } from "../data/preflight.ts";
import type { Hyper, Normalization, State } from "../engine/engine.ts";
import { type FoundSae, writeParams } from "../inference/weights.ts";
import { isSet } from "../interchange/selection.ts";
import { architectureNamed, paramsOf } from "../sae/architectures/index.ts";
import { paramNames } from "../sae/description.ts";
import { paramEntries } from "../sae/params.ts";
import { decideStart } from "./decide-start.ts";
import { type Pace, secondsFor, timeSteps } from "./estimate.ts";
import type { LossScaleState } from "./loss-scale.ts";
import { hyperOf, type RunPlan } from "./plan.ts";
import { fromFirst } from "./rank-shard.ts";
import type { RunContext } from "./run.ts";
import {
  allocState,
  calibratedThreshold,
  readReals,
  rescaleEncoder,
  shareState,
  startParams,
  startTranscoder,
  unfold,
  writeReals,
} from "./state.ts";
import { MOST_ROWS } from "./validate.ts";

/** How far a run is; with the state of the engine, all that it needs to continue. */
export interface Progress {
  /** Steps done. */
  readonly step: number;
  /** Rows trained on. */
  readonly tokens: number;
  readonly position: Position;
  /** Of a run whose ranks exchange gradients as fp16. */
  readonly lossScale?: LossScaleState | undefined;
}

/** Where a run begins: at step 0, or at a checkpoint. */
export interface StartState {
  readonly state: State;
  readonly progress: Progress;
  /** The numbers of every step but the learning rate and the rows. */
  readonly hyper: Omit<Hyper, "lr" | "rows">;
  /** Weight of the reconstruction loss before that of a prefix (hyper.mseScale has both). */
  readonly mseScale: number;
  readonly normalization: Normalization;
  /** Of the targets of a transcoder. */
  readonly targetNormalization?: Normalization | undefined;
  /** Seconds that the run has trained already. */
  readonly elapsed: number;
  /** Bytes of metrics.jsonl that belong to the steps that are done. */
  readonly metricsBytes: number;
  /** How long the steps to come will take; undefined where nothing was timed. */
  readonly seconds?: number | undefined;
  /** What the sample of the rows showed; undefined where none was drawn. */
  readonly preflight?: RunPreflight | undefined;
}

/** Memory for the state of the run's shard, filled with zeros. */
export function newState({ engine, spec, shard, config }: RunPlan): State {
  return allocState(engine, shard.dims, paramNames({ spec, skip: config.skip }), config.ema > 0);
}

/** The work of a start that runs of a sweep do once for several of them. */
export interface StartWork {
  readonly decide?: typeof decideStart;
  readonly time?: typeof timeSteps;
}

/**
 * The start of a new run: fills the parameters from normalised rows, says what the sample of them
 * shows, and times the run's steps on it. Of several ranks the first draws the sample. `initial`:
 * the autoencoder to start from.
 */
export async function startState(
  plan: RunPlan,
  initial: FoundSae | undefined,
  { onNote }: RunContext,
  { decide = decideStart, time = timeSteps }: StartWork = {},
): Promise<StartState> {
  const { config, engine, shard, budget } = plan;
  const state = newState(plan);
  const { dims } = shard;
  const decided = await decide(plan, initial, onNote);
  const { mseScale, normalization, median, sample, preflight } = decided;
  const { kind } = normalization;
  if (kind === "unit" || kind === "layer_norm")
    onNote(`rows are normalised (${kind}); losses and FVU are of normalised rows`);
  const hyper = { ...hyperOf(config, mseScale), lr: config.lr };
  if (initial === undefined) {
    const bias = Float64Array.from(median ?? decided.means!.y);
    startParams(engine, state.params, dims, config.seed, bias, shard.firstLatent);
    if (decided.means !== null) await startTranscoder(engine, state.params, decided.means.x);
    if (config.encoderRescale)
      await rescaleEncoder(engine, state.params, shard, config.seed, { ...hyper, lr: 0, rows: 1 });
  } else {
    await writeParams(engine, initial, state.params, true, shard.firstLatent);
    const [least, most] = rowNorms(await readReals(engine, state.params.decoder), dims.dOut);
    if (hyper.unitRows === 1 && (least < 1 - UNIT || most > 1 + UNIT)) {
      onNote(
        `rows of the decoder of ${config.init} have norms from ${least.toPrecision(3)} to ${most.toPrecision(3)}; training keeps them at 1, so its first step changes what it says`,
      );
    }
    await unfold(engine, state.params, foldOf(initial.description));
  }
  await startThresholds(plan, state, initial, sample, hyper);
  // Several ranks would not agree on how many steps to time.
  if (shard.grid.size > 1) shareState(engine, state, shard);
  const timed = preflight !== undefined && shard.grid.size === 1;
  const batch = Math.min(config.batch, budget);
  const paced = { ...hyper, ...plan.numbers(0, Math.min(batch, MOST_PROBED)) };
  const seconds = timed ? secondsOf(plan, await time(engine, shard, state, sample, batch, paced)) : undefined;
  return {
    state,
    progress: { step: 0, tokens: 0, position: START },
    hyper: hyperOf(config, mseScale),
    mseScale,
    normalization,
    targetNormalization: decided.target ?? undefined,
    elapsed: 0,
    metricsBytes: 0,
    seconds,
    preflight,
  };
}

/** Rows of the largest batch that is timed (estimate.ts). */
const MOST_PROBED = 1024;

/**
 * The architecture's own parameters: its start, and thresholds that give the L0 of the run on the
 * sample, where no other start was asked for or found in the autoencoder to start from.
 */
async function startThresholds(
  { engine, collective, config, spec, shard }: RunPlan,
  { params }: State,
  initial: FoundSae | undefined,
  sample: Float32Array,
  hyper: Hyper0,
): Promise<void> {
  const there = initial === undefined ? [] : paramsOf(initial.description.spec);
  const begin = architectureNamed(spec.architecture).start?.(config) ?? {};
  for (const [name, , tensor] of paramEntries(params)) {
    const values = begin[name];
    if (values !== undefined) writeReals(engine, tensor, Float64Array.from(values));
  }
  const { dims } = shard;
  const calibrated = async (l0: number): Promise<number> => {
    const inputs = dims.untied === true ? splitSample(sample, dims).x : sample;
    const rows = await fromFirst(collective, async () => Array.from(inputs.subarray(0, CALIBRATION_ROWS * dims.dIn)));
    return calibratedThreshold(engine, params, shard, Float32Array.from(rows), l0, { ...hyper, rows: 0 });
  };
  for (const name of ["threshold", "cut"] as const) {
    const tensor = params[name];
    if (tensor === undefined) continue;
    if (name === "cut" && config.thresholdFrom === "zero") {
      writeReals(engine, tensor, new Float64Array(1));
      continue;
    }
    // A file may have a threshold of BatchTopK that was never set.
    const isSetThere = there.includes(name) && (name !== "cut" || isSet(await readReals(engine, tensor)));
    if (isSetThere) continue;
    const fixed = name === "threshold" ? config.initialThreshold : undefined;
    const l0 = spec.architecture === "jumprelu" ? spec.targetL0 || DEFAULT_L0 : spec.k;
    // A new BatchTopK run sets its own threshold in the first step.
    if (name === "cut" && initial === undefined) continue;
    const value = typeof fixed === "number" ? fixed : await calibrated(l0);
    writeReals(engine, tensor, new Float64Array(tensor.shape[0]!).fill(value));
  }
}

type Hyper0 = Omit<Hyper, "rows">;

/** Rows of the sample that thresholds are calibrated on. */
const CALIBRATION_ROWS = 1024;
/** Where no L0 is asked for. */
const DEFAULT_L0 = 64;

/** What rounding to 16 bits may do to a norm of 1. */
const UNIT = 0.01;

/** Smallest and largest norm of the rows [n,d]. */
function rowNorms(values: Float32Array | Float64Array, d: number): readonly [number, number] {
  let [least, most] = [Number.POSITIVE_INFINITY, 0];
  for (let start = 0; start < values.length; start += d) {
    let square = 0;
    for (let i = start; i < start + d; i++) square += values[i]! * values[i]!;
    [least, most] = [Math.min(least, square), Math.max(most, square)];
  }
  return [Math.sqrt(least), Math.sqrt(most)];
}

/** Seconds of the run's steps and evaluations. */
function secondsOf({ config, choice, steps, budget }: RunPlan, pace: Pace): number {
  const heldOut = countRows(choice.holdout);
  const evaluations = config.evalEvery > 0 ? Math.ceil(steps / config.evalEvery) : 1;
  return secondsFor(pace, steps, Math.min(config.batch, budget), evaluations, Math.min(MOST_ROWS, heldOut));
}

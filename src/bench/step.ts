/** The time of the whole training step, as `train` runs it, on rows of noise. */

import type { Engine, State, Tensor } from "../engine/engine.ts";
import { readNumbers } from "../engine/numbers.ts";
import { type EngineName, type SelectOptions, selectEngine } from "../engine/select.ts";
import { namedSums } from "../engine/sums.ts";
import { tiedStart } from "../sae/init.ts";
import { CORE_PARAMS } from "../sae/params.ts";
import { trainingSelections } from "../train/rank-shard.ts";
import { allocState, writeReals } from "../train/state.ts";
import { createTrainStep, type TrainStep } from "../train/step.ts";
import { bytesOf, uint32Of } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { cpuPerWall, median, type Sample } from "./statistics.ts";
import {
  agesOf,
  DEAD_AFTER,
  DEAD_EVERY,
  drawRows,
  heavyLatents,
  heldBack,
  type Situation,
  shardOf,
  type TopkSizes,
} from "./workload.ts";

export interface StepOptions {
  readonly sizes: TopkSizes;
  readonly batch: number;
  /** How long to count; at least MIN_STEPS steps are. Default 6. */
  readonly seconds?: number | undefined;
  readonly engine?: EngineName | undefined;
  readonly threads?: number | undefined;
  readonly dtype?: SelectOptions["dtype"];
  readonly onNote?: ((note: string) => void) | undefined;
}

export interface StepTime {
  readonly sizes: TopkSizes;
  readonly batch: number;
  readonly engine: string;
  readonly steps: number;
  /** Latents that were dead in the last step. */
  readonly dead: number;
  /** Medians over the counted steps. */
  readonly millisecondsPerStep: number;
  readonly rowsPerSecond: number;
  /** CPU time over wall time: about 1 in a run whose two threads shared one processor. */
  readonly cpuPerWall: number;
}

/** One step's time, and how many latents were dead in it. */
export interface StepSample extends Sample {
  readonly dead: number;
}

const WARM_UP = 2;
const MIN_STEPS = 5;

/** So small a learning rate leaves the weights, and with them what is selected, as they are. */
export const BENCH_HYPER = {
  lr: 1e-5,
  beta1: 0.9,
  beta2: 0.999,
  eps: 1e-8,
  clip: 0,
  emaDecay: 0,
  mseScale: 1,
  auxCoef: 1 / 32,
  deadAfter: DEAD_AFTER,
  firedAbove: 1e-3,
};

/**
 * Times steps of `batch` rows that are in the engine's memory already. Throws UsageError when k is
 * more than n, SaettaError when the engine cannot run the shape.
 */
export async function timeStep({
  sizes,
  batch,
  seconds = 6,
  engine: name = "auto",
  ...options
}: StepOptions): Promise<StepTime> {
  if (sizes.k > sizes.n)
    throw new UsageError(`--k ${sizes.k} is more than the ${sizes.n} latents`, {
      mend: "lower --k or raise --latents",
    });
  await using engine = await selectEngine(name, options);
  const bench = new StepBench(engine, sizes, batch);
  bench.enter(sizes.auxk, { name: "noise", deadEvery: DEAD_EVERY, skewed: false });
  for (let i = 0; i < WARM_UP; i++) await bench.step();
  const samples: StepSample[] = [];
  const began = performance.now();
  while (samples.length < MIN_STEPS || performance.now() - began < seconds * 1000) samples.push(await bench.step());
  const middle = median(samples.map(({ ms }) => ms));
  return {
    sizes,
    batch,
    engine: engine.description,
    steps: samples.length,
    dead: samples[samples.length - 1].dead,
    millisecondsPerStep: middle,
    rowsPerSecond: (batch / middle) * 1000,
    cpuPerWall: cpuPerWall(samples),
  };
}

/**
 * Steps of one engine in several situations, in any order, on the same memory. It gives nothing
 * back: the engine does, when it is closed.
 */
export class StepBench {
  /** What the steps change: parameters, moments, ages. */
  readonly state: State;
  readonly #engine: Engine;
  readonly #sizes: TopkSizes;
  readonly #batch: number;
  readonly #start: { readonly encoder: Float32Array; readonly decoder: Float32Array };
  readonly #raw: Tensor;
  readonly #rows: Uint32Array;
  readonly #steps = new Map<number, TrainStep>();
  readonly #drawn = new Map<string, { readonly encoder: Float32Array; readonly raw: Float32Array }>();
  #current: TrainStep | undefined;

  /**
   * Throws SaettaError when the engine cannot run the shape; `start` (default: drawn) can be shared
   * among benches of one shape.
   */
  constructor(engine: Engine, sizes: TopkSizes, batch: number, start = tiedStart(shardOf(sizes).dims, 0)) {
    const shard = shardOf(sizes);
    const refusal = engine.refuses(shard.dims, trainingSelections(shard));
    if (refusal !== undefined)
      throw new SaettaError(`the ${engine.name} engine cannot run this: ${refusal}`, { mend: "lower --latents" });
    this.#engine = engine;
    this.#sizes = sizes;
    this.#batch = batch;
    this.#start = start;
    this.state = allocState(engine, shard.dims, CORE_PARAMS, false);
    writeReals(engine, this.state.params.decoder, start.decoder);
    this.#raw = engine.alloc("f32", [batch, sizes.d]);
    this.#rows = Uint32Array.from({ length: batch }, (_, row) => row);
  }

  /**
   * Weights, ages and rows of the situation. The first step after it is not like the others: caches
   * are cold, and what an engine keeps of the weights is stale.
   */
  enter(auxk: number, situation: Situation): void {
    const { n, d } = this.#sizes;
    let drawn = this.#drawn.get(situation.name);
    if (drawn === undefined) {
      const { encoder, decoder } = this.#start;
      drawn = { encoder: heldBack(encoder, d, situation), raw: drawRows(this.#sizes, this.#batch, situation, decoder) };
      this.#drawn.set(situation.name, drawn);
    }
    writeReals(this.#engine, this.state.params.encoder, drawn.encoder);
    this.#engine.write(this.state.age, bytesOf(agesOf(n, situation)));
    this.#engine.write(this.#raw, bytesOf(drawn.raw));
    this.#current =
      this.#steps.get(auxk) ??
      createTrainStep(this.#engine, { shard: shardOf({ ...this.#sizes, auxk }), rows: this.#batch });
    this.#steps.set(auxk, this.#current);
  }

  /** One step, from the call to the end of its last operation. */
  async step(): Promise<StepSample> {
    const step = this.#entered();
    const cpu = process.cpuUsage();
    const began = performance.now();
    step.run(this.state, this.#raw, this.#rows, { ...BENCH_HYPER, rows: this.#batch }, false);
    await this.#engine.read(step.step.bad);
    const ms = performance.now() - began;
    const { user, system } = process.cpuUsage(cpu);
    const sums = namedSums(await readNumbers(this.#engine, step.step.sums));
    return { ms, cpuMs: (user + system) / 1000, dead: sums.dead };
  }

  /**
   * Milliseconds a step of `count` steps in a row, none of which is waited for but the last: what
   * an engine with its own queue sustains.
   */
  async steps(count: number): Promise<number> {
    const step = this.#entered();
    const began = performance.now();
    for (let i = 0; i < count; i++)
      step.run(this.state, this.#raw, this.#rows, { ...BENCH_HYPER, rows: this.#batch }, false);
    await this.#engine.read(step.step.bad);
    return (performance.now() - began) / count;
  }

  /**
   * The share of the batch's rows that each of the heavy latents was active on in the last step;
   * the least of them.
   */
  async heavyShare(): Promise<number> {
    const { n } = this.#sizes;
    const latents = uint32Of(await this.#engine.read(this.#engine.pairs(this.#entered().live.codes).latent));
    const rows = new Uint32Array(n);
    for (const latent of latents) if (latent < n) rows[latent]++;
    return Math.min(...heavyLatents(n).map((latent) => rows[latent])) / this.#batch;
  }

  #entered(): TrainStep {
    if (this.#current === undefined) throw new Error("a step before a situation was entered");
    return this.#current;
  }
}

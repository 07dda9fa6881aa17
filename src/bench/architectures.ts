/**
 * The time of the training step of each architecture, on rows of noise that are in the engine's
 * memory already.
 */

import type { Engine, Hyper, State, Tensor } from "../engine/engine.ts";
import { type ArchitectureSpec, architectureNamed, rulesOf } from "../sae/architectures/index.ts";
import { paramNames } from "../sae/description.ts";
import { autoencoderDims, transcoderDims } from "../sae/dims.ts";
import { tiedStart } from "../sae/init.ts";
import { NO_NORMALIZATION } from "../sae/math.ts";
import { paramEntries } from "../sae/params.ts";
import { rankShard, trainingSelections } from "../train/rank-shard.ts";
import { allocState, calibratedThreshold, writeReals } from "../train/state.ts";
import { createTrainStep, type TrainStep } from "../train/step.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { BENCH_HYPER } from "./step.ts";
import { drawRows } from "./workload.ts";

/** What is timed. */
export interface TimedArchitecture {
  readonly name: string;
  readonly architecture: ArchitectureSpec["architecture"];
  /** Options of `saetta train` that are not the default. */
  readonly options?: Readonly<Record<string, unknown>>;
  /** A transcoder with targets of the same width, and a skip connection. */
  readonly transcoder?: boolean;
}

/**
 * To a mean norm of sqrt(d), as the default `--normalize scale` does: how many latents are within
 * the window around a threshold depends on it.
 */
function scaleRows(x: Float32Array, d: number): void {
  let norms = 0;
  for (let at = 0; at < x.length; at += d) norms += Math.hypot(...x.subarray(at, at + d));
  const factor = (Math.sqrt(d) * x.length) / d / norms;
  for (let i = 0; i < x.length; i++) x[i]! *= factor;
}

/** Rows that thresholds are calibrated on. */
const CALIBRATION_ROWS = 1024;

/** Steps of one architecture on one engine, whose memory they keep until it is closed. */
export class ArchitectureBench {
  readonly name: string;
  readonly #engine: Engine;
  readonly #batch: number;
  readonly #state: State;
  readonly #raw: Tensor;
  readonly #rows: Uint32Array;
  readonly #step: TrainStep;
  readonly #hyper: Hyper;

  private constructor(
    name: string,
    engine: Engine,
    batch: number,
    state: State,
    raw: Tensor,
    step: TrainStep,
    hyper: Hyper,
  ) {
    this.name = name;
    this.#engine = engine;
    this.#batch = batch;
    this.#state = state;
    this.#raw = raw;
    this.#rows = Uint32Array.from({ length: batch }, (_, row) => row);
    this.#step = step;
    this.#hyper = hyper;
  }

  /** Throws SaettaError where the engine cannot run it. No auxiliary loss. */
  static async create(
    engine: Engine,
    { name, architecture, options = {}, transcoder = false }: TimedArchitecture,
    { d, n, batch }: { readonly d: number; readonly n: number; readonly batch: number },
  ): Promise<ArchitectureBench> {
    const kind = architectureNamed(architecture);
    const all = { ...kind.defaults, auxk: 0, deadPenalty: 0, ...options };
    const spec = kind.spec(all, n);
    const shard = rankShard(transcoder ? transcoderDims(d, n, d) : autoencoderDims(d, n), rulesOf(spec));
    const refusal = engine.refuses(shard.dims, trainingSelections(shard));
    if (refusal !== undefined) throw new SaettaError(`the ${engine.name} engine cannot run ${name}: ${refusal}`);
    const state = allocState(engine, shard.dims, paramNames({ spec, skip: transcoder }), false);
    const start = tiedStart(shard.dims, 0);
    writeReals(engine, state.params.encoder, start.encoder);
    writeReals(engine, state.params.decoder, start.decoder);
    const x = drawRows({ d, n, k: 32, auxk: 0 }, batch, { name: "noise", deadEvery: 0, skewed: false }, start.decoder);
    scaleRows(x, d);
    const width = transcoder ? 2 * d : d;
    const raw = engine.alloc("f32", [batch, width]);
    const rows = new Float32Array(batch * width);
    for (let row = 0; row < batch; row++) {
      rows.set(x.subarray(row * d, (row + 1) * d), row * width);
      if (transcoder) rows.set(x.subarray(row * d, (row + 1) * d), row * width + d);
    }
    engine.write(raw, bytesOf(rows));
    const numbers = {
      ...kind.hyper?.(all, spec as never),
      ...kind.stepHyper?.(all, { step: 1, steps: 100, rows: batch }),
    };
    const hyper: Hyper = { ...BENCH_HYPER, ...numbers, gain: 0, rows: batch, unitRows: transcoder ? 0 : 1 };
    for (const [name, , tensor] of paramEntries(state.params)) {
      const values = kind.start?.(all)[name];
      if (values !== undefined) writeReals(engine, tensor, Float64Array.from(values));
    }
    if (state.params.threshold !== undefined && spec.architecture === "jumprelu") {
      const sample = x.subarray(0, Math.min(batch, CALIBRATION_ROWS) * d);
      const threshold = await calibratedThreshold(engine, state.params, shard, sample, spec.targetL0, hyper);
      writeReals(engine, state.params.threshold, new Float64Array(n).fill(threshold));
    }
    const target = transcoder ? NO_NORMALIZATION : undefined;
    const step = createTrainStep(engine, { shard, rows: batch, target, skip: transcoder });
    const bench = new ArchitectureBench(name, engine, batch, state, raw, step, hyper);
    await bench.#settle();
    return bench;
  }

  /** Milliseconds per step of `count` steps in a row, of which only the last is waited for. */
  async steps(count: number): Promise<number> {
    const began = performance.now();
    for (let i = 0; i < count; i++) this.#step.run(this.#state, this.#raw, this.#rows, this.#hyper, false);
    const { full, bad } = await this.#step.verdict();
    const ms = (performance.now() - began) / count;
    if (full || bad) throw new SaettaError(`a step of ${this.name} was ${full ? "without room" : "not finite"}`);
    return ms;
  }

  /** Rows per second at so many milliseconds per step. */
  rate(ms: number): number {
    return (1000 * this.#batch) / ms;
  }

  /** Runs a step until its rows fit their codes. */
  async #settle(): Promise<void> {
    this.#step.run(this.#state, this.#raw, this.#rows, this.#hyper, false);
    while ((await this.#step.verdict()).full) this.#step.again(this.#state, this.#hyper, false);
    await this.#engine.read(this.#step.step.bad);
  }
}

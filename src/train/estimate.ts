/**
 * How long a run will take: a few of its own steps, timed before it starts, on the state that is
 * then put back as it was.
 */

import type { Engine, Hyper, Params, State, Tensor } from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { NO_NORMALIZATION } from "../sae/math.ts";
import { paramEntries } from "../sae/params.ts";
import { BYTES, bytesOf } from "../util/bytes.ts";
import type { RankShard } from "./rank-shard.ts";
import { createTrainStep } from "./step.ts";

/** Seconds on the machine as it is now. */
export interface Pace {
  /** Of a step, without dead latents (each auxiliary branch costs more once there are some). */
  readonly step: number;
  /** Of a batch that is only encoded and decoded, as in an evaluation. */
  readonly forward: number;
}

/**
 * Large batches are timed at these two sizes, and what they take is drawn out in a straight line:
 * the update costs the same for any batch.
 */
const PROBES = [512, 1024] as const;
/**
 * Timing of a size ends after so many steps, the first apart, or as soon as it has taken so long.
 */
const STEPS = 3;
const MOST_MS = 500;

/**
 * Times steps on rows of the sample [rows, d] from the state of step 0 (parameters set, the rest
 * 0), on the run's own engine and shape, and puts that state back bit by bit: the run that follows
 * is the same as without.
 */
export async function timeSteps(
  engine: Engine,
  shard: RankShard,
  state: State,
  sample: Float32Array,
  batch: number,
  hyper: Omit<Hyper, "rows">,
): Promise<Pace> {
  const params = tensorsOf(state.params);
  const before = await Promise.all(params.map((tensor) => engine.read(tensor)));
  try {
    const [small, large] = PROBES;
    if (batch <= large) return await timeBatch(engine, shard, state, sample, batch, hyper);
    const [a, b] = [
      await timeBatch(engine, shard, state, sample, small, hyper),
      await timeBatch(engine, shard, state, sample, large, hyper),
    ];
    const far = (batch - small) / (large - small);
    const drawnOut = (from: number, to: number) => from + far * Math.max(0, to - from);
    return { step: drawnOut(a.step, b.step), forward: drawnOut(a.forward, b.forward) };
  } finally {
    for (const [i, tensor] of params.entries()) engine.write(tensor, before[i]!);
    for (const tensor of [
      ...tensorsOf(state.m),
      ...tensorsOf(state.v),
      ...tensorsOf(state.ema),
      state.age,
      state.counters,
    ])
      clear(engine, tensor);
  }
}

async function timeBatch(
  engine: Engine,
  shard: RankShard,
  state: State,
  sample: Float32Array,
  batch: number,
  hyper: Omit<Hyper, "rows">,
): Promise<Pace> {
  const { dims, inference } = shard;
  // The sample is normalised already, inputs and targets.
  const d = dims.dIn + (dims.untied === true ? dims.dOut : 0);
  const target = dims.untied === true ? NO_NORMALIZATION : undefined;
  const skip = state.params.skip !== undefined;
  const kept = Math.min(sample.length / d, batch);
  const index = Uint32Array.from({ length: batch }, (_, row) => row % kept);
  const raw = engine.alloc("f32", [kept, d]);
  // A threshold that is not set yet would let every latent through.
  const live = state.params.cut === undefined ? inference : shard.live;
  const pass = new ForwardPass(engine, { rows: batch, dims, live, target });
  const step = createTrainStep(engine, { shard, rows: batch, target, skip });
  const numbers = { ...hyper, rows: batch };
  engine.write(raw, bytesOf(sample.subarray(0, kept * d)));
  pass.prepare(numbers, index);
  const took = async (t: typeof step.step, work: () => void): Promise<number> => {
    const began = performance.now();
    work();
    await engine.read(t.bad);
    return (performance.now() - began) / 1000;
  };
  try {
    // The first step touches all memory for the first time.
    const times: number[] = [];
    for (let spent = 0; times.length <= STEPS && 1000 * spent < MOST_MS; spent += times.at(-1)!) {
      times.push(await took(step.step, () => step.run(state, raw, index, numbers, hyper.clip > 0)));
      while ((await step.verdict()).full) step.again(state, numbers, hyper.clip > 0);
    }
    await pass.encodeFitting(state.params, raw);
    await engine.read(pass.step.bad);
    const forward = await took(pass.step, () => {
      pass.encode(state.params, raw);
      pass.decode(state.params);
      pass.residual(state.params);
    });
    return { step: Math.min(...times), forward };
  } finally {
    step.close();
    pass.close();
    engine.free(raw);
  }
}

function tensorsOf(params: Params | undefined): Tensor[] {
  return params === undefined ? [] : paramEntries(params).map(([, , tensor]) => tensor);
}

const ZEROS = new Uint8Array(4 * 2 ** 20);

function clear(engine: Engine, tensor: Tensor): void {
  const bytes = tensor.shape.reduce((product, size) => product * size, 1) * BYTES[tensor.dtype];
  for (let at = 0; at < bytes; at += ZEROS.length)
    engine.write(tensor, ZEROS.subarray(0, Math.min(ZEROS.length, bytes - at)), at);
}

/** What a run will take, as it was estimated before it began. */
export interface Forecast {
  /** Bytes that it will hold at most, and that the system can give. */
  readonly memory: { readonly needed: number; readonly free: number };
  /** Of the steps and evaluations to come; undefined where nothing was timed. */
  readonly seconds: number | undefined;
}

/**
 * Seconds of `steps` steps with `evaluations` of `heldOut` rows each. Reading goes on meanwhile and
 * checkpoints are not counted.
 */
export function secondsFor(pace: Pace, steps: number, batch: number, evaluations: number, heldOut: number): number {
  return steps * pace.step + evaluations * (heldOut / batch) * pace.forward;
}

/** How long a run will take: a few of its own steps, timed before it starts, on the state that is then put back as it was. */

import {
  BYTES,
  type Engine,
  type Hyper,
  PARAM_NAMES,
  type Params,
  type Shape,
  type State,
  type Tensor,
} from "../engine/engine.ts";
import { bytesOf } from "../util/bytes.ts";
import { createTrainStep } from "./step.ts";

/** Seconds on the machine as it is now. */
export interface Pace {
  /** Of a step, without dead latents (each auxiliary path costs more once there are some). */
  readonly step: number;
  /** Of a batch that is only encoded and decoded, as in an evaluation. */
  readonly forward: number;
}

/** Large batches are timed at these two sizes, and what they take is drawn out in a straight line: the update costs the same for any batch. */
const PROBES = [512, 1024] as const;
/** Timing of a size ends after so many steps, the first apart, or as soon as it has taken so long. */
const STEPS = 3;
const MOST_MS = 500;

/**
 * Times steps on rows of the sample [rows, d] from the state of step 0 (parameters set, the rest 0), on the run's own engine and shape, and puts that state back bit by
 * bit: the run that follows is the same as without.
 */
export async function timeSteps(
  engine: Engine,
  shape: Shape,
  state: State,
  sample: Float32Array,
  batch: number,
  hyper: Omit<Hyper, "rows">,
): Promise<Pace> {
  const before = await Promise.all(PARAM_NAMES.map((name) => engine.read(state.params[name])));
  try {
    const [small, large] = PROBES;
    if (batch <= large) return await timeBatch(engine, shape, state, sample, batch, hyper);
    const [a, b] = [
      await timeBatch(engine, shape, state, sample, small, hyper),
      await timeBatch(engine, shape, state, sample, large, hyper),
    ];
    const far = (batch - small) / (large - small);
    const drawnOut = (from: number, to: number) => from + far * Math.max(0, to - from);
    return { step: drawnOut(a.step, b.step), forward: drawnOut(a.forward, b.forward) };
  } finally {
    for (const [i, name] of PARAM_NAMES.entries()) engine.write(state.params[name], before[i]!);
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
  shape: Shape,
  state: State,
  sample: Float32Array,
  batch: number,
  hyper: Omit<Hyper, "rows">,
): Promise<Pace> {
  const { d, k } = shape;
  const kept = Math.min(sample.length / d, batch);
  const index = Uint32Array.from({ length: batch }, (_, row) => row % kept);
  const raw = engine.alloc("f32", [kept, d]);
  const rows = engine.alloc("u32", [batch]);
  const x = engine.alloc(engine.real, [batch, d]);
  const path = { codes: engine.codes(batch, k), err: engine.alloc(engine.real, [batch, d]) };
  const ops = createTrainStep(engine, shape, batch);
  engine.write(raw, bytesOf(sample.subarray(0, kept * d)));
  engine.write(rows, bytesOf(index));
  const took = async (work: () => void): Promise<number> => {
    const began = performance.now();
    work();
    await engine.read(ops.step.bad);
    return (performance.now() - began) / 1000;
  };
  try {
    // The first step touches all memory for the first time.
    const times: number[] = [];
    for (let spent = 0; times.length <= STEPS && 1000 * spent < MOST_MS; spent += times.at(-1)!) {
      times.push(await took(() => ops.run(state, raw, index, { ...hyper, rows: batch }, hyper.clip > 0)));
    }
    const forward = await took(() => {
      engine.load(raw, rows, x, ops.step);
      engine.encode(state.params, x, ops.step, path.codes);
      engine.decode(state.params, path.codes, path.err);
      engine.residual(state.params, x, ops.step, path);
    });
    return { step: Math.min(...times), forward };
  } finally {
    ops.close();
    for (const each of [raw, rows, x, path.codes, path.err]) engine.free(each);
  }
}

function tensorsOf(params: Params | undefined): Tensor[] {
  return params === undefined ? [] : PARAM_NAMES.map((name) => params[name]);
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

/** Seconds of `steps` steps with `evaluations` of `heldOut` rows each. Reading goes on meanwhile and checkpoints are not counted. */
export function secondsFor(pace: Pace, steps: number, batch: number, evaluations: number, heldOut: number): number {
  return steps * pace.step + evaluations * (heldOut / batch) * pace.forward;
}

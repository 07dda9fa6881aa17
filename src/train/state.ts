/** All that training changes: its memory, and its start. */

import type { Fold } from "../checkpoint/fold.ts";
import { allocParams, freeParams } from "../engine/allocate.ts";
import {
  COUNTERS,
  type Engine,
  type Hyper,
  type Over,
  type Params,
  type State,
  type Tensor,
} from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { allocNumbers } from "../engine/numbers.ts";
import type { Dims } from "../sae/dims.ts";
import { tiedStart, unitProbes } from "../sae/init.ts";
import { type ParamName, paramEntries } from "../sae/params.ts";
import { slotsFor } from "../sae/rule.ts";
import { BYTES, bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import type { RankShard } from "./rank-shard.ts";

/** Zero-filled state of the parameters `names`; `ema` only when an average is kept. */
export function allocState(engine: Engine, dims: Dims, names: readonly ParamName[], ema: boolean): State {
  const params = () => allocParams(engine, dims, names);
  return {
    params: params(),
    m: params(),
    v: params(),
    ...(ema ? { ema: params() } : {}),
    age: engine.alloc("u32", [dims.n]),
    counters: allocNumbers(engine, COUNTERS.length),
  };
}

export function freeState(engine: Engine, { params, m, v, ema, age, counters }: State): void {
  for (const group of [params, m, v, ema]) if (group) freeParams(engine, group);
  engine.free(age);
  engine.free(counters);
}

/** Writes numbers into a tensor of the engine's `real`. */
export function writeReals(engine: Engine, tensor: Tensor, values: Float32Array | Float64Array): void {
  const same = values instanceof Float64Array === (tensor.dtype === "f64");
  engine.write(
    tensor,
    bytesOf(same ? values : tensor.dtype === "f64" ? Float64Array.from(values) : Float32Array.from(values)),
  );
}

/** Reads a tensor of the engine's `real`. */
export async function readReals(engine: Engine, tensor: Tensor): Promise<Float32Array | Float64Array> {
  const bytes = await engine.read(tensor);
  return tensor.dtype === "f64" ? float64Of(bytes) : float32Of(bytes);
}

/**
 * The tied start of `sae/init.ts`, with the given pre-bias [dIn]; `dims` are of a shard from latent
 * `firstLatent` on.
 */
export function startParams(
  engine: Engine,
  params: Params,
  dims: Dims,
  seed: number,
  preBias: Float64Array,
  firstLatent = 0,
): void {
  const { encoder, decoder } = tiedStart(dims, seed, firstLatent);
  writeReals(engine, params.encoder, encoder);
  // A transcoder's stays at 0 (`startTranscoder`).
  if (dims.untied !== true) writeReals(engine, params.decoder, decoder);
  writeReals(engine, params.preBias, preBias);
}

/**
 * The start of a transcoder (sparsify), whose decoder starts at 0: b_enc = -W_enc mean(x), so that
 * latents see centred inputs.
 */
export async function startTranscoder(engine: Engine, params: Params, meanX: readonly number[]): Promise<void> {
  const encoder = await readReals(engine, params.encoder);
  const [n, dIn] = params.encoder.shape as [number, number];
  const bias = new Float64Array(n);
  for (let j = 0; j < n; j++) for (let i = 0; i < dIn; i++) bias[j]! -= encoder[j * dIn + i]! * meanX[i]!;
  writeReals(engine, params.latentBias, bias);
}

/**
 * Weights as saved -> as trained: what `scale` divided is multiplied again (checkpoint/fold.ts).
 */
export async function unfold(engine: Engine, params: Params, fold: Fold): Promise<void> {
  for (const [name, , tensor] of paramEntries(params)) {
    if (!fold.folds(name)) continue;
    const divisor = fold.divisor(name);
    const values = await readReals(engine, tensor);
    writeReals(
      engine,
      tensor,
      Float64Array.from(values, (value) => value * divisor),
    );
  }
}

/**
 * Every rank has what the first has: each shard that of replica 0, and pre-bias that of rank 0.
 * What the others had is cleared, and all is summed. What a start computes is the same on the same
 * processors; this makes it so on any.
 */
export function shareState(engine: Engine, { params, m, v, ema, age, counters }: State, { grid }: RankShard): void {
  const groups = [params, m, v, ...(ema === undefined ? [] : [ema])];
  const share = (tensor: Tensor, own: boolean, over: Over) => {
    const bytes = tensor.shape.reduce((product, size) => product * size, BYTES[tensor.dtype]);
    for (let at = 0; !own && at < bytes; at += ZEROS.length)
      engine.write(tensor, ZEROS.subarray(0, Math.min(ZEROS.length, bytes - at)), at);
    engine.allReduce(tensor, "sum", over);
  };
  for (const group of groups) {
    for (const [, { sharded }, tensor] of paramEntries(group)) {
      share(tensor, sharded ? grid.replica === 0 : grid.rank === 0, sharded ? "replicas" : "all");
    }
  }
  share(age, grid.replica === 0, "replicas");
  share(counters, grid.rank === 0, "all");
}

const ZEROS = new Uint8Array(4 * 2 ** 20);

const PROBES = 256;

/**
 * Divides the encoder by the mean norm of the reconstructions (without bias) of 256 random inputs
 * of norm 1 around the pre-bias, so that unit-norm inputs start with unit-norm reconstructions
 * (`init_from_data_` of the reference). Returns that mean norm.
 */
export async function rescaleEncoder(
  engine: Engine,
  params: Params,
  { dims, inference }: RankShard,
  seed: number,
  hyper: Hyper,
): Promise<number> {
  const { dIn } = dims;
  const preBias = await readReals(engine, params.preBias);
  const probes = unitProbes(PROBES, dIn, seed).map((value, at) => value + preBias[at % dIn]!);
  const pass = new ForwardPass(engine, { rows: PROBES, dims, live: inference, raw: "f32" });
  pass.prepare({ ...hyper, rows: PROBES });
  engine.write(pass.raw!, bytesOf(probes));
  pass.encode(params, pass.raw!);
  pass.decode(params);
  const reconstructions = await readReals(engine, pass.live.err);
  pass.close();
  let norms = 0;
  for (let row = 0; row < PROBES; row++) {
    let square = 0;
    for (let i = 0; i < dIn; i++) square += reconstructions[row * dIn + i]! ** 2;
    norms += Math.sqrt(square);
  }
  const mean = norms / PROBES;
  if (!(mean > 0))
    throw new SaettaError("no latent is on for any of the 256 probes, so the encoder cannot be rescaled", {
      mend: "leave out --encoder-rescale",
    });
  const encoder = await readReals(engine, params.encoder);
  writeReals(engine, params.encoder, encoder.map((weight: number) => weight / mean) as Float32Array | Float64Array);
  return mean;
}

/**
 * The threshold above which rows [*, dIn] of the sample, the same on all ranks, have `l0` active
 * latents on average: what BatchTopK would cut at.
 */
export async function calibratedThreshold(
  engine: Engine,
  params: Params,
  { dims, grid }: RankShard,
  sample: Float32Array,
  l0: number,
  hyper: Hyper,
): Promise<number> {
  const rows = sample.length / dims.dIn;
  const rule = { kind: "batchtopk", k: l0 } as const;
  const live = { rule, among: "all", slots: slotsFor(rule, dims.n) } as const;
  const pass = new ForwardPass(engine, { rows, dims, live, raw: "f32" });
  pass.prepare({ ...hyper, rows, kept: Math.floor(l0 * rows * grid.replicas) });
  engine.write(pass.raw!, bytesOf(sample));
  await pass.encodeFitting(params, pass.raw!);
  const [threshold] = await readReals(engine, pass.step.cut);
  pass.close();
  return threshold!;
}

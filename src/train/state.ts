/** All that training changes: its memory, and its start. */

import { FOLDED } from "../checkpoint/fold.ts";
import { allocParams, allocStep, freeStep, writeHyper } from "../engine/allocate.ts";
import {
  BYTES,
  COUNTERS,
  type Engine,
  type Hyper,
  type Over,
  PARAM_NAMES,
  type Params,
  type Shape,
  type State,
  type Tensor,
} from "../engine/engine.ts";
import { tiedStart, unitProbes } from "../sae/init.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import type { Part } from "./part.ts";

/** Zero-filled state; `ema` only when an average is kept. */
export function allocState(engine: Engine, shape: Shape, ema: boolean): State {
  const params = () => allocParams(engine, shape);
  return {
    params: params(),
    m: params(),
    v: params(),
    ...(ema ? { ema: params() } : {}),
    age: engine.alloc("u32", [shape.n]),
    counters: engine.alloc("f64", [COUNTERS.length]),
  };
}

export function freeState(engine: Engine, { params, m, v, ema, age, counters }: State): void {
  for (const group of [params, m, v, ema]) if (group) for (const name of PARAM_NAMES) engine.free(group[name]);
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

/** Reads a tensor of the engine's `real`, or of f64. */
export async function readReals(engine: Engine, tensor: Tensor): Promise<Float32Array | Float64Array> {
  const bytes = await engine.read(tensor);
  return tensor.dtype === "f64" ? float64Of(bytes) : float32Of(bytes);
}

/** The tied start of `sae/init.ts`, with the given pre-bias [d]. `firstLatent`: of a shard. */
export function startParams(
  engine: Engine,
  params: Params,
  shape: Shape,
  seed: number,
  preBias: Float64Array,
  firstLatent = 0,
): void {
  const { encoder, decoder } = tiedStart(shape, seed, firstLatent);
  writeReals(engine, params.encoder, encoder);
  writeReals(engine, params.decoder, decoder);
  writeReals(engine, params.preBias, preBias);
}

/** Weights as saved -> as trained: what `scale` divided is multiplied again (checkpoint/fold.ts). */
export async function unfold(engine: Engine, params: Params, factor: number): Promise<void> {
  for (const name of FOLDED) {
    const values = await readReals(engine, params[name]);
    writeReals(
      engine,
      params[name],
      Float64Array.from(values, (value) => value * factor),
    );
  }
}

/**
 * Every rank has what the first has: each shard that of replica 0, and pre-bias that of rank 0. What the others had is cleared, and all is summed. What a start computes is the same
 * on the same processors; this makes it so on any.
 */
export function shareState(engine: Engine, { params, m, v, ema, age, counters }: State, { grid }: Part): void {
  const groups = [params, m, v, ...(ema === undefined ? [] : [ema])];
  const share = (tensor: Tensor, own: boolean, over: Over) => {
    const bytes = tensor.shape.reduce((product, size) => product * size, BYTES[tensor.dtype]);
    for (let at = 0; !own && at < bytes; at += ZEROS.length)
      engine.write(tensor, ZEROS.subarray(0, Math.min(ZEROS.length, bytes - at)), at);
    engine.allReduce(tensor, "sum", over);
  };
  for (const group of groups) {
    for (const name of ["encoder", "latentBias", "decoder"] as const)
      share(group[name], grid.replica === 0, "replicas");
    share(group.preBias, grid.rank === 0, "all");
  }
  share(age, grid.replica === 0, "replicas");
  share(counters, grid.rank === 0, "all");
}

const ZEROS = new Uint8Array(4 * 2 ** 20);

const PROBES = 256;

/**
 * Divides the encoder by the mean norm of the reconstructions (without bias) of 256 random inputs of norm 1 around the pre-bias, so that unit-norm
 * inputs start with unit-norm reconstructions (`init_from_data_` of the reference). Returns that mean norm. `shape` is of this rank's shard; `k` of all.
 */
export async function rescaleEncoder(
  engine: Engine,
  params: Params,
  shape: Shape,
  seed: number,
  hyper: Hyper,
  k = shape.k,
): Promise<number> {
  const { d } = shape;
  const preBias = await readReals(engine, params.preBias);
  const probes = unitProbes(PROBES, d, seed).map((value, at) => value + preBias[at % d]!);
  const t = allocStep(engine, shape);
  const raw = engine.alloc("f32", [PROBES, d]);
  const rows = engine.alloc("u32", [PROBES]);
  const x = engine.alloc(engine.real, [PROBES, d]);
  const out = engine.alloc(engine.real, [PROBES, d]);
  const codes = engine.codes(PROBES, shape.k);
  writeHyper(engine, t, { ...hyper, rows: PROBES });
  engine.write(raw, bytesOf(probes));
  engine.write(rows, bytesOf(Uint32Array.from({ length: PROBES }, (_, row) => row)));
  engine.load(raw, rows, x, t);
  engine.encode(params, x, t, codes);
  engine.merge(codes, k);
  engine.decode(params, codes, out);
  engine.allReduce(out, "sum", "shards");
  const reconstructions = await readReals(engine, out);
  let norms = 0;
  for (let row = 0; row < PROBES; row++) {
    let square = 0;
    for (let i = 0; i < d; i++) square += reconstructions[row * d + i]! ** 2;
    norms += Math.sqrt(square);
  }
  const mean = norms / PROBES;
  for (const each of [raw, rows, x, out, codes]) engine.free(each);
  freeStep(engine, t);
  if (!(mean > 0))
    throw new SaettaError("no latent is on for any of the 256 probes, so the encoder cannot be rescaled", {
      mend: "leave out --encoder-rescale",
    });
  const encoder = await readReals(engine, params.encoder);
  writeReals(engine, params.encoder, encoder.map((weight: number) => weight / mean) as Float32Array | Float64Array);
  return mean;
}

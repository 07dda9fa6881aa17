/**
 * THE TABLE of parameters. Memory, checkpoints, conversion between formats, the update and the
 * split over shards all follow it: a new parameter is one more line here.
 */

import type { Dims } from "./dims.ts";

export interface ParamSpec {
  /** Name of the tensor in `sae.safetensors`, which has sparsify's layout. */
  readonly file: string;
  readonly shape: (dims: Dims) => readonly number[];
  /**
   * One row per latent, so that each shard holds the rows of its own latents. Otherwise all ranks
   * hold the same.
   */
  readonly sharded: boolean;
  /**
   * How `update` changes it. "adam, unit rows": where hyper.unitRows is 1 the gradient is
   * projected, and rows have norm 1 after the update. A parameter without a gradient stays as it
   * is.
   */
  readonly update: "adam" | "adam, unit rows" | "running mean" | "controller";
}

/** In the order in which files hold them. An architecture lists those that it has. */
export const PARAMS = {
  encoder: { file: "encoder.weight", shape: ({ dIn, n }) => [n, dIn], sharded: true, update: "adam" },
  latentBias: { file: "encoder.bias", shape: ({ n }) => [n], sharded: true, update: "adam" },
  /** W_dec transposed: one row per latent. */
  decoder: { file: "W_dec", shape: ({ n, dOut }) => [n, dOut], sharded: true, update: "adam, unit rows" },
  /** Added to the output and, in an autoencoder, subtracted from the input. */
  preBias: { file: "b_dec", shape: ({ dOut }) => [dOut], sharded: false, update: "adam" },
  /** Of JumpReLU: a latent is on where its pre-activation is above it. */
  threshold: { file: "threshold", shape: ({ n }) => [n], sharded: true, update: "adam" },
  /**
   * Of BatchTopK: running mean of the lowest value kept, the threshold of inference (math.ts,
   * `moveCut`).
   */
  cut: { file: "cut", shape: () => [1], sharded: false, update: "running mean" },
  /**
   * Multiplier of the sparsity coefficient, and the smoothed L0 that moves it (math.ts, `control`).
   */
  sparsity: { file: "sparsity", shape: () => [2], sharded: false, update: "controller" },
  /** Of a transcoder: a linear map from input to output next to the latents. */
  skip: { file: "W_skip", shape: ({ dIn, dOut }) => [dOut, dIn], sharded: false, update: "adam" },
} as const satisfies Readonly<Record<string, ParamSpec>>;

export type ParamName = keyof typeof PARAMS;
/** Every architecture has these. */
export const CORE_PARAMS = ["encoder", "latentBias", "decoder", "preBias"] as const satisfies readonly ParamName[];
export type CoreParam = (typeof CORE_PARAMS)[number];

export function isCoreParam(name: ParamName): name is CoreParam {
  return (CORE_PARAMS as readonly ParamName[]).includes(name);
}

/** One value per parameter of an architecture: a tensor, an array, a shape. */
export type PerParam<T> = { readonly [N in CoreParam]: T } & { readonly [N in Exclude<ParamName, CoreParam>]?: T };

const ORDER = Object.keys(PARAMS) as ParamName[];

/** `make` for each of `names`, in the order of the table. */
export function perParam<T>(names: readonly ParamName[], make: (name: ParamName, spec: ParamSpec) => T): PerParam<T> {
  const entries = ORDER.filter((name) => names.includes(name)).map((name) => [name, make(name, PARAMS[name])]);
  return Object.fromEntries(entries) as PerParam<T>;
}

/** Name, specification and value of each parameter that is there, in the order of the table. */
export function paramEntries<T>(values: PerParam<T>): (readonly [name: ParamName, spec: ParamSpec, value: T])[] {
  return ORDER.flatMap((name) => {
    const value = values[name];
    return value === undefined ? [] : [[name, PARAMS[name], value] as const];
  });
}

/** Elements of the parameters `names` together. */
export function parameterCount(dims: Dims, names: readonly ParamName[]): number {
  return names.reduce((sum, name) => sum + PARAMS[name].shape(dims).reduce((a, b) => a * b, 1), 0);
}

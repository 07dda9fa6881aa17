/**
 * Names and numbers that every engine and its kernels share, each written here and nowhere else.
 * The kernels' headers are made from them (header.ts), so a name that one side lacks does not
 * compile.
 */

import { CONSTANT_ROW, LAYER_NORM_EPS, LEAST_VARIATION, type Normalization, SHORTEST_ROW } from "../../sae/math.ts";

/**
 * Numbers of a step that change from step to step. `clip`, `emaDecay`: 0 is off. `rows`: rows of
 * the global batch. `deadAfter`: a latent is dead when its age as the step begins is above it.
 * `firedAbove`: a selected value above it is a firing.
 */
export const HYPER = [
  "lr",
  "beta1",
  "beta2",
  "eps",
  "clip",
  "emaDecay",
  "mseScale",
  "auxCoef",
  "rows",
  "deadAfter",
  "firedAbove",
] as const;
export type Hyper = { readonly [K in (typeof HYPER)[number]]: number };

/**
 * The order of `sums`, each summed over the batch: squares of err, of the auxiliary err, of x, of x
 * - b_pre; the active latents (L0); the number of dead latents. Then follow d column sums of err
 * and d column sums of x - b_pre.
 */
export const SUMS = ["err2", "auxErr2", "x2", "centred2", "active", "dead"] as const;

/**
 * `adam`: updates applied (Adam's t). `ema`: updates averaged. `skipped`: bad steps, which changed
 * nothing else.
 */
export const COUNTERS = ["adam", "ema", "skipped"] as const;

/** Formats of raw rows. */
export const FORMATS = ["f32", "f64", "f16", "bf16"] as const;
export type Format = (typeof FORMATS)[number];

/** The number that kernels know a format by; -1 where rows cannot be of this type. */
export function formatOf(dtype: string): number {
  return (FORMATS as readonly string[]).indexOf(dtype);
}

export const NORMALIZATIONS = [
  "none",
  "scale",
  "unit",
  "layer_norm",
] as const satisfies readonly Normalization["kind"][];

/** The latent of an unused slot of codes. */
export const NONE = 0xffff_ffff;

/**
 * Gradients beyond this are bad: their squares, which Adam and the norm need, would not fit an f32.
 */
const LARGEST_GRADIENT = 1e18;

/** An enum of the kernels: a number for each name, in order, from 0. */
export interface Enum {
  readonly values: readonly string[];
  /** What stands before each name. Default: nothing. */
  readonly prefix?: string;
  /** A last name for how many there are. */
  readonly count?: string;
}

export const SHARED_ENUMS = {
  Hyper: { values: HYPER, count: "HYPERS" },
  Sum: { values: SUMS, count: "SUMS" },
  Counter: { values: COUNTERS, count: "COUNTERS" },
  Format: { values: FORMATS, prefix: "FORMAT_" },
  Normalization: { values: NORMALIZATIONS, prefix: "NORMALIZE_" },
} as const satisfies Readonly<Record<string, Enum>>;

/** Whole numbers below 2^32 are unsigned there, others float64. */
export const SHARED_CONSTANTS = {
  NONE,
  CONSTANT_ROW,
  LAYER_NORM_EPS,
  SHORTEST_ROW,
  LEAST_VARIATION,
  LARGEST_GRADIENT,
} as const;

/**
 * Names and numbers that every engine and its kernels share, each written here and nowhere else.
 * The kernels' headers are made from them (header.ts), so a name that one side lacks does not
 * compile.
 */

import {
  CONSTANT_ROW,
  CONTROLLER_DAMPING,
  CONTROLLER_MOST,
  CONTROLLER_SMOOTHING,
  CONTROLLER_STEP,
  LAYER_NORM_EPS,
  LEAST_VARIATION,
  NO_LATENT,
  type Normalization,
  PENALTIES,
  SHORTEST_ROW,
} from "../../sae/math.ts";

/**
 * Numbers of a step that change from step to step. `clip`, `emaDecay`: 0 is off. `rows`: rows of
 * the global batch. `deadAfter`: a latent is dead when its age as the step begins is above it.
 * `firedAbove`: a selected value above it is a firing. `unitRows`: 1 keeps decoder rows at norm 1.
 * `rowK`: codes that "topk" among all keeps per row, at most the capacity. `kept`: codes that
 * "batchtopk" keeps of the global batch. `cutDecay`: of `cut`; 1 leaves it. `bandwidth`, `penalty`
 * (number of PENALTIES), `sparsity` (lambda, which the multiplier of the parameter `sparsity` is
 * applied to), `tanhScale`, `targetL0`, `deadPenalty`: of the sparsity loss (math.ts, Sparsity).
 * `gain`: of the controller; 0 is off. `wideCoef`: of multi-TopK, weight of the wide
 * reconstruction's loss next to the live one's; 0 without. `lossScale`: what gradients are
 * multiplied by while they are 16-bit numbers on the wire.
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
  "unitRows",
  "rowK",
  "kept",
  "cutDecay",
  "bandwidth",
  "penalty",
  "sparsity",
  "tanhScale",
  "targetL0",
  "deadPenalty",
  "gain",
  "wideCoef",
  "lossScale",
] as const;
/** What those numbers are that TopK has no use for. */
export const HYPER_DEFAULTS = {
  unitRows: 1,
  rowK: 2 ** 31,
  kept: 0,
  cutDecay: 1,
  bandwidth: 0,
  penalty: 0,
  sparsity: 0,
  tanhScale: 0,
  targetL0: 0,
  deadPenalty: 0,
  gain: 0,
  wideCoef: 0,
  lossScale: 1,
} as const satisfies { readonly [K in (typeof HYPER)[number]]?: number };

export type Hyper = { readonly [K in Exclude<(typeof HYPER)[number], keyof typeof HYPER_DEFAULTS>]: number } & {
  readonly [K in keyof typeof HYPER_DEFAULTS]?: number;
};

/** In the order of HYPER. */
export function hyperValues(hyper: Hyper): readonly number[] {
  const all: Readonly<Record<(typeof HYPER)[number], number>> = { ...HYPER_DEFAULTS, ...hyper };
  return HYPER.map((name) => all[name]);
}

/**
 * The order of `sums`, each summed over the batch: squares of err, of the auxiliary err, of x, of x
 * - b_pre; the active latents (L0); the number of dead latents; tanh(tanhScale f) of the live
 *   values where the penalty is "tanh". Then follow d column sums of the residual and d column sums
 *   of the target - b_dec; with G > 1 prefixes also d column sums of err plane 0, and the squares
 *   of the residual of each prefix but the last.
 */
export const SUMS = ["err2", "auxErr2", "x2", "centred2", "active", "dead", "tanh"] as const;

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
export const NONE = NO_LATENT;

/**
 * Bit of `bad`: a row needs more slots than its codes have. The step changes nothing, and all
 * operations after it change nothing either until `bad` is written.
 */
export const FULL = 0x4000_0000;

/** Bit of `bad`: a gradient times hyper.lossScale did not fit the 16-bit numbers of the wire. */
export const OVERFLOW = 2;

/** 16-bit numbers that ranks can exchange. */
export const NARROW = ["bf16", "fp16"] as const;
export type NarrowType = (typeof NARROW)[number];

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
  Penalty: { values: PENALTIES, prefix: "PENALTY_" },
} as const satisfies Readonly<Record<string, Enum>>;

/** Whole numbers below 2^32 are unsigned there, others float64. */
export const SHARED_CONSTANTS = {
  NONE,
  FULL,
  OVERFLOW,
  CONTROLLER_SMOOTHING,
  CONTROLLER_STEP,
  CONTROLLER_DAMPING,
  CONTROLLER_MOST,
  CONSTANT_ROW,
  LAYER_NORM_EPS,
  SHORTEST_ROW,
  LEAST_VARIATION,
  LARGEST_GRADIENT,
} as const;

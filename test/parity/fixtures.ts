/** What make_fixtures.py wrote down. */

import { readFileSync } from "node:fs";
import { expect } from "vitest";
import type { Hyper, Params } from "../../src/engine/engine.ts";
import { float32Of, float64Of } from "../../src/util/bytes.ts";

export interface Run {
  readonly config: {
    readonly k: number;
    readonly auxk: number;
    readonly lr: number;
    readonly eps: number;
    readonly clip: number | null;
    readonly ema: number | null;
    readonly dead_rows: number;
  };
  readonly steps: readonly {
    readonly mse: number;
    readonly auxkLoss: number;
    readonly loss: number;
    readonly fvu: number;
    readonly l0: number;
    readonly dead: number;
    readonly gradNorm: number;
    readonly age: readonly number[];
    readonly squares: { readonly [K in keyof Params]: number };
  }[];
}

/** What is compared of a step, of each parameter. */
export const KINDS = ["gradient", "weights", "m", "v"] as const;

export interface Start {
  readonly age: readonly number[];
  /** Steps before this one. */
  readonly updates: number;
  /** By float64. */
  readonly loss: number;
  readonly squares: Readonly<Record<string, number>>;
  /**
   * Of float32: |loss - truth|, and for "kind/parameter" the median of |element - truth| over
   * elements whose truth is not 0.
   */
  readonly errors: Readonly<Record<string, number>>;
}

interface Fixtures {
  readonly shape: {
    readonly d: number;
    readonly n: number;
    readonly B: number;
    readonly fullAt: readonly number[];
    readonly mseScale: number;
    readonly auxCoef: number;
    readonly firedAbove: number;
  };
  readonly arrays: Readonly<Record<string, readonly [at: number, length: number]>>;
  readonly runs: Readonly<Record<string, Run>>;
  /** One step from each of the states of `run`, in PyTorch's float64 (the truth) and float32. */
  readonly precision: { readonly run: string; readonly states: readonly Start[] };
}

const folder = new URL("fixtures/", import.meta.url);
export const { shape, arrays, runs, precision } = JSON.parse(
  readFileSync(new URL("parity.json", folder), "utf8"),
) as Fixtures;
const numbers = float64Of(readFileSync(new URL("parity.bin", folder)));
/** The states of precision, one after the other: weights, m and v of each parameter. */
export const states = float32Of(readFileSync(new URL("states.bin", folder)));

export function fixture(name: string): Float64Array {
  const [at, length] = arrays[name] ?? [0, 0];
  if (length === 0) throw new Error(`no array ${name}`);
  return numbers.subarray(at, at + length);
}

/** Relative to the largest number of the array. */
export function near(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): number {
  let largest = 0;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]));
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i] - expected[i]) / (largest || 1);
    if (!(off <= tolerance)) expect.fail(`${what}[${i}] is ${actual[i]}, PyTorch has ${expected[i]}`);
    worst = Math.max(worst, off);
  }
  return worst;
}

/** What a run's steps are told. */
export function hyperOf({ lr, eps, clip, ema, dead_rows }: Run["config"]): Hyper {
  const { mseScale, auxCoef, firedAbove, B } = shape;
  return {
    lr,
    beta1: 0.9,
    beta2: 0.999,
    eps,
    clip: clip ?? 0,
    emaDecay: ema ?? 0,
    mseScale,
    auxCoef,
    rows: B,
    deadAfter: dead_rows,
    firedAbove,
  };
}

/**
 * How far an engine's numbers may be from the reference's: what rounding can do, computed from the
 * data. A sum of products may be off by SLACK units of rounding of the sum of the products'
 * absolute values; the loops of sae/math.ts compute that too, when they are given absolute values.
 */

import * as maths from "../sae/math.ts";
import type { BranchName, CodesName, GuardedStep } from "./conformance-guarded-step.ts";

/**
 * Units of rounding allowed for each absolute value summed. Long sums stay far below: their errors
 * have random signs.
 */
export const SLACK = 16;

/**
 * Roundings to the type that products are computed in, where that is narrower: of both factors and
 * of the result.
 */
export const NARROWINGS = 3;

/**
 * A plain loop: map() with Math.abs takes ten times as long, and most of the time of the cases went
 * there.
 */
export function absolute(a: Float64Array): Float64Array {
  const result = new Float64Array(a.length);
  for (let i = 0; i < a.length; i++) result[i] = Math.abs(a[i]);
  return result;
}

/** |x - b_pre| [B,d]. */
export function centred(x: Float64Array, preBias: Float64Array): Float64Array {
  return x.map((value, e) => Math.abs(value - preBias[e % preBias.length]));
}

/**
 * Weights whose pre-activations of |x - b_pre| are the sums of absolute values of the true ones.
 */
export function absoluteWeights(w: maths.Weights): maths.Weights {
  return {
    encoder: absolute(w.encoder),
    latentBias: absolute(w.latentBias),
    decoder: absolute(w.decoder),
    preBias: new Float64Array(w.preBias.length),
  };
}

/**
 * [B,n] pre-activations of x [B,d], and the sum of absolute values behind each. `aw`:
 * absoluteWeights(w), where they are there already.
 */
export function preActivations(
  w: maths.Weights,
  x: Float64Array,
  aw: maths.Weights = absoluteWeights(w),
): { pre: Float64Array; magnitude: Float64Array } {
  const d = w.preBias.length;
  const n = w.latentBias.length;
  const B = x.length / d;
  const pre = new Float64Array(B * n);
  const magnitude = new Float64Array(B * n);
  const ax = centred(x, w.preBias);
  for (let row = 0; row < B; row++) {
    const part = [row * n, (row + 1) * n] as const;
    maths.preActivations(w, x.subarray(row * d, (row + 1) * d), pre.subarray(...part));
    maths.preActivations(aw, ax.subarray(row * d, (row + 1) * d), magnitude.subarray(...part));
  }
  return { pre, magnitude };
}

/** Codes with absolute values and gradients. */
export function absolutePairs(guarded: GuardedStep, name: CodesName): maths.Pairs {
  return {
    capacity: guarded.setup[name]?.slots ?? 0,
    latent: Uint32Array.from(guarded.get(`${name}.latent`)),
    value: absolute(guarded.get(`${name}.value`)),
    grad: absolute(guarded.get(`${name}.grad`)),
  };
}

/** Sums of absolute values behind each element of err as `decode` leaves it. */
export function decodeMagnitudes(guarded: GuardedStep, branch: BranchName): Float64Array {
  const { prefixes, dims, B } = guarded.setup;
  const magnitude = new Float64Array(guarded.get(`${branch}.err`).length);
  const pairs = absolutePairs(guarded, branch);
  maths.decode(absolute(guarded.get("decoder")), pairs, magnitude, branch === "live" ? prefixes : undefined);
  const { skip } = guarded.weights();
  if (skip !== undefined && branch === "live") {
    const first = magnitude.subarray(0, B * dims.dOut);
    maths.addSkip(absolute(skip), absolute(guarded.get("x")), first, dims.dIn);
  }
  return magnitude;
}

/**
 * The same as `residual` leaves it, and of the live branch the squared residuals of the prefixes
 * but the last. `decoded`: of decode, which is changed.
 */
export function residualMagnitudes(
  guarded: GuardedStep,
  branch: BranchName,
  decoded: Float64Array,
): { readonly err: Float64Array; readonly prefixErr2: Float64Array } {
  if (branch === "dead") {
    maths.deadResidual(absolute(guarded.lastPlane()), decoded);
    return { err: decoded, prefixErr2: new Float64Array(0) };
  }
  const prefixes = guarded.setup.prefixes ?? maths.wholePrefix(guarded.setup.dims.n);
  const weighed = prefixes.map(({ end, weight }) => ({ end, weight: Math.abs(weight) }));
  const negative = guarded.target().map((value) => -Math.abs(value));
  const prefixErr2 = maths.prefixResiduals(weighed, absolute(guarded.get("preBias")), negative, decoded);
  return { err: decoded, prefixErr2 };
}

/**
 * Sums of absolute values behind each element of the gradients, not projected. `sums` have been
 * summed over the batch.
 */
export function gradientMagnitudes(guarded: GuardedStep, sums: maths.Sums): maths.Weights {
  const { hyper, dims, prefixes, B } = guarded.setup;
  const w = guarded.weights();
  const scales = maths.lossScales(sums, hyper.rows, hyper.mseScale, hyper.auxCoef);
  const scaled = (branch: BranchName) => ({
    codes: absolutePairs(guarded, branch),
    err: absolute(guarded.get(`${branch}.err`)),
    scale: scales[branch],
    prefixes: branch === "live" ? prefixes : undefined,
  });
  const g = Object.fromEntries(
    guarded.gradientNames.map((name) => [name, new Float64Array(w[name]!.length)]),
  ) as unknown as maths.Weights;
  // The gradient of b_pre is a difference; with a negative encoder it is the sum of both parts.
  const aw = absoluteWeights(w);
  const turned = { ...aw, encoder: aw.encoder.map((value) => -value) };
  const x = centred(guarded.get("x"), dims.untied ? new Float64Array(dims.dIn) : w.preBias);
  const dead = guarded.dead && scaled("dead");
  const live = scaled("live");
  const ages = guarded.get("age");
  const band = guarded.band && absolutePairs(guarded, "band");
  const sparsity = guarded.sparsity();
  maths.gradients(
    { w: turned, x, planeColumns: absolute(sums.planeColumns), live, dead, untied: dims.untied, band },
    g,
  );
  if (sparsity === undefined) return g;
  // What the sparsity loss adds, each part with the sign that makes it larger.
  const slope = Math.abs(sparsity.coefficient * sparsity.scale) / sparsity.rows;
  const dead1 = hyper.deadPenalty ? hyper.deadPenalty / hyper.rows : 0;
  const columns = new Float64Array(dims.dIn);
  x.forEach((value, e) => {
    columns[e % dims.dIn]! += value;
  });
  const add = (j: number, amount: number, row: (i: number) => number) => {
    g.latentBias[j]! += amount;
    for (let i = 0; i < dims.dIn; i++) {
      g.encoder[j * dims.dIn + i]! += amount * row(i);
      if (!dims.untied) g.preBias[i]! += amount * aw.encoder[j * dims.dIn + i]!;
    }
  };
  maths.eachPair(live.codes, (row, j) => add(j, slope + dead1, (i) => x[row * dims.dIn + i]!));
  for (let j = 0; j < dims.n; j++) {
    if (dead1 === 0 || !maths.isDead(ages[j]!, hyper.deadAfter)) continue;
    add(j, 0, () => 0);
    g.latentBias[j]! += dead1 * B;
    for (let i = 0; i < dims.dIn; i++) {
      g.encoder[j * dims.dIn + i]! += dead1 * columns[i]!;
      if (!dims.untied) g.preBias[i]! += dead1 * B * aw.encoder[j * dims.dIn + i]!;
    }
    if (g.threshold !== undefined) g.threshold[j]! += dead1 * B;
  }
  if (g.threshold !== undefined && band !== undefined) {
    const count = Math.abs(maths.countSlope(sparsity));
    maths.eachPair(band, (_, j, slot) => {
      const each = scales.live * band.grad[slot]! + slope;
      g.threshold![j]! += (Math.abs(w.threshold![j]!) * each + count) / sparsity.bandwidth;
    });
  }
  return g;
}

/** The same after projection of the decoder's rows. */
export function projectedMagnitudes(decoder: Float64Array, magnitudes: maths.Weights, d: number): maths.Weights {
  const projected = magnitudes.decoder.slice();
  for (let start = 0; start < decoder.length; start += d) {
    let dot = 0;
    for (let i = start; i < start + d; i++) dot += Math.abs(decoder[i]) * magnitudes.decoder[i];
    for (let i = start; i < start + d; i++) projected[i] += dot * Math.abs(decoder[i]);
  }
  return { ...magnitudes, decoder: projected };
}

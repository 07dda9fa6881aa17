/**
 * How far an engine's numbers may be from the reference's: what rounding can do, computed from the
 * data. A sum of products may be off by SLACK units of rounding of the sum of the products'
 * absolute values; the loops of sae/math.ts compute that too, when they are given absolute values.
 */

import * as maths from "../sae/math.ts";
import type { GuardedStep } from "./conformance-guarded-step.ts";

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

/** The codes of a branch, with absolute gradients. */
export function absolutePairs(guarded: GuardedStep, branch: "live" | "dead"): maths.Pairs {
  return {
    capacity: guarded.setup[branch]?.slots ?? 0,
    latent: Uint32Array.from(guarded.get(`${branch}.latent`)),
    value: guarded.get(`${branch}.value`),
    grad: absolute(guarded.get(`${branch}.grad`)),
  };
}

/** Sums of absolute values behind each element of the gradients, not projected. */
export function gradientMagnitudes(guarded: GuardedStep, sums: maths.Sums): maths.Weights {
  const { hyper } = guarded.setup;
  const w = guarded.weights();
  const scales = maths.lossScales(sums, hyper.rows, hyper.mseScale, hyper.auxCoef);
  const scaled = (branch: "live" | "dead") => ({
    codes: absolutePairs(guarded, branch),
    err: absolute(guarded.get(`${branch}.err`)),
    scale: scales[branch],
  });
  const g: maths.Weights = {
    encoder: new Float64Array(w.encoder.length),
    latentBias: new Float64Array(w.latentBias.length),
    decoder: new Float64Array(w.decoder.length),
    preBias: new Float64Array(w.preBias.length),
  };
  // The gradient of b_pre is a difference; with a negative encoder it is the sum of both parts.
  const aw = absoluteWeights(w);
  const turned = { ...aw, encoder: aw.encoder.map((value) => -value) };
  const x = centred(guarded.get("x"), w.preBias);
  const dead = guarded.dead && scaled("dead");
  maths.gradients({ w: turned, x, planeColumns: absolute(sums.errColumns), live: scaled("live"), dead }, g);
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

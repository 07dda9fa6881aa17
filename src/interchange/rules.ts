/**
 * An autoencoder evaluated as its file words it, in float64 and plain loops: arrays by the names
 * and in the layout that the file has, flags as its own loader takes them. It shares nothing with
 * the way in (open) and the way out (write) but the reader of the file, so that --verify can tell
 * when these are wrong.
 */

import type { Floats, Rules } from "./format.ts";

export interface RulesOf {
  readonly d: number;
  readonly n: number;
  readonly k: number;
  /** Encoder's weight from input i to latent j, and decoder's from latent j to input i. */
  readonly encoder: (i: number, j: number) => number;
  readonly decoder: (i: number, j: number) => number;
  readonly encoderBias: Floats;
  readonly decoderBias: Floats;
  /** The decoder's bias is taken from the input first. */
  readonly subtract: boolean;
  /** x - mean over std + 1e-5, and times std plus mean on the way out. */
  readonly layerNorm: boolean;
  /** Latents are compared, and given, times the norms of their decoder rows. */
  readonly byNorm: boolean;
}

export function rulesOf(of: RulesOf): Rules {
  const { d, n, k, encoder, decoder, encoderBias, decoderBias } = of;
  const norms = new Float64Array(n).fill(1);
  if (of.byNorm) {
    for (let j = 0; j < n; j++) {
      let square = 0;
      for (let i = 0; i < d; i++) square += decoder(i, j) ** 2;
      norms[j] = Math.sqrt(square);
    }
  }
  return {
    k,
    run(row) {
      let [mean, std] = [0, 1];
      let x = row;
      if (of.layerNorm) {
        mean = row.reduce((sum, value) => sum + value, 0) / d;
        const centred = row.map((value) => value - mean);
        std = Math.sqrt(centred.reduce((sum, value) => sum + value * value, 0) / (d - 1));
        x = centred.map((value) => value / (std + 1e-5));
      }
      if (of.subtract) x = x.map((value, i) => value - decoderBias[i]!);
      const pre = new Float64Array(n);
      for (let j = 0; j < n; j++) {
        let sum = encoderBias[j]!;
        for (let i = 0; i < d; i++) sum += encoder(i, j) * x[i]!;
        pre[j] = sum * norms[j]!;
      }
      const latents = new Float64Array(n);
      const output = Float64Array.from(decoderBias);
      for (const j of highest(pre, k)) {
        latents[j] = Math.max(0, pre[j]!);
        const weight = latents[j] === 0 ? 0 : latents[j]! / norms[j]!;
        for (let i = 0; i < d; i++) output[i]! += weight * decoder(i, j);
      }
      return { latents, output: of.layerNorm ? output.map((value) => value * std + mean) : output };
    },
  };
}

/** The k latents with the highest values. */
function highest(values: Float64Array, k: number): number[] {
  return [...values.keys()].sort((a, b) => values[b]! - values[a]!).slice(0, k);
}

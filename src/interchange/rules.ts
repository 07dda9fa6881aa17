/**
 * An autoencoder or transcoder evaluated as its file words it, in float64 and plain loops: arrays
 * by the names and in the layout that the file has, flags as its own loader takes them. It shares
 * nothing with the way in (open) and the way out (write) but the reader of the file, so that
 * --verify can tell when these are wrong.
 */

import type { Floats, Rules } from "./format.ts";

/** What selects latents in a file. */
export type FileSelects =
  | {
      /** The k highest. */
      readonly kind: "topk";
      readonly k: number;
      /** Those below 0 keep their value where they are among the k highest. Default: they are 0. */
      readonly keepsNegative?: boolean;
    }
  | {
      /** Those above a threshold [n], or one for all; below 0 they are 0. */
      readonly kind: "threshold";
      readonly thresholds: Floats | number;
    };

export interface RulesOf {
  readonly d: number;
  readonly n: number;
  /** Default: d. */
  readonly dOut?: number;
  readonly selects: FileSelects;
  /** Encoder's weight from input i to latent j, and decoder's from latent j to output i. */
  readonly encoder: (i: number, j: number) => number;
  readonly decoder: (i: number, j: number) => number;
  readonly encoderBias: Floats;
  readonly decoderBias: Floats;
  /** The decoder's bias is taken from the input first. */
  readonly subtract: boolean;
  /** x - mean over std + 1e-5, and times std plus mean on the way out. Default: false. */
  readonly layerNorm?: boolean;
  /**
   * Latents are given times the norms of their decoder rows. Among the k highest they are compared
   * so, too; a threshold is compared with them as they were. Default: false.
   */
  readonly byNorm?: boolean;
  /** Weight of a linear map from input i to output o next to the latents. Default: none. */
  readonly skip?: ((i: number, o: number) => number) | undefined;
}

export function rulesOf(of: RulesOf): Rules {
  const { d, n, dOut = d, selects, encoder, decoder, encoderBias, decoderBias, skip } = of;
  const norms = new Float64Array(n).fill(1);
  if (of.byNorm) {
    for (let j = 0; j < n; j++) {
      let square = 0;
      for (let i = 0; i < dOut; i++) square += decoder(i, j) ** 2;
      norms[j] = Math.sqrt(square);
    }
  }
  const selected = selects.kind === "topk" ? highest(selects) : above(selects.thresholds, norms);
  return {
    selects: selects.kind === "topk" ? { kind: "topk", k: selects.k } : { kind: "threshold", of: selected.threshold },
    run(row) {
      let [mean, std] = [0, 1];
      let x = row;
      if (of.layerNorm) {
        mean = row.reduce((sum, value) => sum + value, 0) / d;
        const centred = row.map((value) => value - mean);
        std = Math.sqrt(centred.reduce((sum, value) => sum + value * value, 0) / (d - 1));
        x = centred.map((value) => value / (std + 1e-5));
      }
      const input = x;
      if (of.subtract) x = x.map((value, i) => value - decoderBias[i]!);
      const pre = new Float64Array(n);
      for (let j = 0; j < n; j++) {
        let sum = encoderBias[j]!;
        for (let i = 0; i < d; i++) sum += encoder(i, j) * x[i]!;
        pre[j] = sum * norms[j]!;
      }
      const latents = selected.values(pre);
      const output = Float64Array.from(decoderBias);
      for (const [j, value] of latents.entries()) {
        if (value === 0) continue;
        for (let o = 0; o < dOut; o++) output[o]! += (value / norms[j]!) * decoder(o, j);
      }
      if (skip !== undefined)
        for (let o = 0; o < dOut; o++) for (let i = 0; i < d; i++) output[o]! += skip(i, o) * input[i]!;
      return { latents, output: of.layerNorm ? output.map((value) => value * std + mean) : output };
    },
  };
}

interface Selector {
  /** What latent j must be above. */
  threshold(j: number): number;
  /** Pre-activations [n] times norms to the values of latents [n]. */
  values(pre: Float64Array): Float64Array;
}

function highest({ k, keepsNegative = false }: Extract<FileSelects, { kind: "topk" }>): Selector {
  return {
    threshold: () => 0,
    values(pre) {
      const latents = new Float64Array(pre.length);
      for (const j of [...pre.keys()].sort((a, b) => pre[b]! - pre[a]!).slice(0, k))
        latents[j] = keepsNegative ? pre[j]! : Math.max(0, pre[j]!);
      return latents;
    },
  };
}

function above(thresholds: Floats | number, norms: Float64Array): Selector {
  const threshold = (j: number) => (typeof thresholds === "number" ? thresholds : thresholds[j]!) * norms[j]!;
  return { threshold, values: (pre) => pre.map((value, j) => (value > threshold(j) ? Math.max(0, value) : 0)) };
}

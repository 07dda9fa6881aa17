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
    }
  | {
      /**
       * With s the encoder's product: relu(s e^scale + magnitude) where s + gate is above 0. All
       * [n]. The encoder's bias is not used.
       */
      readonly kind: "gated";
      readonly gate: Floats;
      readonly magnitude: Floats;
      readonly scale: Floats;
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
  /** Rows are times `input` first, reconstructions are divided by `output`. Default: 1. */
  readonly scale?: { readonly input: number; readonly output: number } | undefined;
  /**
   * What is compared is times the norms of the decoder's rows. "latents": the values are, too;
   * "selection": they are not, but those of the k highest are given so here, as Saetta's are.
   * Default: neither.
   */
  readonly byNorm?: "latents" | "selection" | undefined;
  /** Weight of a linear map from input i to output o next to the latents. Default: none. */
  readonly skip?: ((i: number, o: number) => number) | undefined;
}

export function rulesOf(of: RulesOf): Rules {
  const { d, n, dOut = d, selects, encoder, decoder, encoderBias, decoderBias, skip } = of;
  const { input: scaleIn, output: scaleOut } = of.scale ?? { input: 1, output: 1 };
  const norms = new Float64Array(n).fill(1);
  if (of.byNorm !== undefined) {
    for (let j = 0; j < n; j++) {
      let square = 0;
      for (let i = 0; i < dOut; i++) square += decoder(i, j) ** 2;
      norms[j] = Math.sqrt(square);
    }
  }
  const selected = selectorOf(selects, encoderBias, norms);
  // What the value of a latent that is on is times.
  const valueNorm = (j: number) => (of.byNorm === "selection" && selects.kind === "threshold" ? 1 / norms[j]! : 1);
  return {
    selects:
      selects.kind === "topk"
        ? { kind: "topk", k: selects.k }
        : { kind: "threshold", of: (j) => selected.threshold(j) * valueNorm(j) },
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
      x = x.map((value, i) => value * scaleIn - (of.subtract ? decoderBias[i]! : 0));
      const products = new Float64Array(n);
      for (let j = 0; j < n; j++) for (let i = 0; i < d; i++) products[j]! += encoder(i, j) * x[i]!;
      const compared = selected.values(products);
      const output = Float64Array.from(decoderBias);
      for (const [j, value] of compared.entries()) {
        if (value === 0) continue;
        for (let o = 0; o < dOut; o++) output[o]! += (value / norms[j]!) * decoder(o, j);
      }
      for (let o = 0; o < dOut; o++) output[o]! /= scaleOut;
      if (skip !== undefined)
        for (let o = 0; o < dOut; o++) for (let i = 0; i < d; i++) output[o]! += skip(i, o) * input[i]!;
      const latents = compared.map((value, j) => value * valueNorm(j));
      return { latents, output: of.layerNorm ? output.map((value) => value * std + mean) : output };
    },
  };
}

interface Selector {
  /** What latent j must be above. */
  threshold(j: number): number;
  /** Products of the encoder [n] to the values of latents [n], times norms. */
  values(products: Float64Array): Float64Array;
}

function selectorOf(selects: FileSelects, bias: Floats, norms: Float64Array): Selector {
  const pre = (products: Float64Array) => products.map((sum, j) => (sum + bias[j]!) * norms[j]!);
  switch (selects.kind) {
    case "topk":
      return { threshold: () => 0, values: (products) => highest(pre(products), selects) };
    case "threshold": {
      const { thresholds } = selects;
      const threshold = (j: number) => (typeof thresholds === "number" ? thresholds : thresholds[j]!);
      const values = (products: Float64Array) =>
        pre(products).map((value, j) => (value > threshold(j) ? Math.max(0, value) : 0));
      return { threshold, values };
    }
    case "gated": {
      const { gate, magnitude, scale } = selects;
      return {
        threshold: (j) => magnitude[j]! - gate[j]! * Math.exp(scale[j]!),
        values: (products) =>
          products.map((sum, j) => (sum + gate[j]! > 0 ? Math.max(0, sum * Math.exp(scale[j]!) + magnitude[j]!) : 0)),
      };
    }
  }
}

function highest(
  pre: Float64Array,
  { k, keepsNegative = false }: Extract<FileSelects, { kind: "topk" }>,
): Float64Array {
  const latents = new Float64Array(pre.length);
  for (const j of [...pre.keys()].sort((a, b) => pre[b]! - pre[a]!).slice(0, k))
    latents[j] = keepsNegative ? pre[j]! : Math.max(0, pre[j]!);
  return latents;
}

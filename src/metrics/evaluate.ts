/**
 * What an autoencoder is worth on rows that it was not trained on. Every sum is taken here in
 * float64, from the rows and the reconstructions themselves.
 */

import type { Chunk } from "../data/chunks.ts";
import { rowsToFloat32 } from "../data/convert.ts";
import type { RowDType } from "../data/source.ts";
import type { Sae, SparseCodes } from "../inference/sae.ts";
import { DENSITY_UNIT, type DensityBin, densityBins } from "../run-files/density.ts";
import { kOf, rulesOf } from "../sae/architectures/index.ts";
import { targetNormalizationOf } from "../sae/description.ts";
import { type Normalization, normalizeRow } from "../sae/math.ts";
import { float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { Moments } from "./moments.ts";

/**
 * x: a row as in training, normalised where the run normalises (of a transcoder the target);
 * x_hat: its reconstruction; sums run over all rows and columns.
 */
export interface Evaluation {
  readonly rows: number;
  readonly normalization: Normalization["kind"];
  /**
   * sum (x - x_hat)^2 / sum (x - mean of x)^2, the mean per column over these rows; null when all
   * rows are the same.
   */
  readonly fvu: number | null;
  /**
   * FVU of the rows as they are in the activations, normalisation undone; null also where there is
   * none to undo.
   */
  readonly rawFvu: number | null;
  /** sum (x - x_hat)^2 / sum x^2; null when all rows are 0. */
  readonly normalizedMse: number | null;
  /** Mean over all elements of (x_hat - x)^2. */
  readonly mse: number;
  /** Mean number of latents with a value above 0 in a row. */
  readonly l0: number;
  /**
   * The same as training selects them, where inference has another rule: k of BatchTopK; null where
   * the rule is the same.
   */
  readonly l0Training: number | null;
  /**
   * FVU of the reconstruction by the first `latents` alone, of each prefix of a Matryoshka
   * autoencoder, the last of all latents; empty where there are none.
   */
  readonly prefixFvu: readonly { readonly latents: number; readonly fvu: number | null }[];
  readonly latents: number;
  /** Latents with no value above 0 in any of these rows. */
  readonly dead: number;
  readonly deadFraction: number;
  readonly density: readonly DensityBin[];
  readonly densityUnit: typeof DENSITY_UNIT;
}

export interface EvaluateOptions {
  /** Sees every chunk with its codes, in order, and is waited for. */
  readonly onChunk?: (chunk: Chunk, codes: SparseCodes) => void | Promise<void>;
}

/**
 * Reconstructs all rows, which are of `dtype`, and measures. Throws SaettaError when there are
 * none, or a transcoder's have no targets.
 */
export async function evaluate(
  sae: Sae,
  dtype: RowDType,
  chunks: AsyncIterable<Chunk>,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { dOut: d, n, untied = false } = sae.dims;
  const normalization = targetNormalizationOf(sae.description);
  // With "scale" the factor is in the weights, which reconstruct rows as they are.
  const folded = normalization.kind === "scale" ? normalization.factor : 1;
  const { spec } = sae.description;
  const { live, inference, prefixes = [] } = rulesOf(spec);
  const inner = prefixes.slice(0, -1).map(({ end }) => ({ end, err2: 0 }));
  const moments = new Moments(d);
  const rawMoments = new Moments(d);
  const firings = new Float64Array(n);
  let rows = 0;
  let active = 0;
  let err2 = 0;
  let rawErr2 = 0;
  let x2 = 0;
  for await (const chunk of chunks) {
    const { codes, output } = await sae.reconstructRaw(chunk.raw, dtype, chunk.rows, "normalized");
    const wanted = untied ? targetOf(chunk) : chunk.raw;
    const raw = dtype === "f64" ? float64Of(wanted) : rowsToFloat32(wanted, dtype, chunk.rows * d);
    const x = new Float64Array(raw);
    for (let row = 0; row < chunk.rows; row++) normalizeRow(x.subarray(row * d, (row + 1) * d), normalization);
    for (const prefix of inner) {
      const part = await reconstructPrefix(sae, codes, prefix.end, chunk, dtype);
      for (let e = 0; e < x.length; e++) prefix.err2 += (part[e] * folded - x[e]) ** 2;
    }
    for (let row = 0; row < chunk.rows; row++) {
      const part = x.subarray(row * d, (row + 1) * d);
      let square = 0;
      for (let i = 0; i < d; i++) {
        const off = output[row * d + i] * folded - part[i];
        square += off * off;
        x2 += part[i] * part[i];
      }
      err2 += square;
      rawErr2 += square * (codes.rows?.size[row] ?? 1 / folded) ** 2;
    }
    moments.add(x, chunk.rows);
    if (normalization.kind !== "none") rawMoments.add(raw, chunk.rows);
    for (let slot = 0; slot < codes.value.length; slot++) {
      if (!(codes.value[slot] > 0)) continue;
      active++;
      firings[codes.latent[slot]]++;
    }
    rows += chunk.rows;
    await options.onChunk?.(chunk, codes);
  }
  if (rows === 0) throw new SaettaError("there are no rows to evaluate on");
  const dead = firings.reduce((count, times) => count + (times === 0 ? 1 : 0), 0);
  return {
    rows,
    normalization: normalization.kind,
    fvu: ratio(err2, moments.spread),
    rawFvu: normalization.kind === "none" ? null : ratio(rawErr2, rawMoments.spread),
    normalizedMse: ratio(err2, x2),
    mse: err2 / (rows * d),
    l0: active / rows,
    l0Training: live.kind === inference.kind ? null : (kOf(spec) ?? null),
    prefixFvu:
      inner.length === 0
        ? []
        : [...inner, { end: n, err2 }].map((each) => ({ latents: each.end, fvu: ratio(each.err2, moments.spread) })),
    latents: n,
    dead,
    deadFraction: dead / n,
    density: densityBins(firings, rows),
    densityUnit: DENSITY_UNIT,
  };
}

/** The rows as the first `end` latents alone reconstruct them [rows*dOut], in normalised space. */
function reconstructPrefix(
  sae: Sae,
  codes: SparseCodes,
  end: number,
  { raw, rows }: Chunk,
  dtype: RowDType,
): Promise<Float32Array> {
  const value = codes.value.map((each, slot) => (codes.latent[slot]! < end ? each : 0));
  const normalized = codes.rows && { mean: new Float64Array(rows), size: new Float64Array(rows).fill(1) };
  const inputs = sae.hasSkip ? float32RowsOf(raw, dtype, rows * sae.dims.dIn) : undefined;
  return sae.decode({ ...codes, value, ...(normalized && { rows: normalized }) }, inputs);
}

function float32RowsOf(raw: Uint8Array, dtype: RowDType, count: number): Float32Array {
  return dtype === "f64" ? Float32Array.from(float64Of(raw)) : rowsToFloat32(raw, dtype, count);
}

function targetOf({ target }: Chunk): Uint8Array {
  if (target !== undefined) return target;
  throw new SaettaError("a transcoder is measured on targets, and these rows have none", {
    mend: "name the targets with --target",
  });
}

function ratio(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

/** What an autoencoder is worth on rows that it was not trained on. */

import type { Chunk } from "../data/chunks.ts";
import type { RowDType } from "../data/source.ts";
import type { Sae, SparseCodes } from "../inference/sae.ts";
import { DENSITY_UNIT, type DensityBin, densityBins } from "../run-files/density.ts";
import { kOf, rulesOf } from "../sae/architectures/index.ts";
import { targetNormalizationOf } from "../sae/description.ts";
import type { Normalization } from "../sae/math.ts";
import { SaettaError } from "../util/errors.ts";
import { EngineSums, RowSums } from "./evaluation-sums.ts";

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
  const { live, inference } = rulesOf(spec);
  const inner = (sae.prefixes ?? []).slice(0, -1);
  const isMeasured = !untied && (normalization.kind === "none" || normalization.kind === "scale");
  const sums = isMeasured ? new EngineSums(sae, dtype, folded) : new RowSums(sae, dtype, normalization, folded);
  const firings = new Float64Array(n);
  let rows = 0;
  let active = 0;
  for await (const chunk of chunks) {
    const codes = await sums.add(chunk);
    for (let slot = 0; slot < codes.value.length; slot++) {
      if (!(codes.value[slot] > 0)) continue;
      active++;
      firings[codes.latent[slot]]++;
    }
    rows += chunk.rows;
    await options.onChunk?.(chunk, codes);
  }
  if (rows === 0) throw new SaettaError("there are no rows to evaluate on");
  const { err2, rawErr2, x2, spread, rawSpread, prefixErr2 } = sums.totals();
  const dead = firings.reduce((count, times) => count + (times === 0 ? 1 : 0), 0);
  return {
    rows,
    normalization: normalization.kind,
    fvu: ratio(err2, spread),
    rawFvu: normalization.kind === "none" ? null : ratio(rawErr2, rawSpread),
    normalizedMse: ratio(err2, x2),
    mse: err2 / (rows * d),
    l0: active / rows,
    l0Training: live.kind === inference.kind ? null : (kOf(spec) ?? null),
    prefixFvu:
      inner.length === 0
        ? []
        : [...inner.map(({ end }, i) => [end, prefixErr2[i]!] as const), [n, err2] as const].map(([latents, part]) => ({
            latents,
            fvu: ratio(part, spread),
          })),
    latents: n,
    dead,
    deadFraction: dead / n,
    density: densityBins(firings, rows),
    densityUnit: DENSITY_UNIT,
  };
}

function ratio(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

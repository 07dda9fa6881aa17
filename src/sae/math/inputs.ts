/** What is done to rows before they are encoded. */

/**
 * What is done to every row before the autoencoder sees it (--normalize), the same for a whole run.
 */
export interface Normalization {
  readonly kind: "none" | "scale" | "unit" | "layer_norm";
  /** What "scale" multiplies by; 1 for the others. */
  readonly factor: number;
}

export const NO_NORMALIZATION: Normalization = { kind: "none", factor: 1 };

/**
 * A row whose distance from its mean is below this part of its length is constant: what is left is
 * rounding.
 */
export const CONSTANT_ROW = 1e-12;

/** What "layer_norm" adds to the spread, as OpenAI's. */
export const LAYER_NORM_EPS = 1e-5;

/**
 * mean and size of a row [d], with which (x - mean) / size is the normalised row, and the way back
 * is y size + mean. "unit" (Gao et al. 2024, section 2): the row's mean over d, and the norm of
 * what is left; "layer_norm" (OpenAI's autoencoders): its mean, and the unbiased standard deviation
 * + 1e-5. A constant row has size 0: it becomes zeros, and comes back as its mean. "scale" is x
 * factor, and "none" changes nothing. NaN where the squares are not finite.
 */
export function rowStatistics(
  x: Float32Array | Float64Array,
  { kind, factor }: Normalization,
): { mean: number; size: number } {
  if (kind === "none" || kind === "scale") return { mean: 0, size: 1 / factor };
  const d = x.length;
  let sum = 0;
  let square = 0;
  for (let i = 0; i < d; i++) {
    sum += x[i];
    square += x[i] * x[i];
  }
  const mean = sum / d;
  let spread = 0;
  for (let i = 0; i < d; i++) spread += (x[i] - mean) * (x[i] - mean);
  if (!Number.isFinite(square)) return { mean, size: Number.NaN };
  if (Math.sqrt(spread) <= CONSTANT_ROW * Math.sqrt(square)) return { mean, size: 0 };
  return { mean, size: kind === "unit" ? Math.sqrt(spread) : Math.sqrt(spread / (d - 1)) + LAYER_NORM_EPS };
}

/** -> x: the row [d], normalised. */
export function normalizeRow(x: Float32Array | Float64Array, by: Normalization): void {
  if (by.kind === "none") return;
  const { mean, size } = rowStatistics(x, by);
  for (let i = 0; i < x.length; i++)
    x[i] = by.kind === "scale" ? x[i] * by.factor : size === 0 ? 0 : (x[i] - mean) / size;
}

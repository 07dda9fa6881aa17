/**
 * Sums over rows and their reconstructions, in float64: taken by the engine where the rows are, or
 * here, where each row is normalised by itself or has a target of its own.
 */

import type { Chunk } from "../data/chunks.ts";
import { rowsToFloat32 } from "../data/convert.ts";
import type { RowDType } from "../data/source.ts";
import { namedSums, sumsLength } from "../engine/sums.ts";
import type { Sae, SparseCodes } from "../inference/sae.ts";
import { centredVariation, type Normalization, normalizeRow } from "../sae/math.ts";
import { float64Of } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { Moments } from "./moments.ts";

/**
 * x: rows as in training; raw: as they are in the activations. Sums over all rows and columns:
 * err2 of (x_hat - x)^2, x2 of x^2, spread of (x - mean of x)^2; prefixErr2: err2 by each prefix
 * alone but the last.
 */
export interface EvaluationTotals {
  readonly err2: number;
  readonly rawErr2: number;
  readonly x2: number;
  readonly spread: number;
  readonly rawSpread: number;
  readonly prefixErr2: ArrayLike<number>;
}

export interface EvaluationSums {
  /** Adds the rows of a chunk; returns their codes. */
  add(chunk: Chunk): Promise<SparseCodes>;
  totals(): EvaluationTotals;
}

/** Of autoencoders whose rows are as they are in the activations, times `folded` in training. */
export class EngineSums implements EvaluationSums {
  readonly #sae: Sae;
  readonly #dtype: RowDType;
  readonly #folded: number;
  readonly #sums: Float64Array;
  #rows = 0;

  constructor(sae: Sae, dtype: RowDType, folded: number) {
    this.#sae = sae;
    this.#dtype = dtype;
    this.#folded = folded;
    this.#sums = new Float64Array(sumsLength(sae.dims.dOut, sae.prefixes?.length));
  }

  async add({ raw, rows, refuse }: Chunk): Promise<SparseCodes> {
    const { codes, sums } = await this.#sae.measureRaw(raw, this.#dtype, rows, refuse);
    for (const [i, sum] of sums.entries()) this.#sums[i]! += sum;
    this.#rows += rows;
    return codes;
  }

  totals(): EvaluationTotals {
    const named = namedSums(this.#sums, this.#sae.prefixes?.length);
    const [{ err2, x2, prefixErr2 }, spread] = [named, centredVariation(named, this.#rows)];
    const by = this.#folded ** 2;
    return {
      ...{ err2: err2 * by, rawErr2: err2, x2: x2 * by, spread: spread * by, rawSpread: spread },
      prefixErr2: prefixErr2.map((each) => each * by),
    };
  }
}

/** From the rows and the reconstructions themselves. */
export class RowSums implements EvaluationSums {
  readonly #sae: Sae;
  readonly #dtype: RowDType;
  readonly #normalization: Normalization;
  readonly #folded: number;
  readonly #moments: Moments;
  readonly #rawMoments: Moments;
  readonly #inner: { readonly end: number; err2: number }[];
  #err2 = 0;
  #rawErr2 = 0;
  #x2 = 0;

  constructor(sae: Sae, dtype: RowDType, normalization: Normalization, folded: number) {
    this.#sae = sae;
    this.#dtype = dtype;
    this.#normalization = normalization;
    this.#folded = folded;
    this.#moments = new Moments(sae.dims.dOut);
    this.#rawMoments = new Moments(sae.dims.dOut);
    this.#inner = (sae.prefixes ?? []).slice(0, -1).map(({ end }) => ({ end, err2: 0 }));
  }

  async add(chunk: Chunk): Promise<SparseCodes> {
    const [sae, dtype, folded] = [this.#sae, this.#dtype, this.#folded];
    const { dOut: d, untied = false } = sae.dims;
    const { codes, output } = await sae.reconstructRaw(chunk.raw, dtype, chunk.rows, "normalized", chunk.refuse);
    const wanted = untied ? targetOf(chunk) : chunk.raw;
    const raw = dtype === "f64" ? float64Of(wanted) : rowsToFloat32(wanted, dtype, chunk.rows * d);
    const x = new Float64Array(raw);
    for (let row = 0; row < chunk.rows; row++) normalizeRow(x.subarray(row * d, (row + 1) * d), this.#normalization);
    for (const prefix of this.#inner) {
      const part = await reconstructPrefix(sae, codes, prefix.end, chunk, dtype);
      for (let e = 0; e < x.length; e++) prefix.err2 += (part[e] * folded - x[e]) ** 2;
    }
    for (let row = 0; row < chunk.rows; row++) {
      const part = x.subarray(row * d, (row + 1) * d);
      let square = 0;
      for (let i = 0; i < d; i++) {
        const off = output[row * d + i] * folded - part[i];
        square += off * off;
        this.#x2 += part[i] * part[i];
      }
      this.#err2 += square;
      this.#rawErr2 += square * (codes.rows?.size[row] ?? 1 / folded) ** 2;
    }
    this.#moments.add(x, chunk.rows);
    if (this.#normalization.kind !== "none") this.#rawMoments.add(raw, chunk.rows);
    return codes;
  }

  totals(): EvaluationTotals {
    return {
      ...{ err2: this.#err2, rawErr2: this.#rawErr2, x2: this.#x2 },
      ...{ spread: this.#moments.spread, rawSpread: this.#rawMoments.spread },
      prefixErr2: this.#inner.map(({ err2 }) => err2),
    };
  }
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

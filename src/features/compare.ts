/** `saetta compare`: which latents of two autoencoders are the same. */

import type { NonFinite } from "../data/batches.ts";
import { atMost, rowsOf } from "../data/chunks.ts";
import { countRows, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import {
  type Column,
  type ComparedSide,
  type Comparison,
  classify,
  MEASURES,
  type Measure,
} from "../explorer/shared/comparison.ts";
import { refuseWidth } from "../inference/refuse-width.ts";
import type { Sae } from "../inference/sae.ts";
import { UsageError } from "../util/errors.ts";
import { CodeSample, rowsOfLatents, type SampledCodes } from "./code-sample.ts";
import { decoderDirections, nearestRows } from "./nearest.ts";

export interface CompareOptions {
  /** The least value of a match. */
  readonly least: number;
  /** How the two are called. */
  readonly names: Comparison["names"];
  /** The rows to compare activations on; without them decoders alone are compared. */
  readonly on?:
    | { readonly source: Source; readonly ranges: readonly Range[]; readonly nonFinite: NonFinite }
    | undefined;
  readonly maxRows?: number | undefined;
  readonly onProgress?: ((stage: "decoders" | "rows", done: number, total: number) => void) | undefined;
}

type Best = Pick<Column, "best" | "value">;
interface Both {
  readonly a: Best;
  readonly b: Best;
}

/**
 * Compares decoder rows by cosine and, on rows, activations by correlation. Memory: both decoders,
 * and at most 200 MB of codes of each. Throws UsageError where the two write to different widths.
 */
export async function compareSaes(a: Sae, b: Sae, options: CompareOptions): Promise<Comparison> {
  const { least, names, on, maxRows = Number.POSITIVE_INFINITY, onProgress } = options;
  if (a.dims.dOut !== b.dims.dOut) {
    throw new UsageError(
      `${names.a} has ${a.dims.dOut} outputs and ${names.b} ${b.dims.dOut}: decoders of different widths`,
      {
        mend: "compare autoencoders of the same tensor",
      },
    );
  }
  if (on !== undefined) for (const sae of [a, b]) refuseWidth(sae, on.source);
  const by: Partial<Record<Measure, Both>> = { cosine: await byCosine(a, b, onProgress) };
  const sample = on && (await sampled(a, b, { ...on, ranges: atMost(on.ranges, maxRows) }, onProgress));
  if (sample !== undefined) by.correlation = byCorrelation(sample.a, sample.b, a.dims.n, b.dims.n);
  const side = (which: "a" | "b", n: number): ComparedSide => ({
    latents: n,
    by: Object.fromEntries(
      MEASURES.flatMap((measure) => {
        const both = by[measure];
        return both === undefined ? [] : [[measure, { ...both[which], class: classify(both.a, both.b, least)[which] }]];
      }),
    ),
    ...(sample && { density: densities(sample[which], n) }),
  });
  return {
    a: side("a", a.dims.n),
    b: side("b", b.dims.n),
    names,
    least,
    rows: sample?.a.rows ?? null,
    data: on?.source.description ?? null,
  };
}

async function byCosine(a: Sae, b: Sae, onProgress: CompareOptions["onProgress"]): Promise<Both> {
  const d = a.dims.dOut;
  const [ofA, ofB] = [await decoderDirections(a), await decoderDirections(b)];
  const total = a.dims.n + b.dims.n;
  const one = { d, count: 1 };
  const there = await nearestRows(a.engine, ofA, ofB, one, (done) => onProgress?.("decoders", done, total));
  const back = await nearestRows(b.engine, ofB, ofA, one, (done) => onProgress?.("decoders", a.dims.n + done, total));
  const best = ({ latent, cosine }: typeof there): Best => ({ best: [...latent], value: Array.from(cosine, rounded) });
  return { a: best(there), b: best(back) };
}

async function sampled(
  a: Sae,
  b: Sae,
  { source, ranges, nonFinite }: NonNullable<CompareOptions["on"]>,
  onProgress: CompareOptions["onProgress"],
): Promise<{ readonly a: SampledCodes; readonly b: SampledCodes }> {
  const sample = new CodeSample(2);
  const total = countRows(ranges);
  let done = 0;
  const chunkRows = Math.min(a.rowsAtOnce, b.rowsAtOnce);
  for await (const { raw, rows, refuse } of rowsOf(source, ranges, { ...a.chunks(nonFinite), chunkRows })) {
    sample.add([await a.encodeRaw(raw, source.dtype, rows, refuse), await b.encodeRaw(raw, source.dtype, rows)]);
    done += rows;
    onProgress?.("rows", done, total);
  }
  return { a: sample.of(0), b: sample.of(1) };
}

/**
 * The largest correlation of each latent with one of the other side, both ways. Only latents that
 * fire together can have one above 0, so the products are summed over the rows of each latent of A,
 * in memory of the latents of B.
 */
export function byCorrelation(a: SampledCodes, b: SampledCodes, latentsA: number, latentsB: number): Both {
  const { rows } = a;
  const [ofA, ofB] = [momentsOf(a, latentsA), momentsOf(b, latentsB)];
  const { offsets, row, code } = rowsOfLatents(a, latentsA);
  const found = { a: noBest(latentsA), b: noBest(latentsB) };
  const products = new Float64Array(latentsB);
  const isTouched = new Uint8Array(latentsB);
  const touched = new Uint32Array(latentsB);
  for (let i = 0; i < latentsA; i++) {
    let used = 0;
    for (let at = offsets[i]; at < offsets[i + 1]; at++) {
      const value = a.value[code[at]];
      for (let slot = b.begin[row[at]]; slot < b.begin[row[at] + 1]; slot++) {
        const j = b.latent[slot];
        if (isTouched[j] === 0) {
          isTouched[j] = 1;
          touched[used++] = j;
        }
        products[j] += value * b.value[slot];
      }
    }
    for (const j of touched.subarray(0, used)) {
      const covariance = products[j] / rows - ofA.mean[i] * ofB.mean[j];
      const value = rounded(Math.min(1, Math.max(0, covariance / (ofA.deviation[i] * ofB.deviation[j]) || 0)));
      products[j] = 0;
      isTouched[j] = 0;
      offer(found.a, i, j, value);
      offer(found.b, j, i, value);
    }
  }
  return found;
}

const noBest = (n: number) => ({ best: Array.from({ length: n }, () => 0), value: Array.from({ length: n }, () => 0) });

function offer(side: { best: number[]; value: number[] }, of: number, other: number, value: number): void {
  if (!(value > side.value[of])) return;
  side.best[of] = other;
  side.value[of] = value;
}

/** Mean and standard deviation of each latent's activations, over all rows. */
function momentsOf({ rows, latent, value }: SampledCodes, latents: number) {
  const mean = new Float64Array(latents);
  const deviation = new Float64Array(latents);
  for (const [i, j] of latent.entries()) {
    mean[j] += value[i] / rows;
    deviation[j] += value[i] ** 2 / rows;
  }
  for (let j = 0; j < latents; j++) deviation[j] = Math.sqrt(Math.max(0, deviation[j] - mean[j] ** 2));
  return { mean, deviation };
}

function densities({ rows, latent }: SampledCodes, latents: number): number[] {
  const firings = new Uint32Array(latents);
  for (const j of latent) firings[j]++;
  return Array.from(firings, (count) => rounded(count / rows));
}

/** Four digits are more than anybody needs. */
function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

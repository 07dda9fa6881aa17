/**
 * Whether a file of another program says the same as the autoencoder that it was made from or into:
 * rows through the file's own rules, and through the autoencoder.
 */

import { rowsToFloat32 } from "../data/convert.ts";
import { openSource } from "../data/open.ts";
import { selectEngine } from "../engine/select.ts";
import type { Rules } from "../interchange/format.ts";
import { BYTES, bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { PURPOSE, Rng } from "../util/rng.ts";
import type { Sae, SparseCodes } from "./sae.ts";

/** What was compared. */
export interface Comparison {
  readonly rows: number;
  /** Latents that are on, in all rows. */
  readonly active: number;
  /** Largest difference of a latent's value, over the largest value of its row. */
  readonly latents: number;
  /**
   * Largest norm of the difference of two reconstructions of a row, over the norm of the row's own
   * distance from its mean.
   */
  readonly output: number;
  /**
   * Rows in which another latent was chosen, because the last places were equal, or a latent was at
   * its threshold, to within the tolerance; their reconstructions are not compared.
   */
  readonly ties: number;
}

/** Rounding of f32 arrays and products; what is beyond it is a mistake. */
const TOLERANCE = 1e-5;

/**
 * Compares row by row; `rows` [B*d]. Throws SaettaError, naming `where`, when latents or
 * reconstructions differ by more than TOLERANCE.
 */
export async function compare(rules: Rules, sae: Sae, rows: Float32Array, where: string): Promise<Comparison> {
  const { dIn: d, dOut } = sae.dims;
  const count = rows.length / d;
  const { codes, output } = await sae.reconstructRaw(bytesOf(rows), "f32", count);
  const found = { rows: count, active: 0, latents: 0, output: 0, ties: 0 };
  for (let row = 0; row < count; row++) {
    const x = Float64Array.from(rows.subarray(row * d, (row + 1) * d));
    const by = rules.run(x);
    const latents = compareLatents(codes, row, by.latents, rules.selects);
    found.active += latents.active;
    const y = output.subarray(row * dOut, (row + 1) * dOut);
    const scale = spread(sae.dims.untied === true ? by.output : x);
    if (latents.tie) found.ties++;
    else found.output = Math.max(found.output, distance(y, by.output) / scale);
    found.latents = Math.max(found.latents, latents.difference);
  }
  if (found.active === 0) {
    throw new SaettaError("no latent is on in any of the rows, so that nothing could be compared", {
      where,
      mend: "give activations with --data",
    });
  }
  const words = `latents differ by up to ${found.latents.toExponential(1)}, reconstructions by ${found.output.toExponential(1)}`;
  if (!(found.latents <= TOLERANCE && found.output <= TOLERANCE)) {
    throw new SaettaError(`does not say the same as what it was made from: ${words}, relative, in ${found.rows} rows`, {
      where,
    });
  }
  return found;
}

function compareLatents(
  { k, latent, value }: SparseCodes,
  row: number,
  by: Float64Array,
  selects: Rules["selects"],
): { readonly active: number; readonly difference: number; readonly tie: boolean } {
  const mine = new Map<number, number>();
  for (let slot = row * k; slot < (row + 1) * k; slot++) if (value[slot]! > 0) mine.set(latent[slot]!, value[slot]!);
  const on = [...by.keys()].filter((j) => by[j] !== 0);
  const scale = Math.max(...on.map((j) => by[j]!), ...mine.values(), Number.MIN_VALUE);
  const lowest = Math.min(...on.map((j) => by[j]!), ...mine.values());
  const full = selects.kind === "topk" && k === selects.k && (on.length === k || mine.size === k);
  // What decides whether a latent of this value is on: the lowest of the k, or its threshold.
  const isClose = (j: number, a: number): boolean =>
    selects.kind === "threshold"
      ? Math.abs(a - Math.max(0, selects.of(j))) <= TOLERANCE * scale
      : full && a - lowest <= TOLERANCE * scale;
  let [difference, tie] = [0, false];
  for (const j of new Set([...on, ...mine.keys()])) {
    const [a, b] = [mine.get(j) ?? 0, by[j]!];
    if ((a === 0 || b === 0) && isClose(j, Math.max(a, b))) tie = true;
    else difference = Math.max(difference, Math.abs(a - b) / scale);
  }
  return { active: on.length, difference, tie };
}

function distance(a: Float32Array, b: Float64Array): number {
  return Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0));
}

function spread(x: Float64Array): number {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  return Math.sqrt(x.reduce((sum, value) => sum + (value - mean) ** 2, 0)) || 1;
}

/** Rows that are compared: as many as take seconds, in plain loops. */
const [FEWEST, MOST, PRODUCTS] = [8, 64, 2 ** 28];

/**
 * 8 to 64 rows of activations, evenly spread; without files random ones around the autoencoder's
 * pre-bias, or around 0 for a transcoder. [B*d].
 */
export async function rowsToCompare(
  sae: Sae,
  preBias: Float32Array | Float64Array,
  paths: readonly string[],
): Promise<Float32Array> {
  const { dIn: d, n } = sae.dims;
  const wanted = Math.max(FEWEST, Math.min(MOST, Math.floor(PRODUCTS / (n * d))));
  if (paths.length === 0) {
    const rng = new Rng(0, PURPOSE.verify);
    // The pre-bias of a transcoder is of its outputs.
    const around = sae.dims.untied === true ? new Float64Array(d) : Float64Array.from(preBias);
    const scale = Math.max(1, Math.sqrt(around.reduce((sum, value) => sum + value * value, 0) / d));
    return Float32Array.from({ length: wanted * d }, (_, i) => around[i % d]! + scale * rng.normal());
  }
  const source = await openSource(paths);
  try {
    if (source.dIn !== d)
      throw new SaettaError(`has rows of ${source.dIn} numbers, the autoencoder takes ${d}`, {
        where: paths.join(", "),
      });
    const count = Math.min(wanted, source.rows);
    const bytes = new Uint8Array(d * BYTES[source.dtype]);
    const rows = new Float32Array(count * d);
    for (let i = 0; i < count; i++) {
      await source.read(Math.floor((i * source.rows) / count), 1, bytes);
      rows.set(rowsToFloat32(bytes, source.dtype, d), i * d);
    }
    return rows;
  } finally {
    await source.close();
  }
}

/** The float64 engine: what is compared is the file, not the arithmetic of a fast one. */
export const exactEngine = () => selectEngine("reference");

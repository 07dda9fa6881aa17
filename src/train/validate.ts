/** The hold-out during training: FVU and MSE of held-out rows under the weights as they are. */

import type { Collective } from "../collective/collective.ts";
import { solo } from "../collective/solo.ts";
import { type NonFinite, notFinite } from "../data/batches.ts";
import { countRows, type Range } from "../data/holdout.ts";
import { bytesPerRow, rowWidth, type Source } from "../data/source.ts";
import { type Engine, type Hyper, NONE, type Normalization, type Params, SUMS } from "../engine/engine.ts";
import { ForwardPass } from "../engine/forward.ts";
import { readNumbers } from "../engine/numbers.ts";
import { namedSums, sumsLength } from "../engine/sums.ts";
import { type DensityLine, densityBins } from "../run-files/density.ts";
import { losses } from "../sae/math.ts";
import { uint32Of } from "../util/bytes.ts";
import { nonFiniteRows } from "../util/float16.ts";
import { type RankShard, sumOverShards } from "./rank-shard.ts";
import type { HeldOut } from "./report.ts";
import { readReals } from "./state.ts";

/** Rows of an evaluation during training; `saetta eval` uses all of them. */
export const MOST_ROWS = 16_384;
const ROWS_AT_ONCE = 1024;

const ROWS_TOGETHER = 256;
const ACTIVE = SUMS.indexOf("active");

/**
 * Pieces of the ranges of up to `together` rows, evenly spread over all of them, with about `rows`
 * rows.
 */
export function spread(ranges: readonly Range[], rows: number, together = ROWS_TOGETHER): Range[] {
  const all = countRows(ranges);
  const every = Math.max(1, all / rows);
  const pieces = ranges.flatMap(({ first, count }) =>
    Array.from({ length: Math.ceil(count / together) }, (_, i) => ({
      first: first + i * together,
      count: Math.min(together, count - i * together),
    })),
  );
  return pieces.filter((_, i) => Math.floor(i / every) !== Math.floor((i - 1) / every));
}

/** Bins of the density of latents to a factor of 10. */
const BINS_PER_DECADE = 5;

/** How often the latents fire on the held-out rows, without the step. */
export type HeldOutDensity = Omit<DensityLine, "step" | "density_unit">;

/** The density of the latents of all shards. */
export async function densityOfAll(
  collective: Collective,
  { rows, latents, never, density }: HeldOutDensity,
): Promise<HeldOutDensity> {
  const [all, silent, ...counts] = await sumOverShards(collective, [
    latents,
    never,
    ...density.map((bin) => bin.latents),
  ]);
  return { rows, latents: all!, never: silent!, density: density.map((bin, i) => ({ ...bin, latents: counts[i]! })) };
}

/** What is done to rows, and to the targets of a transcoder. */
interface Normalized {
  readonly normalization?: Normalization | undefined;
  readonly targetNormalization?: Normalization | undefined;
}

/** Raw rows for evaluations, in the dtype of their source. */
export interface HeldRows {
  readonly dtype: Source["dtype"];
  readonly chunks: readonly { readonly rows: number; readonly bytes: Uint8Array }[];
}

/**
 * Reads the rows of the ranges. Rows that are not finite stop it or are left out, as those are that
 * the source leaves out.
 */
export async function readHeldOut(source: Source, ranges: readonly Range[], nonFinite: NonFinite): Promise<HeldRows> {
  const rowBytes = bytesPerRow(source);
  const all = new Uint8Array(countRows(ranges) * rowBytes);
  let rows = 0;
  for (const { first, count } of ranges) {
    await source.read(first, count, all.subarray(rows * rowBytes, (rows + count) * rowBytes));
    const begin = rows;
    const bad = nonFiniteRows(all, source.dtype, rowWidth(source), begin, begin + count);
    if (bad.length > 0 && nonFinite === "stop") throw notFinite(source, first + bad[0]! - begin);
    const raw = all.subarray(begin * rowBytes, (begin + count) * rowBytes);
    const unwanted = new Set([...bad, ...(source.leftOut?.(raw, count) ?? []).map((row) => begin + row)]);
    for (let row = begin; row < begin + count; row++) {
      if (unwanted.has(row)) continue;
      if (row > rows) all.copyWithin(rows * rowBytes, row * rowBytes, (row + 1) * rowBytes);
      rows++;
    }
  }
  const chunks = [];
  for (let first = 0; first < rows; first += ROWS_AT_ONCE) {
    const count = Math.min(ROWS_AT_ONCE, rows - first);
    chunks.push({ rows: count, bytes: all.subarray(first * rowBytes, (first + count) * rowBytes) });
  }
  return { dtype: source.dtype, chunks };
}

/** Evaluates rows that are held in memory, with `run`. */
export class Validator {
  readonly #engine: Engine;
  readonly #shard: RankShard;
  readonly #hyper: Hyper;
  readonly #chunks: HeldRows["chunks"];
  readonly #dtype: Source["dtype"];
  readonly #normalized: Normalized;
  /** By the number of rows: all chunks but the last have the same. */
  readonly #passes = new Map<number, ForwardPass>();
  /** Of this shard's latents, at the last evaluation. */
  density: HeldOutDensity | undefined;

  /**
   * `normalized`: default: rows as they are. Every shard evaluates, and every replica finds the
   * same.
   */
  constructor(
    engine: Engine,
    shard: RankShard,
    hyper: Hyper,
    { dtype, chunks }: HeldRows,
    normalized: Normalized = {},
  ) {
    this.#engine = engine;
    this.#shard = shard;
    this.#hyper = hyper;
    this.#dtype = dtype;
    this.#chunks = chunks;
    this.#normalized = normalized;
  }

  /** `collective`: of the shards; default: there is one. */
  async run(params: Params, collective = solo()): Promise<HeldOut> {
    const engine = this.#engine;
    const { prefixes, inference } = this.#shard;
    if (params.cut !== undefined && !((await readReals(engine, params.cut))[0]! > 0)) return {};
    const total = new Float64Array(sumsLength(this.#shard.whole.dOut, prefixes?.length));
    const firings = new Float64Array(this.#shard.dims.n);
    let rows = 0;
    for (const chunk of this.#chunks) {
      const pass = this.#pass(chunk.rows);
      pass.prepare({ ...this.#hyper, rows: chunk.rows });
      engine.write(pass.raw!, chunk.bytes);
      await pass.encodeFitting(params, pass.raw!, () => {
        pass.decode(params);
        pass.residual(params);
      });
      const [sums, latents] = await Promise.all([
        readNumbers(engine, pass.step.sums),
        engine.read(engine.pairs(pass.live.codes).latent),
      ]);
      for (let i = 0; i < total.length; i++) total[i]! += sums[i]!;
      for (const latent of uint32Of(latents)) if (latent !== NONE) firings[latent]!++;
      rows += chunk.rows;
    }
    const never = firings.reduce((count, times) => count + (times === 0 ? 1 : 0), 0);
    this.density = { rows, latents: firings.length, never, density: densityBins(firings, rows, BINS_PER_DECADE) };
    const isByThreshold = inference.rule.kind === "threshold";
    if (isByThreshold) total[ACTIVE] = (await sumOverShards(collective, [total[ACTIVE]!]))[0]!;
    const { fvu, mse, l0, prefixFvu } = losses(namedSums(total, prefixes?.length), rows, 1, 0, prefixes);
    return {
      holdout_fvu: fvu,
      holdout_mse: mse,
      ...(isByThreshold ? { holdout_l0: l0 } : {}),
      ...(prefixFvu.length === 0 ? {} : { holdout_prefix_fvu: [...prefixFvu, fvu] }),
    };
  }

  /** Gives the engine's memory back. */
  close(): void {
    for (const pass of this.#passes.values()) pass.close();
    this.#passes.clear();
  }

  #pass(rows: number): ForwardPass {
    const { dims, inference, prefixes } = this.#shard;
    const pass =
      this.#passes.get(rows) ??
      new ForwardPass(this.#engine, {
        rows,
        dims,
        live: inference,
        prefixes,
        raw: this.#dtype,
        normalization: this.#normalized.normalization,
        target: this.#normalized.targetNormalization,
      });
    this.#passes.set(rows, pass);
    return pass;
  }
}

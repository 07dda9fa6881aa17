/** `saetta eval`: an autoencoder and rows in, its numbers out. */

import type { NonFinite } from "../data/batches.ts";
import { atMost, rowsOf } from "../data/chunks.ts";
import { countRows, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import { refuseWidth } from "../inference/refuse-width.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import { type Evaluation, evaluate } from "./evaluate.ts";

export interface EvalReport {
  readonly autoencoder: string;
  /** Training steps behind the weights; null in files of others. */
  readonly step: number | null;
  readonly weights: "ema" | "raw";
  readonly engine: string;
  readonly data: string;
  readonly metrics: Evaluation;
  /**
   * FVU of the averaged weights with their decoder rows as short as averaging makes them; null
   * where raw weights are used.
   */
  readonly fvuWithoutUnitDecoder: number | null;
}

export interface ReportOptions {
  /** The metrics on these rows, where they are known already. */
  readonly metrics?: Evaluation | undefined;
  readonly maxRows?: number | undefined;
  readonly nonFinite?: NonFinite | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Evaluates `sae` on the rows of the ranges. Throws SaettaError when the widths differ, there are
 * no rows.
 */
export async function evalReport(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  options: ReportOptions = {},
): Promise<EvalReport> {
  const { maxRows = Number.POSITIVE_INFINITY, nonFinite = "stop", onProgress } = options;
  refuseWidth(sae, source);
  const chosen = atMost(ranges, maxRows);
  const total = countRows(chosen);
  let done = 0;
  const metrics =
    options.metrics ??
    (await evaluate(sae, source.dtype, rowsOf(source, chosen, sae.chunks(nonFinite)), {
      onChunk: (chunk) => {
        done += chunk.rows;
        onProgress?.(done, total);
      },
    }));
  let fvuWithoutUnitDecoder: number | null = null;
  if (sae.weights === "ema" && sae.path !== undefined) {
    await using short = await loadSae(sae.path, { engine: sae.engine, weights: "ema", unitDecoder: false });
    fvuWithoutUnitDecoder = (await evaluate(short, source.dtype, rowsOf(source, chosen, sae.chunks(nonFinite)))).fvu;
  }
  return {
    autoencoder: sae.path ?? "in memory",
    step: sae.found.step ?? null,
    weights: sae.weights,
    engine: sae.engine.description,
    data: source.description,
    metrics,
    fvuWithoutUnitDecoder,
  };
}

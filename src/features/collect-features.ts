/**
 * Metrics and features of an autoencoder on chosen rows: one pass, and more only where its latents
 * fire on more tokens than memory may hold.
 */

import type { NonFinite } from "../data/batches.ts";
import { rowsOf } from "../data/chunks.ts";
import { countRows, type Range } from "../data/holdout.ts";
import type { Source } from "../data/source.ts";
import type { Sae } from "../inference/sae.ts";
import { type Evaluation, evaluate } from "../metrics/evaluate.ts";
import { rulesOf } from "../sae/architectures/index.ts";
import { mayOverflow } from "../sae/rule.ts";
import { CodeSample, type SampledCodes } from "./code-sample.ts";
import { describeLatent, type Feature } from "./features.ts";
import { Profiles } from "./profiles.ts";
import { RowsInText } from "./row-text.ts";
import { TokenUses } from "./token-uses.ts";

export interface CollectOptions {
  /**
   * The text of a token; without it no word is known to be one, and each token is a kind of its
   * own.
   */
  readonly textOf?: ((token: number) => string) | undefined;
  readonly nonFinite?: NonFinite | undefined;
  /**
   * "read": the first pass. "count": another pass over the same rows, for the token counts of more
   * latents.
   */
  readonly onProgress?: ((stage: "read" | "count", done: number, total: number) => void) | undefined;
  /** Default: an empty one. */
  readonly uses?: TokenUses | undefined;
}

export interface CollectedFeatures {
  readonly metrics: Evaluation;
  readonly profiles: Profiles;
  /** Codes of rows that are evenly spread, in which what fires together is counted. */
  readonly sample: SampledCodes;
  /** Of each latent, by number. */
  readonly features: readonly Feature[];
}

/** Throws SaettaError when there are no rows. */
export async function collectFeatures(
  sae: Sae,
  source: Source,
  ranges: readonly Range[],
  options: CollectOptions = {},
): Promise<CollectedFeatures> {
  const { textOf, nonFinite = "stop", onProgress } = options;
  const { n } = sae.dims;
  const { uses = new TokenUses(n) } = options;
  const profiles = new Profiles(n);
  const sample = new CodeSample(1);
  const total = countRows(ranges);
  let inText = new RowsInText(source, textOf);
  const metrics = await evaluate(sae, source.dtype, rowsOf(source, ranges, sae.chunks(nonFinite)), {
    async onChunk(chunk, codes) {
      const rows = await inText.next(chunk.numbers);
      profiles.add(rows, codes);
      sample.add([codes]);
      if (rows.kinds) uses.add(rows.kinds, codes);
      onProgress?.("read", profiles.rows, total);
    },
  });
  profiles.finish();
  const features: Feature[] = [];
  for (;;) {
    for (let latent = uses.first; latent < uses.end; latent++)
      features.push(describeLatent(profiles, latent, uses.of(latent), activePerRow(sae, metrics)));
    if (uses.end === n) return { metrics, profiles, sample: sample.of(0), features };
    uses.startNext();
    inText = new RowsInText(source, textOf);
    let done = 0;
    for await (const { raw, rows, numbers, refuse } of rowsOf(source, ranges, sae.chunks(nonFinite))) {
      const { kinds } = await inText.next(numbers);
      if (kinds) uses.add(kinds, await sae.encodeRaw(raw, source.dtype, rows, refuse));
      done += rows;
      onProgress?.("count", done, total);
    }
  }
}

/** Latents that are active in a row: k, or their mean number where a threshold decides. */
export function activePerRow({ k, description }: Sae, { l0 }: Evaluation): number {
  return mayOverflow(rulesOf(description.spec).inference) ? l0 : k;
}

/** What the language model loses when single latents are removed from its activations. */

import { activationIn, checkEditable, directionsOf, edited } from "../inference/edit-rows.ts";
import type { Sae } from "../inference/sae.ts";

/** The effect of removing some latents at once, over the predictions of `LossRecovered`. */
export interface LatentEffect {
  readonly latents: readonly number[];
  /** Spliced rows in which one of them is active. */
  readonly firings: number;
  readonly crossEntropy: number;
  readonly lossIncrease: number;
  /** null where none is active in a row that has a next token. */
  readonly lossIncreaseWhereActive: number | null;
  readonly klDivergence: number;
}

export interface AblationResult {
  readonly effects: readonly LatentEffect[];
  readonly definitions: typeof ABLATION_DEFINITIONS;
}

/** What the numbers mean, for people; part of the JSON. */
export const ABLATION_DEFINITIONS = {
  removed:
    "x - activation * decoder row in every spliced row, times the size of the row where rows are normalised one by one: what the autoencoder does not reconstruct stays",
  firings: "spliced rows in which one of the latents is active",
  lossIncrease: "CE with the latents removed - CE original, in nats",
  lossIncreaseWhereActive:
    "the same over the predictions at those rows only; earlier rows of a context change them, too",
  klDivergence: "mean of sum p ln(p / q), in nats; p: of the model as it is, q: with the latents removed",
} as const;

/** Latents to remove: each alone, and all together. */
export interface Ablation {
  readonly groups: readonly (readonly number[])[];
  /** rows [B, width] -> of each group the rows without it, and 1 where one of it is active. */
  remove(rows: Float32Array): Promise<readonly { readonly rows: Float32Array; readonly active: Uint8Array }[]>;
}

/** Throws UsageError or SaettaError where latents of `sae` cannot be removed. */
export async function ablationOf(sae: Sae, latents: readonly number[]): Promise<Ablation> {
  checkEditable(sae, latents);
  const directions = await directionsOf(sae, latents);
  const groups = [...latents.map((latent) => [latent]), ...(latents.length > 1 ? [latents] : [])];
  return {
    groups,
    async remove(rows) {
      const codes = await sae.encode(rows);
      const count = rows.length / sae.dims.dIn;
      return groups.map((group) => {
        const edits = group.map((latent) => ({ latent, kind: "remove" as const, value: 0, isIn: () => true }));
        return {
          rows: edited(rows, codes, edits, directions),
          active: Uint8Array.from({ length: count }, (_, row) =>
            group.some((latent) => activationIn(codes, row, latent) !== 0) ? 1 : 0,
          ),
        };
      });
    },
  };
}

/** What a features file says of the autoencoder as a whole. */

import type { DensityBin } from "./density.ts";

export interface FeatureSummary {
  /** For people: the folder of the autoencoder. */
  readonly title: string;
  readonly step: number | null;
  readonly latents: number;
  /** Latents that are active in a row; a mean where a threshold decides. */
  readonly k: number;
  readonly width: number;
  /** Rows that were looked at, and of what. */
  readonly rows: number;
  readonly data: string;
  readonly model: string | null;
  readonly tensor: string | null;
  /** Rows a sequence, where rows come in sequences. */
  readonly sequence: number | null;
  readonly fvu: number | null;
  /** FVU on rows that the run held out, and how many; null or absent where that is not known. */
  readonly heldOut?: { readonly fvu: number | null; readonly rows: number } | null;
  readonly l0: number;
  /** Latents that did not fire in any of the rows. */
  readonly dead: number;
  readonly density: readonly DensityBin[];
  /** The latent to show first. */
  readonly first: number;
  /** Whether there are tokens, and so text. */
  readonly text: boolean;
  /** Whether the effect on the model's output is known. */
  readonly logits: boolean;
}

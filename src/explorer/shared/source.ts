/** What the explorer shows, wherever it comes from: a page's own elements, or a server. */

import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import type { LatentWords, StoredDocument, StoredLatent, StoredTogether } from "./format.ts";
import type { Label, LabelChange } from "./labels.ts";

/** A latent as the list shows it. */
export interface LatentRow extends LatentWords {
  readonly latent: number;
  readonly firings: number;
  /** Share of the rows in which it fires. */
  readonly density: number;
  readonly max: number;
  /** Share of the energy (sum of squared values) of all latents. */
  readonly importance: number;
  /** How readable it is; 0: nothing can be said. */
  readonly score: number;
  /** Absent where nobody has named it or noted anything. */
  readonly label?: Label;
}

export interface Passage {
  readonly value: number;
  /** Row of the data. */
  readonly row: number;
  /** Text of the tokens, and the latent's value on each; empty where there is no text. */
  readonly tokens: readonly string[];
  readonly values: readonly number[];
  /** Which of the tokens fires. */
  readonly at: number;
  /** The whole text that it is from; absent where that is not stored. */
  readonly document?: number;
}

/** A whole text, and what is known of the latents that are strongest in it. */
export interface Document extends StoredDocument {
  readonly strongest: readonly Other[];
}

/** A place for each latent, from 0 to 65,535. */
export interface LatentMap {
  readonly x: readonly number[];
  readonly y: readonly number[];
  /** Those that have names. */
  readonly named: readonly number[];
}

export interface Latent extends LatentRow, Omit<StoredLatent<Passage>, "nearest" | "together"> {
  /** Latents whose decoder rows point the same way, by cosine. */
  readonly nearest: readonly (Other & { readonly cosine: number })[];
  /** What fires with it; undefined in older files. */
  readonly together: readonly (Other & Pick<StoredTogether, "firings" | "lift">)[] | undefined;
}

/** Another latent, where it is named. */
export interface Other {
  readonly latent: number;
  readonly on: readonly string[];
  /** Absent where it has none. */
  readonly name?: string;
}

/** "match": how well a latent fits the search; without a search as "score". */
export const SORTS = ["score", "match", "density", "max", "importance", "latent"] as const;
export type Sort = (typeof SORTS)[number];

export interface LatentQuery {
  /**
   * A latent's number, which comes first, or words that are in the tokens that it fires on or
   * promotes, or in its name or note: all of them.
   */
  readonly search: string;
  /** Only those with a name or note. Default: all. */
  readonly named?: boolean;
  readonly sort: Sort;
  /** The largest first. */
  readonly descending: boolean;
  readonly offset: number;
  readonly count: number;
}

export interface LatentPage {
  /** How many latents there are to the query in all. */
  readonly total: number;
  readonly rows: readonly LatentRow[];
}

export interface ExplorerSource {
  summary(): Promise<FeatureSummary>;
  latents(query: LatentQuery): Promise<LatentPage>;
  /** Rejects with UsageError when there is no such latent. */
  latent(latent: number): Promise<Latent>;
  /** Rejects with UsageError when there is no such document. */
  document(document: number): Promise<Document>;
  /** undefined: the features have none. */
  map(): Promise<LatentMap | undefined>;
  /** Changes a label and resolves to it as it is then; absent where labels are only shown. */
  readonly relabel?: (latent: number, change: LabelChange) => Promise<Label>;
}

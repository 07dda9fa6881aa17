/** Two autoencoders next to each other: what is said of each latent, and in which words. */

/** Of a latent of A; of a latent of B. */
export const CLASSES = {
  a: ["match", "split", "absorbed", "lost"],
  b: ["match", "merged", "part", "new"],
} as const;
export type Side = keyof typeof CLASSES;
export type LatentClass = (typeof CLASSES)[Side][number];

/** What two latents are compared by. */
export const MEASURES = ["cosine", "correlation"] as const;
export type Measure = (typeof MEASURES)[number];

export const COMPARISON_DEFINITIONS = {
  cosine: "of the two decoder rows; 0 where it is not above 0",
  correlation:
    "Pearson's, of the activations of both on the same rows, those that are 0 included; 0 where it is not above 0",
  best: "the latent of the other autoencoder with the largest value of the measure",
  match: "each is the other's best, with at least the least value, and neither is the best of a second one",
  split: "a latent of A that is the best of two or more latents of B, with at least the least value",
  part: "a latent of B whose best, with at least the least value, is a split latent of A, or has a nearer one",
  absorbed: "a latent of A whose best, with at least the least value, is a merged latent of B, or has a nearer one",
  merged: "a latent of B that is the best of two or more latents of A, with at least the least value",
  lost: "a latent of A whose best has less than the least value",
  new: "a latent of B whose best has less than the least value",
} as const;

/** Columns, by latent. */
export interface ComparedSide {
  readonly latents: number;
  /** Of each measure: the best latent of the other side, its value, and the latent's class. */
  readonly by: Readonly<Partial<Record<Measure, Column>>>;
  /** Share of the rows in which each fires; absent without rows. */
  readonly density?: readonly number[];
}

export interface Column {
  readonly best: readonly number[];
  readonly value: readonly number[];
  /** Places in CLASSES of the side. */
  readonly class: readonly number[];
}

export interface Comparison {
  readonly a: ComparedSide;
  readonly b: ComparedSide;
  readonly names: { readonly a: string; readonly b: string };
  readonly least: number;
  /** Rows on which activations were compared; null: none. */
  readonly rows: number | null;
  readonly data: string | null;
}

/** How many latents of a side are of each class. */
export function countsOf(side: Side, { class: classes }: Column): Readonly<Record<string, number>> {
  const counts = CLASSES[side].map(() => 0);
  for (const each of classes) counts[each] = (counts[each] ?? 0) + 1;
  return Object.fromEntries(CLASSES[side].map((name, i) => [name, counts[i]!]));
}

/**
 * The classes of both sides by the best of each latent: `best` and `value` [n] of each. Latents
 * whose best has less than `least` choose none.
 */
export function classify(
  a: Pick<Column, "best" | "value">,
  b: Pick<Column, "best" | "value">,
  least: number,
): Readonly<Record<Side, number[]>> {
  const chosenBy = (from: typeof a, count: number) => {
    const times = new Uint32Array(count);
    for (const [i, best] of from.best.entries()) if (from.value[i]! >= least) times[best]!++;
    return times;
  };
  const [ofA, ofB] = [chosenBy(b, a.best.length), chosenBy(a, b.best.length)];
  // The same on both sides: match; one that many of the other side choose; one of many; none.
  const side = (from: typeof a, to: typeof a, own: Uint32Array, other: Uint32Array) =>
    from.best.map((best, i) => {
      if (own[i]! > 1) return 1;
      if (from.value[i]! < least) return 3;
      return to.best[best] === i && other[best] === 1 ? 0 : 2;
    });
  return { a: side(a, b, ofA, ofB), b: side(b, a, ofB, ofA) };
}

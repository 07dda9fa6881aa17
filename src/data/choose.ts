/** Which rows a run trains on and which it is judged by: a pure function of the data, its options and what was appended. */

import { type Appended, heldOutOf } from "./epochs.ts";
import { type Range, without } from "./holdout.ts";
import { type ExcludeTokens, excludedRows, maskedRows, type RowSet } from "./mask.ts";
import type { Source } from "./source.ts";

export interface Choice {
  /** Rows that training never sees: excluded tokens, masked rows and the hold-out. */
  readonly untrained: RowSet;
  /** The hold-out, without excluded tokens and masked rows, in file order. */
  readonly holdout: readonly Range[];
  /** Rows left out for their token. */
  readonly excluded: number;
  /** Rows that the source's mask leaves out. */
  readonly masked: RowSet;
}

export async function chooseRows(
  source: Source,
  {
    excludeTokens,
    holdout,
    seed,
  }: { readonly excludeTokens: ExcludeTokens; readonly holdout: number; readonly seed: number },
  appended: readonly Appended[] = [],
): Promise<Choice> {
  const masked = await maskedRows(source);
  const untrained = await excludedRows(source, excludeTokens);
  if (masked.size > 0) for (let row = 0; row < source.rows; row++) if (masked.has(row)) untrained.add(row);
  const excluded = untrained.size - masked.size;
  const sequences = heldOutOf(source, holdout, seed, appended);
  const ranges = without(sequences, untrained);
  for (const { first, count } of sequences) for (let row = first; row < first + count; row++) untrained.add(row);
  return { untrained, holdout: ranges, excluded, masked };
}

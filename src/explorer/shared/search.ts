/** Which latents a search finds, and how well each fits. */

import { bare, visible } from "../../util/visible.ts";
import type { LatentRow } from "./source.ts";

export interface Search {
  /** The latent whose number is searched for; undefined where the search is no number. */
  readonly number: number | undefined;
  /**
   * How well a latent fits; undefined where it does not. All words of the search must be in the
   * tokens that it fires on or promotes, or in its name or note. Words that are whole tokens count
   * most, and of these the words of a name; then the share of the latent's energy on the tokens
   * that were found.
   */
  rank(row: LatentRow): number | undefined;
}

export function searchFor(text: string): Search {
  const wanted = text.trim().toLowerCase();
  const words = wanted.split(/\s+/).filter((word) => word !== "");
  const digits = /^#?(\d+)$/.exec(wanted)?.[1];
  const number = digits === undefined ? undefined : Number(digits);
  return {
    number,
    rank(row) {
      const fits = words.map((word) => fitOf(word, row));
      const found = fits.filter((fit) => fit !== undefined);
      if (found.length < fits.length) return row.latent === number ? 0 : undefined;
      const whole = found.reduce((sum, fit) => sum + fit.whole, 0);
      return whole + Math.min(0.999_999, found.reduce((sum, { share }) => sum + share, 0) / Math.max(1, found.length));
    },
  };
}

function fitOf(
  word: string,
  { on, shares, up, label }: LatentRow,
): { readonly whole: 0 | 1; readonly share: number } | undefined {
  const name = visible(label?.name ?? "").toLowerCase();
  if (name.split(/[^\p{L}\p{N}]+/u).includes(word)) return { whole: 1, share: 1 };
  const isNamed = name.includes(word);
  let [isFound, whole, wholeShare, share] = [isNamed, 0 as 0 | 1, 0, isNamed ? 1 : 0];
  isFound ||= visible(label?.note ?? "")
    .toLowerCase()
    .includes(word);
  for (const [i, token] of [...on, ...up].entries()) {
    const text = bare(token).toLowerCase();
    if (!text.includes(word)) continue;
    const part = i < on.length ? (shares?.[i] ?? 0) : 0;
    isFound = true;
    share += part;
    if (text !== word) continue;
    whole = 1;
    wholeShare += part;
  }
  return isFound ? { whole, share: whole === 1 ? wholeShare : share } : undefined;
}

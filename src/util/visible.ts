/** Text of strangers on a terminal or a page. Nothing here needs Node: pages use it too. */

/**
 * What a reader cannot see or what acts on the text around it: control characters, directions
 * (bidi), zero-width characters, other line ends, fillers, tags, halves of surrogate pairs.
 */
const UNSEEN = /(?!\p{Variation_Selector})[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb]/gu;

const NAMES: Readonly<Record<string, string>> = { "\n": "⏎", "\t": "⇥" };

/** A token by itself: without spaces around, unless it is nothing else. */
export function bare(text: string): string {
  const shown = visible(text).trim();
  return shown === "" ? "␣".repeat(Math.max(1, text.length)) : shown;
}

/** The text on one line, with a mark in place of what cannot be seen: a dot, or ⏎ and ⇥. */
export function visible(text: string): string {
  return text.replace(UNSEEN, (char) => NAMES[char] ?? "·");
}

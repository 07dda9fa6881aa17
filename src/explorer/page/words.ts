/** Numbers and tokens as people read them. */

import { formatCount, formatPercent } from "../../util/format.ts";

export { formatCount as count };

/** A share as a percentage; the smallest of all only as below a bound. */
export function percent(share: number): string {
  return share > 0 && share * 100 < 0.0001 ? "< 0.0001 %" : formatPercent(share);
}

/** A value of a latent, in three digits. */
export function amount(value: number): string {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** A token on one line, with a mark for what cannot be seen. */
export function visible(text: string): string {
  return Array.from(text, (char) => {
    if (char === "\n") return "⏎";
    if (char === "\t") return "⇥";
    const code = char.codePointAt(0) ?? 0;
    return code < 0x20 ||
      (code >= 0x7f && code < 0xa0) ||
      (code >= 0x202a && code <= 0x202e) ||
      (code >= 0x2066 && code <= 0x2069)
      ? "·"
      : char;
  }).join("");
}

/** A token by itself: without spaces around, unless it is nothing else. */
export function bare(text: string): string {
  const shown = visible(text).trim();
  return shown === "" ? "␣".repeat(Math.max(1, text.length)) : shown;
}

/** How strong a value is beside the strongest of its latent: 0 (none) to 8. */
export function level(value: number, max: number): number {
  return value > 0 ? Math.min(8, Math.max(1, Math.ceil((value / max) * 8))) : 0;
}

/** Numbers and tokens as people read them. */

import { formatPercent } from "../../util/format.ts";
import { visible } from "../../util/visible.ts";

export { counted, formatCount as count } from "../../util/format.ts";
export { visible } from "../../util/visible.ts";

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

/** A token by itself: without spaces around, unless it is nothing else. */
export function bare(text: string): string {
  const shown = visible(text).trim();
  return shown === "" ? "␣".repeat(Math.max(1, text.length)) : shown;
}

/** How strong a value is beside the strongest of its latent: 0 (none) to 8. */
export function level(value: number, max: number): number {
  return value > 0 ? Math.min(8, Math.max(1, Math.ceil((value / max) * 8))) : 0;
}

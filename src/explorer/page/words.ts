/** Numbers and tokens as people read them. */

import { formatCount, formatPercent } from "../../util/format.ts";
import type { Passage } from "../shared/source.ts";

export { counted, formatCount as count, nounOf } from "../../util/format.ts";
export { bare, visible } from "../../util/visible.ts";

/** A share as a percentage; the smallest of all only as below a bound. */
export function percent(share: number): string {
  return share > 0 && share * 100 < 0.0001 ? "< 0.0001 %" : formatPercent(share);
}

/** A measure in four digits: "0.1410". */
export function figure(value: number | null): string {
  return value === null ? "undefined" : value.toPrecision(4);
}

/** How many latents are active in a row: "32 at a time", or "117 at a time on average". */
export function atATime(active: number): string {
  return Number.isInteger(active) ? `${formatCount(active)} at a time` : `${amount(active)} at a time on average`;
}

/** A value of a latent, in three digits. */
export function amount(value: number): string {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** How strong a value is beside the strongest of its latent: 0 (none) to 8. */
export function level(value: number, max: number): number {
  return value > 0 ? Math.min(8, Math.max(1, Math.ceil((value / max) * 8))) : 0;
}

/**
 * The passage with each token that is a part of a character joined to the token that has the
 * character; it has the larger of their values.
 */
export function joined({ tokens, values, at, ...passage }: Passage): Passage {
  const kept: { readonly text: string; readonly value: number }[] = [];
  let place = 0;
  let value = 0;
  for (const [i, text] of tokens.entries()) {
    value = Math.max(value, values[i] ?? 0);
    if (i === at) place = kept.length;
    if (text === "" && i + 1 < tokens.length) continue;
    kept.push({ text, value });
    value = 0;
  }
  return { ...passage, tokens: kept.map(({ text }) => text), values: kept.map((each) => each.value), at: place };
}

/** A whole number below `end`; undefined for anything else. */
export function wholeBelow(text: string, end: number): number | undefined {
  return /^\d{1,9}$/.test(text) && Number(text) < end ? Number(text) : undefined;
}

/** The one wording of "this value is not allowed": NAME must be ALLOWED, but is VALUE. */

import { didYouMean } from "./closest.ts";

export interface Bounds {
  /** Smallest allowed value; with `exclusive`, the value itself is not allowed. */
  readonly least?: number;
  readonly most?: number;
  readonly leastExclusive?: boolean;
  readonly mostExclusive?: boolean;
}

/**
 * "k must be a whole number of at least 1, but is 0". `words`: allowed words, for "did you mean".
 */
export function mustBe(name: string, allowed: string, value: unknown, words: readonly string[] = []): string {
  const meant = typeof value === "string" ? didYouMean(value, words) : "";
  return `${name} must be ${allowed}, but is ${valueInWords(value)}${meant}`;
}

/** "auto, cpu or cuda". */
export function eitherOf(words: readonly string[]): string {
  return words.length < 2 ? words.join() : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** "a number from 0 to 0.5", "a number above 0", "a number of at least 0 and below 1". */
export function numberInWords({ least, most, leastExclusive, mostExclusive }: Bounds, kind = "number"): string {
  if (least !== undefined && most !== undefined && !leastExclusive && !mostExclusive)
    return `a ${kind} from ${least} to ${most}`;
  const low = least === undefined ? [] : [leastExclusive ? `above ${least}` : `of at least ${least}`];
  const high = most === undefined ? [] : [mostExclusive ? `below ${most}` : `of at most ${most}`];
  return [`a ${kind}`, [...low, ...high].join(" and ")].filter(Boolean).join(" ");
}

/**
 * "a whole number of at least 1, such as 1000, 10k or 1.5M"; examples only where there is no upper
 * bound.
 */
export function countInWords(least: number, most = Number.MAX_SAFE_INTEGER): string {
  return most < Number.MAX_SAFE_INTEGER
    ? numberInWords({ least, most }, "whole number")
    : `${numberInWords({ least }, "whole number")}, such as 1000, 10k or 1.5M`;
}

/** Any value on one short line: text in quotes; objects are not spelled out. */
export function valueInWords(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) {
    const shown = value.slice(0, 8).map((each: unknown) => (Array.isArray(each) ? "a list" : valueInWords(each)));
    return `[${[...shown, ...(value.length > 8 ? ["..."] : [])].join(", ")}]`;
  }
  if (typeof value === "function") return "a function";
  return typeof value === "object" && value !== null ? "an object" : String(value);
}

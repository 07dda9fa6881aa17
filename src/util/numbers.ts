import { UsageError } from "./errors.ts";
import { type Bounds, countInWords, mustBe, numberInWords } from "./must.ts";

const EXPONENTS: Readonly<Record<string, number>> = { "": 0, k: 3, m: 6, g: 9, b: 9 };

/**
 * A count as people write it: 1000, 10k, 10M, 1.5G (or 1.5B), 1e6. Undefined for any other text.
 */
export function countOf(text: string): number | undefined {
  const match = /^(\d{1,16}(?:\.\d{1,16})?)(?:e(\d{1,2})|([kmgb]))?$/i.exec(text);
  if (match === null) return undefined;
  const [, mantissa = "", exponent = "", suffix = ""] = match;
  // Parsing "1.1e6" rounds once; 1.1 * 1e6 would not be whole.
  const value = Number(`${mantissa}e${exponent === "" ? EXPONENTS[suffix.toLowerCase()] : exponent}`);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Throws UsageError naming `what` unless `text` is a count from `least` to `most`. */
export function parseCount(text: string, what: string, least = 1, most = Number.MAX_SAFE_INTEGER): number {
  const value = countOf(text);
  if (value === undefined || value < least || value > most)
    throw new UsageError(mustBe(what, countInWords(least, most), text));
  return value;
}

/** Throws UsageError naming `what` unless `text` is a finite number within the bounds. */
export function parseNumber(text: string, what: string, bounds: Bounds = {}): number {
  const value = numberOf(text);
  const { least = Number.NEGATIVE_INFINITY, most = Number.POSITIVE_INFINITY } = bounds;
  const inside =
    value !== undefined &&
    (bounds.leastExclusive ? value > least : value >= least) &&
    (bounds.mostExclusive ? value < most : value <= most);
  if (!inside) throw new UsageError(mustBe(what, numberInWords(bounds), text));
  return value;
}

/** A finite number. Undefined for any other text. */
export function numberOf(text: string): number | undefined {
  const value = Number(text);
  return text.trim() !== "" && Number.isFinite(value) ? value : undefined;
}

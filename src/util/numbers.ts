import { UsageError } from "./errors.ts";

const EXPONENTS: Readonly<Record<string, number>> = { "": 0, k: 3, m: 6, g: 9, b: 9 };

/**
 * A count as people write it: 1000, 10k, 10M, 1.5G (or 1.5B), 1e6. Throws UsageError naming `what` unless it is a whole number from `least`
 * to 2^53 - 1.
 */
export function parseCount(text: string, what: string, least = 1): number {
  const match = /^(\d{1,16}(?:\.\d{1,16})?)(?:e(\d{1,2})|([kmgb]))?$/i.exec(text);
  const [, mantissa = "", exponent = "", suffix = ""] = match ?? [];
  // Parsing "1.1e6" rounds once; 1.1 * 1e6 would not be whole.
  const value = Number(`${mantissa}e${exponent === "" ? EXPONENTS[suffix.toLowerCase()] : exponent}`);
  if (match === null || !Number.isSafeInteger(value) || value < least) {
    throw new UsageError(
      `${what} must be a whole number of at least ${least}, such as 1000, 10k or 1.5M, but is '${text.slice(0, 40)}'`,
    );
  }
  return value;
}

/** Numbers as people read them. Nothing here needs Node: pages use it too. */

/** A whole number with thousands marked: "12,345". */
export function formatCount(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/**
 * A count with its noun: "1 step", "2,929 steps". `many`: the plural, where it is not the noun and
 * "s".
 */
export function counted(count: number, one: string, many?: string): string {
  return `${formatCount(count)} ${nounOf(count, one, many)}`;
}

/** The noun of a count: "step" of 1, else "steps". */
export function nounOf(count: number, one: string, many = `${one}s`): string {
  return Math.round(count) === 1 ? one : many;
}

/** A share as a percentage of two digits: "93 %", "1.9 %", "0.076 %". */
export function formatPercent(share: number): string {
  const value = share * 100;
  return `${value >= 10 ? Math.round(value) : Number(value.toPrecision(2))} %`;
}

/** Seconds as people say them: "8 s", "2 min 05 s", "3 h 07 min". */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${formatCount(Math.floor(whole / 3600))} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/**
 * A preflight in words: one line for the start of a run, and a word of advice where something is
 * off.
 */

import {
  LARGE,
  OUTLIER_MEAN,
  OUTLIER_SHARE,
  type Preflight,
  type RunPreflight,
  type SourcePreflight,
} from "./preflight.ts";

/** More of them are only counted. */
const LISTED = 8;

/**
 * "norm 12.3 (median 12.0, 99 %: 15.1, largest 20.4), mean/spread 0.45, outlier dimensions 138 378,
 * duplicates 0.1 %, all finite, excluded tokens 2.6 x the norm".
 */
export function preflightLine({
  norms,
  meanToSpread,
  outliers,
  duplicates,
  nonFinite,
  excluded,
}: RunPreflight): string {
  const { mean, median, p99, max } = norms;
  const listed = outliers.slice(0, LISTED).map(({ dimension }) => dimension);
  const more = outliers.length > LISTED ? ` and ${outliers.length - LISTED} more` : "";
  return [
    `norm ${figure(mean)} (median ${figure(median)}, 99 %: ${figure(p99)}, largest ${figure(max)})`,
    `mean/spread ${figure(meanToSpread)}`,
    outliers.length === 0 ? "no outlier dimensions" : `outlier dimensions ${listed.join(" ")}${more}`,
    duplicates === 0 ? "no duplicates" : `duplicates ${percent(duplicates)}`,
    nonFinite === 0 ? "all finite" : `${nonFinite} not finite`,
    ...(excluded === undefined || median === 0
      ? []
      : [`excluded tokens ${figure(excluded.median / median)} x the norm`]),
  ].join(", ");
}

/** What is worth knowing or doing, a sentence each; none when all is well. */
export function advice(found: SourcePreflight): string[] {
  const said: string[] = [];
  const { norms, nonFinite, sampled, startTokens, zeroRows, everything } = found;
  if (nonFinite > 0) {
    said.push(
      `${nonFinite} of ${sampled} sampled rows hold NaN or Inf, first ${found.firstNonFinite}: training stops there unless --non-finite skip is given`,
    );
  }
  if (zeroRows > 0 && found.rows > 0)
    said.push(
      everything
        ? zeroRowsNote(zeroRows, sampled)
        : `${amount(zeroRows)} of the ${amount(sampled)} sampled rows are all zero, as rows that were never written are: ${ZERO_ROWS}`,
    );
  if (startTokens !== undefined && startTokens.rows > 0 && norms.median > 0) {
    const times = startTokens.norms.median / norms.median;
    if (times > 1.5)
      said.push(`start tokens have ${figure(times)} x the norm of the others: they are left out by default`);
  }
  if (found.rows === 0 && zeroRows === 0) return said;
  if (norms.max === 0) return [...said, "all rows are 0: nothing can be learned from them"];
  return [...said, ...notesOf(found)];
}

const ZERO_ROWS = "they are left out of training and hold-out (--zero-rows keep would keep them)";

/** For people: rows that are all zero, of all rows. */
export function zeroRowsNote(zeros: number, rows: number): string {
  return `${amount(zeros)} of ${amount(rows)} rows ${zeros === 1 ? "is" : "are"} all zero, as rows that were never written are: ${ZERO_ROWS}`;
}

/**
 * What is worth knowing of the rows that a run would train on, a sentence each. `inspect` and
 * `train` say it alike.
 */
export function notesOf(found: Preflight & { readonly everything: boolean }): string[] {
  const said: string[] = [];
  const { rows, everything, norms, meanToSpread, outliers, duplicates, large, sinks, scales } = found;
  if (sinks.length > 0) {
    const [several, listed] = [sinks.length > 1, sinks.slice(0, LISTED)];
    const more = sinks.length > LISTED ? ` (and ${sinks.length - LISTED} more)` : "";
    said.push(
      `position${several ? "s" : ""} ${enumerated(listed.map(({ position }) => String(position)))}${more} ${several ? "have" : "has"} ` +
        `${enumerated(listed.map(({ times }) => figure(times)))} times the norm of other positions: --exclude-positions ` +
        `${listed.map(({ position }) => position).join(",")} leaves ${several ? "them" : "it"} out`,
    );
  }
  if (large.rows > 0 && large.varianceShare > LARGE_SHARE) {
    const which = everything
      ? `${amount(large.rows)} row${large.rows === 1 ? "" : "s"}`
      : `${amount(large.rows)} of the ${amount(rows)} sampled rows`;
    const [carry, them] = large.rows === 1 ? ["carries", "it"] : ["carry", "them"];
    said.push(
      `${which} above ${LARGE} times the median ${carry} ${percent(large.varianceShare)} of the variance; --max-norm ${LARGE} leaves ${them} out`,
    );
  } else if (norms.max > LARGE * norms.median && norms.median > 0) {
    said.push(`the largest norm is ${figure(norms.max / norms.median)} x the median`);
  }
  if (scales !== undefined) {
    const { times, small, large: big } = scales;
    said.push(
      `elements differ in scale by ${figure(times)}: ${elements(big)} ${big.length === 1 ? "has" : "have"} that many times the spread of ${elements(small)}, ` +
        "so the FVU says little of the smaller ones; bring them to one scale, or train on them apart",
    );
  }
  if (meanToSpread > 3) {
    said.push(
      `the mean row is ${figure(meanToSpread)} x as long as the spread around it: the pre-bias starts at the median and takes it up, but watch FVU, not the loss`,
    );
  }
  if (outliers.length > 0) {
    const { dimension, varianceShare, meanOverStd } = outliers.reduce((a, b) =>
      b.varianceShare > a.varianceShare ? b : a,
    );
    said.push(
      `${outliers.length === 1 ? "1 dimension is an outlier" : `${outliers.length} dimensions are outliers`} (more than ${OUTLIER_SHARE} x an even share of the variance, or a mean beyond ` +
        `${OUTLIER_MEAN} standard deviations); ${dimension} has ${percent(varianceShare)} of the variance, |mean| / std ${figure(meanOverStd)}`,
    );
  }
  if (duplicates > 0.05)
    said.push(`${percent(duplicates)} of the sampled rows repeat another one: check how the file was made`);
  return said;
}

/** Rows that carry less of the variance are not worth a word. */
const LARGE_SHARE = 0.05;

function amount(count: number): string {
  return count.toLocaleString("en-US");
}

/** "a, b and c". */
function enumerated(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** "elements 16 to 31" where they are neighbours, else how many they are. */
function elements(which: readonly number[]): string {
  const [first, last] = [which[0]!, which.at(-1)!];
  if (which.length === 1) return `element ${first}`;
  if (last - first + 1 === which.length) return `elements ${first} to ${last}`;
  return `${which.length} elements (${first}, ...)`;
}

function figure(value: number): string {
  if (!Number.isFinite(value)) return "infinite";
  return value === 0 ? "0" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function percent(share: number): string {
  const value = 100 * share;
  return `${value < 10 ? value.toPrecision(2) : Math.min(Math.round(value), share < 1 ? 99 : 100)} %`;
}

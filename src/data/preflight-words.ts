/** A preflight in words: one line for the start of a run, and a word of advice where something is off. */

import { OUTLIER_MEAN, OUTLIER_SHARE, type RunPreflight, type SourcePreflight } from "./preflight.ts";

/** More of them are only counted. */
const LISTED = 8;

/** "norm 12.3 (median 12.0, 99 %: 15.1, largest 20.4), mean/spread 0.45, outlier dimensions 138 378, duplicates 0.1 %, all finite, excluded tokens 2.6 x the norm". */
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
  const { norms, meanToSpread, outliers, duplicates, nonFinite, sampled, startTokens } = found;
  if (nonFinite > 0) {
    said.push(
      `${nonFinite} of ${sampled} sampled rows hold NaN or Inf, first ${found.firstNonFinite}: training stops there unless --non-finite skip is given`,
    );
  }
  if (startTokens !== undefined && startTokens.rows > 0 && norms.median > 0) {
    const times = startTokens.norms.median / norms.median;
    if (times > 1.5)
      said.push(`start tokens have ${figure(times)} x the norm of the others: they are left out by default`);
  }
  if (found.rows === 0) return said;
  if (norms.max === 0) said.push("all rows are 0: nothing can be learned from them");
  else if (norms.max > 10 * norms.median && norms.median > 0) {
    said.push(
      `the largest norm is ${figure(norms.max / norms.median)} x the median: a few rows will own the loss; leave their tokens out with --exclude-tokens, or see --normalize`,
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

function figure(value: number): string {
  if (!Number.isFinite(value)) return "infinite";
  return value === 0 ? "0" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function percent(share: number): string {
  return `${(100 * share).toPrecision(2)} %`;
}

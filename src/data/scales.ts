/**
 * Whether the elements of a row have one scale, or two groups of them have scales far apart, as two
 * layers written next to each other.
 */

export interface ElementScales {
  /** The median standard deviation of the large elements over that of the small ones. */
  readonly times: number;
  /** The elements of each group, in order. */
  readonly small: readonly number[];
  readonly large: readonly number[];
}

/**
 * Groups whose scales differ by less are not worth a word: elements of one tensor differ by some
 * times.
 */
const APART = 10;

/** A group with a smaller share of the elements is a few outliers, which are named on their own. */
const LEAST_SHARE = 0.02;

/**
 * From the variance of each element [d]. Splits log standard deviations in two where the variance
 * between the groups is the largest (Otsu's threshold); elements that never change are in neither.
 */
export function elementScales(variance: Float64Array): ElementScales | undefined {
  const order = [...variance.keys()].filter((i) => variance[i]! > 0).sort((a, b) => variance[a]! - variance[b]!);
  const logs = order.map((i) => Math.log(variance[i]!) / 2);
  const all = logs.reduce((sum, value) => sum + value, 0);
  let [split, most, below] = [0, 0, 0];
  for (let i = 1; i < logs.length; i++) {
    below += logs[i - 1]!;
    const between = i * (logs.length - i) * ((all - below) / (logs.length - i) - below / i) ** 2;
    if (between > most) [split, most] = [i, between];
  }
  const [small, large] = [order.slice(0, split), order.slice(split)];
  if (Math.min(small.length, large.length) < Math.max(1, LEAST_SHARE * order.length)) return undefined;
  const middle = (group: readonly number[]) => variance[group[Math.floor(group.length / 2)]!]!;
  const times = Math.sqrt(middle(large) / middle(small));
  if (times < APART) return undefined;
  const rising = (group: readonly number[]) => [...group].sort((a, b) => a - b);
  return { times, small: rising(small), large: rising(large) };
}

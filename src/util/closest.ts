/** What somebody may have meant. */

/** Other names of a value, which no distance of letters finds. */
const SAME: Readonly<Record<string, readonly string[]>> = {
  cuda: ["gpu", "nvidia", "cuda:0"],
  f32: ["float32", "fp32", "float", "single"],
  bf16: ["bfloat16"],
  f16: ["float16", "half", "fp16"],
  fp16: ["float16", "half", "f16"],
  layer_norm: ["layernorm", "ln"],
  scale: ["expected_average_only_in", "constant_norm_rescale"],
};

/**
 * "; did you mean X?" for the candidate nearest to a misspelt word, or nothing when none is near.
 */
export function didYouMean(word: string, candidates: readonly string[]): string {
  const same = candidates.find((each) => SAME[each]?.includes(word.toLowerCase()));
  if (same !== undefined) return `; did you mean ${same}?`;
  const least = { candidate: "", distance: Math.max(1, Math.floor(word.length / 3)) + 1 };
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), least.distance);
    if (distance < least.distance) Object.assign(least, { candidate, distance });
  }
  return least.candidate === "" ? "" : `; did you mean ${least.candidate}?`;
}

/**
 * Letters to insert, delete, replace or swap with their neighbour (Damerau, in the restricted
 * form); `most` when there are as many or more.
 */
export function editDistance(a: string, b: string, most: number): number {
  if (Math.abs(a.length - b.length) >= most) return most;
  let [before, last]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(last[j]! + 1, row[j - 1]! + 1, replaced);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j], before[j - 2]! + 1);
    }
    [before, last] = [last, row];
  }
  return Math.min(most, last[b.length]!);
}

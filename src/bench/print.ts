/** What `saetta bench` finds, as text for people. */

import { formatCount, formatDuration } from "../util/progress.ts";
import { SAME } from "./recovery.ts";
import type { StepTime } from "./step.ts";
import type { SyntheticReport } from "./synthetic.ts";

export function stepText({
  sizes,
  batch,
  steps,
  dead,
  millisecondsPerStep,
  rowsPerSecond,
  cpuPerWall,
}: StepTime): string {
  const { d, n, k, auxk } = sizes;
  const rate = `${millisecondsPerStep.toFixed(1)} ms a step, ${formatCount(rowsPerSecond)} rows/s`;
  const counted = `median of ${steps} steps, ${formatCount(dead)} latents dead`;
  return `d ${d}, n ${n}, k ${k}, auxk ${auxk}, batch ${batch}: ${rate}, CPU/wall ${cpuPerWall.toFixed(2)} (${counted})`;
}

export function syntheticText({
  dictionary,
  training,
  engine,
  reason,
  rows,
  seconds,
  fvu,
  dead,
  recovery: found,
  firings,
}: SyntheticReport): string {
  const { directions, width, active, amplitude, noise, together, seed } = dictionary;
  const { architecture, latents, k, auxk, targetL0, batch, lr, warmup, decay, deadTokens } = training;
  const matched = found.matches.length;
  const mean = found.matches.reduce((sum, { cosine }) => sum + cosine, 0) / matched;
  const { children = 0 } = dictionary;
  const families = `a parent and ${children} children each, Zipf frequencies`;
  const partners =
    children > 0 ? families : together === 0 ? "independent" : `partners on together with probability ${together}`;
  return [
    `dictionary    ${directions} unit directions in ${width} dimensions, ${active} active a row (${partners}), amplitudes ${amplitude[0]} to ${amplitude[1]}, noise ${noise}, seed ${seed}`,
    `autoencoder   ${formatCount(latents ?? 0)} latents, ${architecture}, ${k === undefined ? `target L0 ${targetL0}` : `k ${k}, auxk ${auxk}`}`,
    `training      ${formatCount(rows)} rows in batches of ${batch}, learning rate ${lr} (warm-up ${warmup} steps, decay over the last ${decay}), dead after ${formatCount(deadTokens ?? 0)} rows`,
    `engine        ${engine}`,
    `time          ${formatDuration(seconds)} (${formatCount(rows / Math.max(1e-9, seconds))} rows/s, making the rows included)${reason === "stopped" ? ", stopped before the end" : ""}`,
    `last batch    FVU ${Number.isFinite(fvu) ? fvu.toPrecision(3) : "not known"}`,
    `dead latents  ${dead.most} at most (step ${formatCount(dead.mostAtStep)}), ${dead.revived} or more revived, ${dead.atEnd} at the end`,
    "",
    "recovery      largest cosine of a true direction with a decoder row",
    `  mean        ${found.meanMaxCosine.toFixed(4)} (median ${found.medianMaxCosine.toFixed(4)}, least ${found.leastMaxCosine.toFixed(4)})`,
    ...found.above.map(
      ({ cosine, share }) => `  above ${cosine.toFixed(2)}  ${(100 * share).toFixed(1)} % of the directions`,
    ),
    `matching      one latent to one direction, greedily by cosine, down to ${SAME}`,
    `  directions  ${matched} matched${matched > 0 ? ` (mean cosine ${mean.toFixed(4)})` : ""}, ${directions - matched} not`,
    `  latents     ${matched} matched, ${found.duplicated} duplicates of a matched one, ${found.unmatched} with no direction`,
    `firings       F1 of each direction and the latent nearest to it, on ${formatCount(firings.rows)} new rows`,
    `  mean        ${firings.f1.toFixed(4)}${firings.parentF1 === null ? "" : `, parents ${firings.parentF1.toFixed(4)} (${(100 * firings.parentsFound!).toFixed(0)} % from 0.9), children ${firings.childF1!.toFixed(4)}`}`,
  ].join("\n");
}

/** What `train` and `resume` show of a run. Results go to stdout, everything else to stderr. */

import type { Config } from "../config.ts";
import { preflightLine } from "../data/preflight-words.ts";
import type { Report } from "../run-files/metrics.ts";
import type { DataInUse, TrainRun } from "../train/run.ts";
import { formatBytes } from "../util/bytes.ts";
import { counted } from "../util/format.ts";
import { type Point, plot } from "../util/plot.ts";
import { createProgressLine, formatCount, formatDuration } from "../util/progress.ts";
import type { Ending } from "./signals.ts";

/** Follows a run to its end and sets the exit code. */
export async function follow(run: TrainRun, ending: Ending, as: "text" | "json" | "quiet"): Promise<void> {
  const { config, data } = run;
  if (as === "quiet") {
    await (await run.finished).sae.close();
    process.exitCode = ending.exitCode();
    return;
  }
  const json = as === "json";
  if (!json) {
    if (run.out !== undefined) say(`run          ${run.out}`);
    for (const line of dataLines(config, data)) say(line);
    say(`autoencoder  ${counted(config.latents, "latent")}, k ${config.k}, auxk ${config.auxk}`);
    say(
      `steps        ${formatCount(run.steps)} of ${counted(config.batch, "row")}, learning rate ${config.lr.toPrecision(3)}`,
    );
    say(`engine       ${run.engine}`);
    const { memory, seconds } = run.forecast;
    const time = seconds === undefined ? "" : `, ${timeWords(seconds)}`;
    say(`needs        ${formatBytes(memory.needed)} of memory, ${formatBytes(memory.free)} are free${time}`);
  }
  const progress = createProgressLine({ label: "train", total: run.budget, unit: "rows", start: run.trainedBefore });
  const curve: Point[] = [];
  for await (const report of run) {
    progress.update(report.tokens, brief(report));
    curve.push({ x: report.step, y: report.loss });
  }
  progress.done();
  const { sae, ...result } = await run.finished;
  await sae.close();
  if (json) say(JSON.stringify({ run: run.out, ...result }));
  else {
    const { report } = result;
    const lines = plot(curve);
    if (lines.length > 0) say(`loss\n${lines.join("\n")}`);
    const time =
      report === undefined
        ? ""
        : ` in ${formatDuration(report.elapsed_s)} (${formatCount(result.tokens / report.elapsed_s)} rows/s)`;
    say(`${result.reason.padEnd(13)}${counted(result.steps, "step")}, ${counted(result.tokens, "row")}${time}`);
    if (report !== undefined) say(`result       ${brief(report)}, ${heldOut(report)}L0 ${figure(report.l0)}`);
    if (report?.holdout_fvu_ema !== undefined) say(`weights      ${averageWords(report)}`);
    for (const each of result.advice) say(`advice       ${each}`);
    if (run.out !== undefined) say(`run          ${run.out}`);
  }
  process.exitCode = ending.exitCode();
}

/** How long something will take. */
export function timeWords(seconds: number): string {
  return seconds < 1 ? "less than a second" : `about ${formatDuration(seconds)}`;
}

/** What is trained on, and what is not. */
export function dataLines(config: Config, data: DataInUse): string[] {
  const left = [
    `${formatCount(data.heldOut)} held out`,
    ...(data.excluded > 0 ? [`${formatCount(data.excluded)} excluded for their ${excludedFor(config)}`] : []),
    ...(data.zeros > 0 ? [`${formatCount(data.zeros)} all zero`] : []),
    ...(data.above > 0
      ? [
          `${formatCount(data.above)} above a norm of ${config.normLimit?.toPrecision(4)} (--max-norm ${config.maxNorm})`,
        ]
      : []),
    ...(data.masked > 0 ? [`${formatCount(data.masked)} masked`] : []),
  ];
  return [
    `data         ${data.description}; ${formatCount(data.rowsPerEpoch)} to train on, ${left.join(", ")}`,
    ...(data.preflight === undefined ? [] : [`rows         ${preflightLine(data.preflight)}`]),
  ];
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function excludedFor({ excludeTokens, excludePositions }: Config): string {
  if (excludePositions === "none") return "token";
  return excludeTokens === "none" ? "position" : "token or position";
}

function brief({ loss, fvu, dead }: Report): string {
  return `loss ${figure(loss)}, FVU ${figure(fvu)}, ${formatCount(dead)} dead`;
}

function heldOut({ holdout_fvu }: Report): string {
  return holdout_fvu === undefined ? "" : `held-out FVU ${figure(holdout_fvu)}, `;
}

function averageWords({ holdout_fvu, holdout_fvu_ema }: Report): string {
  return `held-out FVU ${figure(holdout_fvu)} of the raw weights, ${figure(holdout_fvu_ema)} of the running average; export and eval take the average unless --weights raw is given`;
}

function figure(value: number | undefined): string {
  return value !== undefined && Number.isFinite(value) ? value.toPrecision(4) : "not finite";
}

/** What is said at the end of a run that went badly. */

import type { Config, TrainOptions } from "../config.ts";
import { withDefaults } from "../config.ts";
import type { Report } from "../run-files/metrics.ts";
import { formatCount } from "../util/progress.ts";

/** From here on an FVU is hardly better than that of the mean row, which is 1. */
const HIGH_FVU = 0.8;
/** Share of the latents. */
const MANY_DEAD = 0.25;
/**
 * Adam moves no weight by more than about the learning rate per step; weights of unit rows are
 * larger than this.
 */
const LEAST_MOVE = 1e-3;
/** Share of the steps. */
const MANY_SKIPPED = 0.1;
/** The average is worse where its FVU is larger by more than this share. */
const WORSE = 0.02;

/**
 * Sentences on a finished run: what is wrong, and what to do. `report`: its last line; `steps`: all
 * of its steps.
 */
export function runAdvice(report: Report, config: Config, steps: number): string[] {
  const { l0, dead, dead_fraction, skipped, holdout_fvu, holdout_fvu_ema } = report;
  const said: string[] = [];
  const [fvu, of] = holdout_fvu === undefined ? [report.fvu, "FVU"] : [holdout_fvu, "held-out FVU"];
  const moved = config.lr * steps;
  if (!Number.isFinite(report.loss)) {
    said.push("the loss is not finite: lower --lr, set --clip 1, or look at the data with saetta inspect");
  }
  if (moved < LEAST_MOVE) {
    said.push(
      `a learning rate of ${config.lr.toPrecision(2)} moves no weight by more than ${moved.toPrecision(2)} in ${formatCount(steps)} steps: raise --lr, or leave it out`,
    );
  }
  if (l0 === 0) {
    said.push("no latent is on in the last batch (L0 0): lower --lr, or look at the data with saetta inspect");
  } else if (config.k !== undefined && l0 < Math.min(1, config.k / 2)) {
    said.push(`a row has ${l0.toPrecision(2)} latents on, of k ${config.k}: lower --lr, or look at the data`);
  }
  if (fvu >= 1) {
    said.push(
      `${of} ${fvu.toPrecision(4)} is no better than the mean row (1): train on more rows (--tokens), change --lr, or look at the data with saetta inspect`,
    );
  } else if (fvu >= HIGH_FVU) {
    said.push(
      `${of} ${fvu.toPrecision(4)} is hardly better than the mean row (1): train on more rows (--tokens), raise --k or --latents, or look at the data with saetta inspect`,
    );
  }
  if (dead_fraction >= MANY_DEAD) {
    const help =
      config.auxk === 0
        ? `the auxiliary loss that brings them back is off: leave out ${config.multiTopk === undefined ? "--auxk 0" : "--multi-topk"}`
        : config.normalize === "none"
          ? "pass --normalize scale, give fewer --latents, or train on more rows (--tokens)"
          : "give fewer --latents, train on more rows (--tokens), or lower --lr";
    said.push(
      `${formatCount(dead)} of ${formatCount(config.latents)} latents (${Math.round(100 * dead_fraction)} %) are dead: ${help}`,
    );
  }
  if (skipped >= MANY_SKIPPED * steps) {
    said.push(
      `${formatCount(skipped)} of ${formatCount(steps)} steps were skipped because something was not finite: lower --lr, set --clip 1, or look at the data with saetta inspect`,
    );
  }
  if (holdout_fvu !== undefined && holdout_fvu_ema !== undefined && holdout_fvu_ema > holdout_fvu * (1 + WORSE)) {
    said.push(
      `the running average is worse than the raw weights (held-out FVU ${holdout_fvu_ema.toPrecision(4)} against ${holdout_fvu.toPrecision(4)}): pass --weights raw to eval and export, or train with a smaller --ema`,
    );
  }
  return said;
}

/**
 * Sentences on values that nobody gave and that come out small. `rows`: the budget; `dIn`: the
 * width.
 */
export function smallDefaults(asked: TrainOptions, config: Config, rows: number, dIn: number): string[] {
  const given = withDefaults(asked);
  if (given.latents !== undefined || given.expansion !== undefined || config.latents >= 2 * dIn) return [];
  return [
    `${formatCount(config.latents)} latents were chosen for a budget of ${formatCount(rows)} rows of width ${formatCount(dIn)}: train on more rows (--tokens), or give --latents`,
  ];
}

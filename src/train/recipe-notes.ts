/** What is said before training of options that do not suit the scale of the rows. */

import type { Config } from "../config.ts";
import type { Normalization } from "../engine/engine.ts";

/**
 * A learning rate above this share of an element's spread moves the biases by too much in each
 * step.
 */
const STEP_SHARE = 0.02;

/**
 * Gradients of biases fall as rows grow; beyond this spread of an element they hardly move in a
 * run.
 */
const WIDE = 1e3;

/** An epsilon above this is not small next to gradients of rows of spread 1. */
const LARGE_EPS = 1e-6;

/** layer_norm adds this to a row's standard deviation. */
const LAYER_NORM_EPS = 1e-5;

/**
 * Where an option makes the result depend on the scale of the rows. `spread`: standard deviation of
 * an element of the normalised rows; `raw`: root mean square element of the rows in the file.
 */
export function scaleNotes(
  { lr, eps }: Pick<Config, "lr" | "eps">,
  { kind }: Pick<Normalization, "kind">,
  spread: number,
  raw: number,
): string[] {
  const said: string[] = [];
  const cure = kind === "none" ? "--normalize scale trains alike at any scale" : "lower --lr";
  if (lr > STEP_SHARE * spread) {
    said.push(
      `elements vary by ${figure(spread)}${kind === "none" ? " and rows are not normalised" : " after normalisation"}, but each step of Adam moves the biases by up to the learning rate of ${figure(lr)}: ` +
        `expect dead latents and a high FVU; ${cure}`,
    );
  } else if (kind === "none" && spread > WIDE) {
    said.push(
      `elements vary by ${figure(spread)} and rows are not normalised, so the biases hardly move at a learning rate of ${figure(lr)}; ${cure}`,
    );
  }
  if (kind === "layer_norm" && raw < 10 * LAYER_NORM_EPS) {
    said.push(
      `elements of a row are about ${figure(raw)}, but layer_norm adds ${LAYER_NORM_EPS} to their standard deviation: multiply the rows, or use --normalize scale`,
    );
  }
  if (eps > LARGE_EPS) {
    said.push(
      `--eps ${eps} is not small next to the gradients, so steps shrink with them${kind === "none" ? ", and with the scale of the rows" : ""}; 6.25e-10 and 1e-8 are usual`,
    );
  }
  return said;
}

function figure(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** A line of metrics.jsonl. Its names are part of the Contract. */

/**
 * One step, as logged. What was not computed or is not finite is null. x are rows as the
 * autoencoder sees them: normalised, where the run normalises.
 */
export interface Report {
  /** Steps done, this one included. */
  readonly step: number;
  /** Rows trained on so far. */
  readonly tokens: number;
  /** Passes over the data, such as 1.25. */
  readonly epoch: number;
  /** Seconds of training, over all parts of a run that was resumed. */
  readonly elapsed_s: number;
  /**
   * mse_scale mse + auxk_coef auxk_loss; and the sparsity loss, or multi_topk mse_scale times the
   * mse of 4 k latents.
   */
  readonly loss: number;
  /** Mean of (x_hat - x)^2 over all elements. */
  readonly mse: number;
  /** Fraction of variance unexplained: sum (x - x_hat)^2 / sum (x - mean of x)^2, of this batch. */
  readonly fvu: number;
  /** Mean of (t_hat - t)^2 over the variance of t = x - x_hat; 0 when no latent is dead. */
  readonly auxk_loss: number;
  /** Of multi-TopK: FVU of the reconstruction by 4 k latents, of this batch. */
  readonly multi_topk_fvu?: number;
  /** Mean number of latents with a value above 0. */
  readonly l0: number;
  /** Latents that had not fired for dead_tokens rows when the step began. */
  readonly dead: number;
  readonly dead_fraction: number;
  readonly lr: number;
  /** Norm of the whole gradient after projection, before clipping. */
  readonly grad_norm: number;
  readonly loss_scale: number;
  /** Steps skipped because something was not finite. */
  readonly skipped: number;
  /** Rows passed over because they were not finite. */
  readonly skipped_rows: number;
  readonly tokens_per_second: number;
  /** On held-out rows, at evaluations. */
  readonly holdout_fvu?: number;
  readonly holdout_mse?: number;
  /** Mean active latents by the threshold of inference, where that is not the rule of training. */
  readonly holdout_l0?: number;
  /** FVU of each prefix of a Matryoshka autoencoder, the last of all latents. */
  readonly prefix_fvu?: readonly number[];
  readonly holdout_prefix_fvu?: readonly number[];
  /** Threshold of inference of BatchTopK; 0 before it is set. */
  readonly threshold?: number;
  /** Of JumpReLU: lowest, quartiles and highest of the thresholds. */
  readonly threshold_quantiles?: readonly number[];
  /**
   * Coefficient of the sparsity loss as the step used it, and that loss, without the part that
   * pulls dead latents up.
   */
  readonly sparsity_coef?: number;
  readonly sparsity_loss?: number;
  /** The same of the running average of the weights, at the end of a run that keeps one. */
  readonly holdout_fvu_ema?: number;
  readonly holdout_mse_ema?: number;
}

/** Numbers of one list that are kept of a line at most: no run has more prefixes. */
const MOST_OF_LIST = 16;

/**
 * Every value of a line by its name; those of a list by the list's name and their place from 0.
 * What is nested deeper stays as it is.
 */
export function flatValues(line: Readonly<Record<string, unknown>>): [name: string, value: unknown][] {
  return Object.entries(line).flatMap(([name, value]): [string, unknown][] =>
    Array.isArray(value)
      ? value.slice(0, MOST_OF_LIST).map((each: unknown, i) => [placeIn(name, i), each])
      : [[name, value]],
  );
}

/** Name of the number in place `i`, from 0, of a list. */
export function placeIn(list: string, i: number): string {
  return `${list}_${i}`;
}

/** Every number of a report by its name, as `flatValues`. */
export function flat(report: Report): Readonly<Record<string, number>> {
  return Object.fromEntries(flatValues({ ...report })) as Record<string, number>;
}

/**
 * What turns rows of logits into losses, in float64, wherever it runs: kernels/log_sums.cc of the
 * cpu engine, or JavaScript (metrics/loss-math.ts).
 */

export interface Rows {
  /** Logits [.., vocabulary]. */
  readonly logits: Float32Array;
  /** Of each row that was asked for: ln of the sum of e^logit. */
  readonly logSums: Float64Array;
}

export interface LogSums {
  /**
   * ln sum e^logit of the rows of `logits` [.., vocabulary] that `rows` numbers, and their
   * Kullback-Leibler divergence from the same rows of `from`, in nats; without `from` it is empty.
   * `logits` is read where it is and must not change before the promise is settled; one call at a
   * time.
   */
  of(
    logits: Float32Array,
    vocabulary: number,
    rows: Uint32Array,
    from?: Rows,
  ): Promise<{ readonly logSums: Float64Array; readonly divergence: Float64Array }>;
  close(): Promise<void>;
}

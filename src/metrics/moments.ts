/** The spread of rows around their mean, in float64 and in one pass. */

/**
 * Sum over rows and columns of (x - mean of the column)^2, by merging the exact two-pass sums of
 * chunks (Chan, Golub and LeVeque 1979): no large numbers are subtracted from each other, so it is
 * right however far the mean is from 0.
 */
export class Moments {
  readonly #mean: Float64Array;
  #rows = 0;
  #squares = 0;

  constructor(d: number) {
    this.#mean = new Float64Array(d);
  }

  /** Rows [rows, d]. */
  add(values: Float32Array | Float64Array, rows: number): void {
    if (rows === 0) return;
    const d = this.#mean.length;
    // Sums of differences to the first row keep their digits when the mean is large.
    const mean = new Float64Array(d);
    for (let at = 0; at < rows * d; at += d) for (let i = 0; i < d; i++) mean[i] += values[at + i] - values[i];
    for (let i = 0; i < d; i++) mean[i] = values[i] + mean[i] / rows;
    let squares = 0;
    for (let at = 0; at < rows * d; at += d) {
      for (let i = 0; i < d; i++) {
        const off = values[at + i] - mean[i];
        squares += off * off;
      }
    }
    const before = this.#rows;
    this.#rows += rows;
    for (let i = 0; i < d; i++) {
      const step = mean[i] - this.#mean[i];
      squares += (step * step * before * rows) / this.#rows;
      this.#mean[i] += (step * rows) / this.#rows;
    }
    this.#squares += squares;
  }

  /** Sum of (x - mean)^2 over all rows so far. */
  get spread(): number {
    return this.#squares;
  }
}

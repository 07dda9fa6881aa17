/** What is made of repeated measurements. */

/** One measurement, in milliseconds of wall time and of CPU time over all threads. */
export interface Sample {
  readonly ms: number;
  readonly cpuMs: number;
}

/**
 * Threads that ran less than this part of the time shared their CPUs with somebody else: 1.6 of 2.
 */
export const LEAST_SHARE = 0.8;

/** Tries for one sample that counts. */
export const TRIES = 4;

/** The middle one; of an even number, the mean of the two middle ones. NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** CPU time over wall time of samples; NaN of none. */
export function cpuPerWall(samples: readonly Sample[]): number {
  const total = (of: (sample: Sample) => number) => samples.reduce((sum, sample) => sum + of(sample), 0);
  return total(({ cpuMs }) => cpuMs) / total(({ ms }) => ms);
}

/** Samples that count, and how many were thrown away because the threads had not a CPU each. */
export class Series<S extends Sample = Sample> {
  readonly samples: S[] = [];
  thrown = 0;
  readonly #threads: number;

  constructor(threads: number) {
    this.#threads = threads;
  }

  /**
   * Takes a sample, again where it does not count, up to TRIES times; then it goes without, as it
   * does at once when there is nothing to measure (undefined).
   */
  async take(measure: () => Promise<S | undefined>): Promise<void> {
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const sample = await measure();
      if (sample === undefined) return;
      if (sample.cpuMs >= LEAST_SHARE * this.#threads * sample.ms) {
        this.samples.push(sample);
        return;
      }
      this.thrown++;
    }
  }

  /** Median of the samples, in milliseconds; NaN when none counts. */
  get ms(): number {
    return median(this.samples.map(({ ms }) => ms));
  }

  /** Median of their CPU times, in milliseconds: it hardly depends on who else is busy. */
  get cpuMs(): number {
    return median(this.samples.map(({ cpuMs }) => cpuMs));
  }

  get cpuPerWall(): number {
    return cpuPerWall(this.samples);
  }
}

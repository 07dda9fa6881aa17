/** How much of a known dictionary an autoencoder has found. */

/** Two unit vectors with at least this cosine are taken for the same direction. */
export const SAME = 0.9;

/** The cosines that shares are told for. */
export const LEVELS = [0.9, 0.95, 0.99] as const;

export interface Match {
  readonly direction: number;
  readonly latent: number;
  readonly cosine: number;
}

export interface Recovery {
  readonly directions: number;
  readonly latents: number;
  /**
   * Mean over directions of the largest cosine with a decoder row (MMCS; Sharkey, Braun and
   * Millidge, 2022).
   */
  readonly meanMaxCosine: number;
  readonly medianMaxCosine: number;
  readonly leastMaxCosine: number;
  /** The share of directions whose largest cosine is above the level. */
  readonly above: readonly { readonly cosine: number; readonly share: number }[];
  /**
   * One latent to one direction, greedily: of all pairs left the one with the largest cosine, down
   * to SAME. (Where two true directions are less alike than two vectors with a cosine of SAME to
   * the same latent can be, this is the best assignment there is.)
   */
  readonly matches: readonly Match[];
  /**
   * Latents that are not matched though they have a cosine of at least SAME with a direction:
   * another latent has it.
   */
  readonly duplicated: number;
  /** Latents with no direction. */
  readonly unmatched: number;
}

/**
 * Compares the true directions [directions, d] with the decoder rows [latents, d]; both of norm 1,
 * up to rounding.
 */
export function recovery(truth: Float32Array, decoder: Float32Array, d: number): Recovery {
  const directions = truth.length / d;
  const latents = decoder.length / d;
  const best = new Float64Array(directions).fill(Number.NEGATIVE_INFINITY);
  const close: Match[] = [];
  const hasDirection = new Uint8Array(latents);
  for (let direction = 0; direction < directions; direction++) {
    for (let latent = 0; latent < latents; latent++) {
      const cosine = dot(truth, direction * d, decoder, latent * d, d);
      if (!(cosine <= best[direction])) best[direction] = cosine;
      if (!(cosine >= SAME)) continue;
      close.push({ direction, latent, cosine });
      hasDirection[latent] = 1;
    }
  }
  const matches = greedily(close);
  const withDirection = hasDirection.reduce((sum, has) => sum + has, 0);
  const sorted = best.slice().sort();
  return {
    directions,
    latents,
    meanMaxCosine: best.reduce((sum, cosine) => sum + cosine, 0) / directions,
    medianMaxCosine: sorted[directions >> 1],
    leastMaxCosine: sorted[0],
    above: LEVELS.map((cosine) => ({ cosine, share: best.filter((each) => each > cosine).length / directions })),
    matches,
    duplicated: withDirection - matches.length,
    unmatched: latents - withDirection,
  };
}

function greedily(pairs: readonly Match[]): Match[] {
  const directions = new Set<number>();
  const latents = new Set<number>();
  const matches: Match[] = [];
  for (const pair of pairs.toSorted((a, b) => b.cosine - a.cosine || a.latent - b.latent)) {
    if (directions.has(pair.direction) || latents.has(pair.latent)) continue;
    directions.add(pair.direction);
    latents.add(pair.latent);
    matches.push(pair);
  }
  return matches.sort((a, b) => a.direction - b.direction);
}

function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, d: number): number {
  let sum = 0;
  for (let i = 0; i < d; i++) sum += a[atA + i] * b[atB + i];
  return sum;
}

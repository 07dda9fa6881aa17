/** The geometry of an autoencoder or transcoder, and nothing about its kind. */

/**
 * `dIn` inputs, `n` latents, `dOut` outputs (an autoencoder: dIn). `untied`: b_dec is added to the
 * output and not subtracted from the input (a transcoder).
 */
export interface Dims {
  readonly dIn: number;
  readonly n: number;
  readonly dOut: number;
  readonly untied?: boolean | undefined;
}

/** The dimensions of a transcoder from `dIn` inputs to `dOut` outputs. */
export function transcoderDims(dIn: number, n: number, dOut: number): Dims {
  return { dIn, n, dOut, untied: true };
}

/** The dimensions of an autoencoder: it reconstructs its input of width `d`. */
export function autoencoderDims(d: number, n: number): Dims {
  return { dIn: d, n, dOut: d };
}

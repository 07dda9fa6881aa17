/** The geometry of an autoencoder or transcoder, and nothing about its kind. */

/** `dIn` inputs, `n` latents, `dOut` outputs (an autoencoder: dIn). */
export interface Dims {
  readonly dIn: number;
  readonly n: number;
  readonly dOut: number;
}

/** The dimensions of an autoencoder: it reconstructs its input of width `d`. */
export function autoencoderDims(d: number, n: number): Dims {
  return { dIn: d, n, dOut: d };
}

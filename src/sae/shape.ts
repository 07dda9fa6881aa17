/** The size of an autoencoder: `d` inputs, `n` latents, at most `k` of them active a row, at most `auxk` dead ones for the auxiliary loss (0: no AuxK). */
export interface Shape {
  readonly d: number;
  readonly n: number;
  readonly k: number;
  readonly auxk: number;
}

/** Parameters of an autoencoder of this shape: encoder and decoder [n,d], latent bias [n], pre-bias [d]. */
export function parameterCount({ d, n }: Shape): number {
  return 2 * n * d + n + d;
}

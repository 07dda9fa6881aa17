/**
 * THE MATHS of a sparse autoencoder, in float64 and plain loops, after Gao et al. 2024, "Scaling
 * and evaluating sparse autoencoders" (arXiv 2406.04093). E1 to E12 are the steps of the forward
 * pass with TopK:
 *
 *     E1-E2  pre   = W_enc (x - b_pre) + b_lat
 *     E3     z     = relu(topk_k(pre))
 *     E4-E5  x_hat = W_dec z + b_pre
 *     E6-E7  mseScale mse, mse = mean (x_hat - x)^2
 *     E8     z_aux = relu(topk_auxk(pre, dead latents only))
 *     E9     t     = x - x_hat, held fixed
 *     E10    t_hat = W_dec z_aux (no bias)
 *     E11    auxk_loss = mean (t_hat - t)^2 / mean (t - mean t)^2, the latter held fixed
 *     E12    loss  = mseScale mse + auxCoef auxk_loss
 *
 * then the gradients, and the update: project, clip, Adam, unit decoder rows, EMA. B rows, d
 * inputs, n latents; matrices are row-major; the decoder is stored transposed, one row per latent.
 *
 * Other architectures change these steps:
 *
 *     E3  BatchTopK: the `kept` highest of the whole batch (`batchCut`); the lowest kept value moves
 *         `cut`, the threshold of inference.
 *         JumpReLU: every latent above its own threshold (`aboveThreshold`); the latents in the
 *         band around it (`inBand`) give the threshold its gradient (`thresholdGradients`).
 *     E5  Matryoshka: one x_hat per prefix of the latents (`prefixResiduals`).
 *     E1, E5  transcoder: x is encoded as it is, the target y need not be x, and
 *         y_hat = W_dec z + b_dec + W_skip x.
 */

export * from "./math/backward.ts";
export * from "./math/forward.ts";
export * from "./math/inputs.ts";
export * from "./math/select.ts";
export * from "./math/sparsity.ts";
export * from "./math/types.ts";
export * from "./math/update.ts";

// skip: the linear map of a transcoder next to its latents. Its products are cuBLASLt's; this is
// what goes over its elements.

#include "adam.cuh"

/// skip [count], the sum over rows of err by x, becomes the gradient; bad when it is too large.
/// Grid any, block 256.
extern "C" __global__ void skip_scale(PARAMETERS(skip_scale)) {
  const float scale = static_cast<float>(scales[0]);
  bool fits = true;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const float g = scale * skip[i];
    fits = fits && fabsf(g) < static_cast<float>(LARGEST_GRADIENT);
    skip[i] = g;
  }
  if (!fits) markBad(bad);
}

/// partial [SKIP_BLOCKS]: squares of skip [count]. Grid SKIP_BLOCKS, block 256.
extern "C" __global__ void skip_squares(PARAMETERS(skip_squares)) {
  __shared__ double room[33];
  double sum = 0;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += SKIP_BLOCKS * blockDim.x)
    sum += static_cast<double>(skip[i]) * skip[i];
  sum = blockSum(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// Adam on the skip connection, its average and its copy in half_t. Grid ceil(count / 256), block
/// 256.
extern "C" __global__ void update_skip(PARAMETERS(update_skip)) {
  const Numbers o = *numbers;
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (o.go == 0 || i >= count) return;
  updateBias(o, p.skip + i, m.skip + i, v.skip + i, ema.skip + i, skip[i]);
#if SAETTA_COMPUTE != 0
  skip16[i] = toHalf(p.skip[i]);
#endif
}

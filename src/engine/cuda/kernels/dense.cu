// The dense dead branch: where many slots of a row are dead codes, sparse gathers cost more than
// products over all dead latents. These kernels turn the codes of the dead into matrices [C,cap]
// for a chunk of C rows and back; the products are the host's. Position q < cap of a dead latent is
// its place in the list of dead latents.
//
//     err  = zd rows16                 zd [C,cap]: values            deadDecoder = zd^T err16
//     G    = err16 rows16^T            rows16 [cap,d]: decoder rows  deadEncoder = gd^T xc16
//     gd [C,cap]: G where a code is on, else 0

#include "saetta.cuh"

/// Grid cap, block T(d). -> to [cap,d]: decoder rows of the dead, zeros behind them. More dead
/// latents than the host made room for are bad.
extern "C" __global__ void dense_rows(PARAMETERS(dense_rows)) {
  const u32 q = blockIdx.x;
  const bool on = q < *count;
  if (q == 0 && threadIdx.x == 0 && *count > cap) markBad(bad);
  const half_t* row = decoder + (on ? static_cast<u64>(list[q]) * d : 0);
  to += static_cast<u64>(q) * d;
  if (d % WIDE == 0) {
    for (u32 c = threadIdx.x * WIDE; c < d; c += blockDim.x * WIDE)
      *reinterpret_cast<uint4*>(to + c) = on ? *reinterpret_cast<const uint4*>(row + c) : make_uint4(0, 0, 0, 0);
  } else {
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) to[c] = on ? row[c] : toHalf(0);
  }
}

/// Grid C, block 256, shared TILE half_t. -> to [C,cap]: a number of each code in its latent's
/// column, zeros elsewhere.
extern "C" __global__ void dense_codes(PARAMETERS(dense_codes)) {
  extern __shared__ uint4 shared[];
  half_t* row = reinterpret_cast<half_t*>(shared);
  const u64 b = blockIdx.x;
  for (u32 c = threadIdx.x; c < cap / WIDE; c += blockDim.x) shared[c] = make_uint4(0, 0, 0, 0);
  __syncthreads();
  for (u32 i = threadIdx.x; i < auxk; i += blockDim.x) {
    const u32 j = latent[b * auxk + i];
    if (j == NONE) continue;
    const u32 q = slot[j];
    if (q < cap) row[q] = toHalf(number[b * auxk + i]);
  }
  __syncthreads();
  uint4* out = reinterpret_cast<uint4*>(to + b * cap);
  for (u32 c = threadIdx.x; c < cap / WIDE; c += blockDim.x) out[c] = shared[c];
}

/// Grid ceil(C auxk / 256), block 256. -> grad [C,auxk]: the elements of `from` [C,cap] where codes
/// are.
extern "C" __global__ void dense_pick(PARAMETERS(dense_pick)) {
  const u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= static_cast<u64>(C) * auxk) return;
  const u32 j = latent[i], q = j == NONE ? NONE : slot[j];
  const float g = q < cap ? toFloat(from[i / auxk * cap + q]) : 0;
  grad[i] = g;
  if (!(fabsf(g) <= 3.4028234e38f)) markBad(bad);
}

/// Grid (ceil(cap / 256), PARTS), block 256. Column sums of gd [C,cap] by parts of its rows, added
/// to partial [PARTS][cap]; `first` begins them.
extern "C" __global__ void dense_bias(PARAMETERS(dense_bias)) {
  const u32 q = blockIdx.x * blockDim.x + threadIdx.x;
  if (q >= cap) return;
  const u32 rows = (C + DENSE_PARTS - 1) / DENSE_PARTS, from = min(C, blockIdx.y * rows), to = min(C, from + rows);
  double& sum = partial[static_cast<u64>(blockIdx.y) * cap + q];
  double all = first != 0 ? 0 : sum;
#pragma unroll 8
  for (u32 b = from; b < to; b++) all += toFloat(gd[static_cast<u64>(b) * cap + q]);
  sum = all;
}

constexpr float LARGEST_DEAD = static_cast<float>(LARGEST_GRADIENT);

/// Grid ceil(cap / 8), block 256. -> deadBias [cap], unscaled; bad where a gradient of a dead
/// latent is too large.
extern "C" __global__ void dense_check(PARAMETERS(dense_check)) {
  const u32 q = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (q >= cap) return;
  const double sum = warpSum(partial[static_cast<u64>(lane) * cap + q]);
  if (lane == 0) deadBias[q] = sum;
  if (q >= *count) return;
  const float scale = static_cast<float>(scales[1]);
  bool fits = fabs(scales[1] * sum) < LARGEST_DEAD;
#pragma unroll 4
  for (u32 c = lane; c < dIn; c += 32)
    fits = fits && fabsf(scale * deadEncoder[static_cast<u64>(q) * dIn + c]) < LARGEST_DEAD;
#pragma unroll 4
  for (u32 c = lane; c < dOut; c += 32)
    fits = fits && fabsf(scale * deadDecoder[static_cast<u64>(q) * dOut + c]) < LARGEST_DEAD;
  if (!fits) markBad(bad);
}

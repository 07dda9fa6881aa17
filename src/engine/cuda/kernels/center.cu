// center: xc = half(x - preBias), the input of the encoder's product and of the encoder's
// gradients.

#include "saetta.cuh"

/// x [B,d], preBias [d] -> xc [B,d]; bad when an element is not finite as it is stored; largest
/// (may be null, else preBias is 0): the bits of the largest absolute value, or what it was. Block
/// 256, grid ceil(B / 8).
extern "C" __global__ void __launch_bounds__(256)
    center(PARAMETERS(center)) {
  const u32 first = blockIdx.x * CENTER_ROWS;
  const u32 rows = min(CENTER_ROWS, B - first);
  bool finite = true;
  float most = 0;
  if (d % 4 == 0) {
    const u32 quads = d / 4;
    for (u32 e = threadIdx.x; e < rows * quads; e += blockDim.x) {
      const u32 row = e / quads, column = (e - row * quads) * 4;
      const u64 at = static_cast<u64>(first + row) * d + column;
      const float4 b = *reinterpret_cast<const float4*>(preBias + column);
      const float4 v = *reinterpret_cast<const float4*>(x + at);
      struct alignas(4 * sizeof(half_t)) Four {
        half_t v[4];
      } to = {{toHalf(v.x - b.x), toHalf(v.y - b.y), toHalf(v.z - b.z), toHalf(v.w - b.w)}};
      finite &= !(isBad(v.x - b.x) || isBad(v.y - b.y) || isBad(v.z - b.z) || isBad(v.w - b.w));
      if (largest != nullptr) most = fmaxf(fmaxf(most, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w)));
      *reinterpret_cast<Four*>(xc + at) = to;
    }
  } else {
    for (u32 e = threadIdx.x; e < rows * d; e += blockDim.x) {
      const u64 at = static_cast<u64>(first) * d + e;
      const float v = x[at] - preBias[e % d];
      finite &= !isBad(v);
      if (largest != nullptr) most = fmaxf(most, fabsf(v));
      xc[at] = toHalf(v);
    }
  }
  if (!finite) markBad(bad);
  if (largest != nullptr && most > 0) atomicMax(largest, __float_as_uint(most));
}

/// x [B,d] -> partial [COLUMN_PARTS][d]: column sums of parts of the rows, where dead latents have
/// a pre-activation loss. Grid (ceil(d / 32), COLUMN_PARTS), block 256.
extern "C" __global__ void input_columns(PARAMETERS(input_columns)) {
  __shared__ double room[8][32];
  if (hyper[DEAD_PENALTY] == 0) return;
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = blockIdx.x * 32 + lane;
  const u32 rows = (B + COLUMN_PARTS - 1) / COLUMN_PARTS, first = min(B, blockIdx.y * rows),
            last = min(B, first + rows);
  double sum = 0;
  if (column < d) {
#pragma unroll 4
    for (u32 b = first + warp; b < last; b += 8) sum += x[static_cast<u64>(b) * d + column];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= d) return;
  for (u32 other = 1; other < 8; other++) sum += room[other][lane];
  partial[static_cast<u64>(blockIdx.y) * d + column] = sum;
}

/// -> columns [d]: of the parts. Grid ceil(d / 256), block 256.
extern "C" __global__ void input_total(PARAMETERS(input_total)) {
  const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
  if (hyper[DEAD_PENALTY] == 0 || column >= d) return;
  double sum = 0;
#pragma unroll 8
  for (u32 part = 0; part < COLUMN_PARTS; part++) sum += partial[static_cast<u64>(part) * d + column];
  columns[column] = sum;
}

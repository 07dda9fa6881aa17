// threshold: latents that are above a threshold, and those that are near it, of each row of a chunk
// of pre-activations z [C,n], in one pass over z and in ascending order: the rules "threshold" and
// "band".
//
// A block takes THRESHOLD_ROWS rows, so that biases and thresholds are read once for these, and
// goes over them in tiles: a thread takes eight neighbours of each tile. What is selected are bits;
// sums of their numbers over the threads before, four tiles in a word, say where each goes. Few are
// selected, so their values are read again.
//
// Bytes at C rows, n = 32768, 16 bits: z 64 kB a row, biases and thresholds 128 kB a row (L1, L2).

#include "saetta.cuh"

constexpr u32 THREADS = 256, RUN = 8, PARTS = RUN / WIDE, TILE = THREADS * RUN, TILES = 4, WARPS = THREADS / 32;

/// Selected bits of a thread in TILES tiles, eight of each.
struct Bits {
  u32 live, band;
};

/// Of each tile the number of bits, 16 bits each.
__device__ __forceinline__ u64 countBits(u32 bits) {
  u64 counts = 0;
#pragma unroll
  for (u32 t = 0; t < TILES; t++) counts |= static_cast<u64>(__popc(bits >> 8 * t & 255)) << 16 * t;
  return counts;
}

/// Sums of a warp's lanes before this one; `total` gets all. Zeros are quick.
__device__ __forceinline__ u64 sumBefore(u64 own, bool any, u64& total) {
  total = 0;
  if (!any) return 0;
  u64 upTo = own;
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const u64 other = __shfl_up_sync(0xffffffffu, upTo, step);
    if ((threadIdx.x & 31) >= step) upTo += other;
  }
  total = __shfl_sync(0xffffffffu, upTo, 31);
  return upTo - own;
}

/// Biases and thresholds of eight neighbours; 0 from n on.
__device__ __forceinline__ void loadEight(const float* from, u32 at, u32 n, float (&to)[RUN]) {
  if (at + RUN <= n) {
    loadFloats(from + at, to);
    return;
  }
#pragma unroll
  for (u32 e = 0; e < RUN; e++) to[e] = at + e < n ? from[at + e] : 0;
}

/// Writes what `bits` selects of columns from `base` on, behind the `count` codes that the row has.
__device__ __forceinline__ void writeSelected(const Selected& to, u64 row, u32 bits, u64 before, u64 totals, u32 count,
                                              u32 base, const half_t* z, const float* bias, u32* fired,
                                              float firedAbove) {
#pragma unroll
  for (u32 t = 0; t < TILES; t++) {
    u32 slot = count + static_cast<u32>(before >> 16 * t & 65535);
    for (u32 mask = bits >> 8 * t & 255; mask != 0; mask &= mask - 1, slot++) {
      if (slot >= to.capacity) break;
      const u32 j = base + t * TILE + threadIdx.x * RUN + __ffs(mask) - 1;
      const float v = toFloat(z[j]) + bias[j];
      const u64 at = row * to.capacity + slot;
      to.latent[at] = j;
      to.value[at] = v;
      to.grad[at] = 0;
      if (fired != nullptr && v > firedAbove) fired[j] = 1;
    }
    count += static_cast<u32>(totals >> 16 * t & 65535);
  }
}

__device__ __forceinline__ u32 allOf(u64 totals) {
  return static_cast<u32>((totals & 65535) + (totals >> 16 & 65535) + (totals >> 32 & 65535) + (totals >> 48));
}

/// The slots of a row that are left, and FULL where there were too few.
__device__ __forceinline__ void endRow(const Selected& to, u64 row, u32 count, u32* bad) {
  if (count > to.capacity && threadIdx.x == 0) atomicOr(bad, FULL);
  for (u64 slot = count + threadIdx.x; slot < to.capacity; slot += THREADS) {
    to.latent[row * to.capacity + slot] = NONE;
    to.value[row * to.capacity + slot] = 0;
    to.grad[row * to.capacity + slot] = 0;
  }
}

/**
 * z [C,ldz] without biases, latentBias [n], threshold [thresholds] (n, or 1 for all latents) ->
 * live: what is above 0 and above its threshold; band: what is within half of hyper[BANDWIDTH] of
 * it; counts [C]: how many live ones there are, also where they do not fit; fired: 1 where a live
 * value is above hyper[FIRED_ABOVE]; bad when an element of z + latentBias is not finite, FULL. ldz
 * is a multiple of 8, z on 16 bytes. Grid ceil(C / THRESHOLD_ROWS), block 256.
 */
extern "C" __global__ void __launch_bounds__(256, 3)
    select_threshold(PARAMETERS(select_threshold)) {
  // Of the last tiles and those before, so that one barrier is enough.
  __shared__ u64 sums[2][THRESHOLD_ROWS][2][WARPS];
  const u32 first = blockIdx.x * THRESHOLD_ROWS, rows = min(THRESHOLD_ROWS, C - first), warp = threadIdx.x / 32,
            lane = threadIdx.x & 31;
  const float firedAbove = __double2float_rd(hyper[FIRED_ABOVE]);
  // For a float, to be below a number is to be below the next float at or above it.
  const float near = band.latent == nullptr ? 0 : __double2float_ru(hyper[BANDWIDTH] / 2);
  const float common = *threshold;
  u32 liveCount[THRESHOLD_ROWS] = {}, bandCount[THRESHOLD_ROWS] = {};
  float zero = 0;
  u32 turn = 0;
  for (u32 base = 0; base < n; base += TILES * TILE, turn ^= 1) {
    uint4 data[THRESHOLD_ROWS][TILES][PARTS];
#pragma unroll
    for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
      const half_t* row = z + static_cast<u64>(first + min(r, rows - 1)) * ldz + base + threadIdx.x * RUN;
#pragma unroll
      for (u32 t = 0; t < TILES; t++) {
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
          data[r][t][part] = base + t * TILE + threadIdx.x * RUN < n
                                 ? *reinterpret_cast<const uint4*>(row + t * TILE + part * WIDE)
                                 : make_uint4(0, 0, 0, 0);
        }
      }
    }
    Bits bits[THRESHOLD_ROWS] = {};
#pragma unroll
    for (u32 t = 0; t < TILES; t++) {
      const u32 at = base + t * TILE + threadIdx.x * RUN;
      if (at >= n) continue;
      float b[RUN], limit[RUN];
      loadEight(latentBias, at, n, b);
      if (thresholds > 1) loadEight(threshold, at, n, limit);
#pragma unroll
      for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
          float v[WIDE];
          unpack(data[r][t][part], v);
#pragma unroll
          for (u32 i = 0; i < WIDE; i++) {
            const u32 e = part * WIDE + i;
            if (at + e >= n) continue;
            const float value = v[i] + b[e], lowest = thresholds > 1 ? limit[e] : common;
            zero = fmaf(value, 0.0f, zero);
            if (value > 0 && value > lowest) bits[r].live |= 1u << (8 * t + e);
            if (fabsf(value - lowest) < near) bits[r].band |= 1u << (8 * t + e);
          }
        }
      }
    }
    u64 liveBefore[THRESHOLD_ROWS], bandBefore[THRESHOLD_ROWS];
#pragma unroll
    for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
      u64 total;
      liveBefore[r] = sumBefore(countBits(bits[r].live), __any_sync(0xffffffffu, bits[r].live != 0), total);
      if (lane == 0) sums[turn][r][0][warp] = total;
      bandBefore[r] = sumBefore(countBits(bits[r].band), __any_sync(0xffffffffu, bits[r].band != 0), total);
      if (lane == 0) sums[turn][r][1][warp] = total;
    }
    __syncthreads();
#pragma unroll
    for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
      if (r >= rows) break;
      u64 liveTotal = 0, bandTotal = 0;
      for (u32 w = 0; w < WARPS; w++) {
        if (w == warp) liveBefore[r] += liveTotal, bandBefore[r] += bandTotal;
        liveTotal += sums[turn][r][0][w];
        bandTotal += sums[turn][r][1][w];
      }
      const half_t* row = z + static_cast<u64>(first + r) * ldz;
      if (live.latent != nullptr && bits[r].live != 0)
        writeSelected(live, first + r, bits[r].live, liveBefore[r], liveTotal, liveCount[r], base, row, latentBias,
                      fired, firedAbove);
      if (band.latent != nullptr && bits[r].band != 0)
        writeSelected(band, first + r, bits[r].band, bandBefore[r], bandTotal, bandCount[r], base, row, latentBias,
                      nullptr, 0);
      liveCount[r] += allOf(liveTotal);
      bandCount[r] += allOf(bandTotal);
    }
  }
  if (!(zero == 0)) markBad(bad);
#pragma unroll
  for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
    if (r >= rows) break;
    if (live.latent != nullptr) {
      endRow(live, first + r, liveCount[r], bad);
      if (threadIdx.x == 0) counts[first + r] = liveCount[r];
    }
    if (band.latent != nullptr) endRow(band, first + r, bandCount[r], bad);
  }
}

/// active += counts [B], summed as whole numbers. Grid 1, block 1024.
extern "C" __global__ void select_total(PARAMETERS(select_total)) {
  __shared__ u64 room[33];
  u64 sum = 0;
  for (u32 row = threadIdx.x; row < B; row += blockDim.x) sum += counts[row];
  sum = blockSum(sum, room);
  if (threadIdx.x == 0) *active += static_cast<double>(sum);
}

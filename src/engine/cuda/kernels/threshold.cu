// threshold: latents that are above a threshold, and those that are near it, of each row of a chunk
// of pre-activations z [C,n], in one pass over z and in ascending order: the rules "threshold" and
// "band".
//
// A block takes THRESHOLD_ROWS rows, so that biases and thresholds, which are more bytes than z,
// are read once for these, and goes over them in segments. Of eight neighbours only the largest
// distance above the threshold is kept, which shows at once that there is nothing in nearly all of
// them; of the others a bit is set in shared memory. At the end of a segment a warp goes over the
// bits of a row and looks at what they stand for, four eights at a time, in order. The code is
// small: more than the instruction cache holds took three times as long.
//
// Bytes at C rows, n = 32768, 16 bits: z 64 kB a row, biases and thresholds 128 kB a row (L1, L2).

#include "threshold.cuh"

constexpr u32 THREADS = 256, RUN = 8, PARTS = RUN / WIDE, TILE = THREADS * RUN, TILES = 2 / PARTS;
constexpr u32 SEGMENT = 32768, WORD = 32 * RUN, WORDS = SEGMENT / WORD;
static_assert(THRESHOLD_ROWS <= THREADS / 32, "a warp for each row");

/**
 * z [C,ldz] without biases, latentBias [n], threshold [thresholds] (n, or 1 for all latents) ->
 * live: what is above 0 and above its threshold; band: what is within half of hyper[BANDWIDTH] of
 * it; counts [C]: how many live ones there are, also where they do not fit; fired: 1 where a live
 * value is above hyper[FIRED_ABOVE]; bad when an element of z + latentBias is not finite, FULL. ldz
 * is a multiple of 8, z on 16 bytes. Grid ceil(C / THRESHOLD_ROWS), block 256.
 */
extern "C" __global__ void __launch_bounds__(256, 3)
    select_threshold(PARAMETERS(select_threshold)) {
  // A bit for each run of eight columns that may have something.
  __shared__ u32 marks[THRESHOLD_ROWS][WORDS];
  // The numbers of such runs, of 32 words.
  __shared__ u16 runs[THRESHOLD_ROWS][32 * 32];
  const u32 first = blockIdx.x * THRESHOLD_ROWS, rows = min(THRESHOLD_ROWS, C - first), warp = threadIdx.x / 32,
            lane = threadIdx.x & 31;
  // Of the row of this warp.
  Taken taken(live, band, first + warp, hyper, fired);
  const bool common = thresholds == 1;
  const float ofAll = *threshold;
  float zero = 0;
  for (u32 segment = 0; segment < n; segment += SEGMENT) {
    const u32 end = min(n, segment + SEGMENT), words = (end - segment + WORD - 1) / WORD;
#pragma unroll 1
    for (u32 base = segment; base < end; base += TILES * TILE) {
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
#pragma unroll
      for (u32 t = 0; t < TILES; t++) {
        const u32 at = base + t * TILE + threadIdx.x * RUN, word = (base - segment) / WORD + t * (TILE / WORD) + warp;
        const bool whole = at + RUN <= n;
        float b[RUN] = {}, limit[RUN];
        if (whole) loadFloats(latentBias + at, b);
#pragma unroll
        for (u32 e = 0; e < RUN; e++) limit[e] = ofAll;
        if (whole && !common) loadFloats(threshold + at, limit);
#pragma unroll
        for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
          // Rounding and flushing to 0 keep the sign of a difference, so nothing is missed.
          float top = -taken.near - 1, sum = 0;
#pragma unroll
          for (u32 part = 0; part < PARTS; part++) {
            float some[WIDE];
            unpack(data[r][t][part], some);
#pragma unroll
            for (u32 i = 0; i < WIDE; i++) {
              const float v = some[i] + b[part * WIDE + i];
              sum = fmaf(v, 0.0f, sum);
              top = fmaxf(top, v - limit[part * WIDE + i]);
            }
          }
          // What of a run is behind the last column may be anything.
          if (whole) zero += sum;
          const u32 hits = __ballot_sync(0xffffffffu, whole ? top >= -taken.near : at < n);
          if (lane == 0) marks[r][word] = hits;
        }
      }
    }
    __syncthreads();
    if (warp < rows) {
      const half_t* row = z + static_cast<u64>(first + warp) * ldz;
#pragma unroll 1
      for (u32 some = 0; some < words; some += 32) {
        u32 mask = some + lane < words ? marks[warp][some + lane] : 0;
        const u32 own = __popc(mask);
        u32 upTo = own;
#pragma unroll
        for (u32 step = 1; step < 32; step *= 2) {
          const u32 other = __shfl_up_sync(0xffffffffu, upTo, step);
          if (lane >= step) upTo += other;
        }
        const u32 total = __shfl_sync(0xffffffffu, upTo, 31);
        for (u32 at = upTo - own; mask != 0; mask &= mask - 1, at++)
          runs[warp][at] = static_cast<u16>((some + lane) * 32 + __ffs(mask) - 1);
        __syncwarp();
#pragma unroll 2
        for (u32 i = 0; i < total; i += 4) {
          const u32 place = i + lane / RUN, j = segment + runs[warp][min(place, total - 1)] * RUN + lane % RUN;
          const bool on = place < total && j < n;
          const float v = on ? toFloat(row[j]) + latentBias[j] : 0, limit = on ? threshold[common ? 0 : j] : 0;
          zero = fmaf(v, 0.0f, zero);
          taken.add(on, j, v, limit);
        }
        __syncwarp();
      }
    }
    // The next segment's marks take the place of these.
    __syncthreads();
  }
  if (!(zero == 0)) markBad(bad);
  if (warp < rows) taken.end(counts, bad);
}

/// active += counts [B], summed as whole numbers. Grid 1, block 1024.
extern "C" __global__ void select_total(PARAMETERS(select_total)) {
  __shared__ u64 room[33];
  u64 sum = 0;
  for (u32 row = threadIdx.x; row < B; row += blockDim.x) sum += counts[row];
  sum = blockSum(sum, room);
  if (threadIdx.x == 0) *active += static_cast<double>(sum);
}

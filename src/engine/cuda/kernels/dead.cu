// dead: which latents are dead as the step begins, as an ascending list, and how many can be dead
// FORECAST_STEPS steps from now.
//
// dead_count, then dead_list, both with block 1024 and grid ceil(n / 4096). Counts are integers, so
// their order does not matter.

#include "saetta.cuh"

constexpr u32 DEAD_THREADS = 1024, DEAD_EACH = DEAD_BLOCK / DEAD_THREADS;

__device__ static u32 blockTotal(u32 v, u32* shared) {
  const u32 sum = __reduce_add_sync(0xffffffffu, v);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  __syncthreads();
  const u32 all = __reduce_add_sync(0xffffffffu, shared[threadIdx.x % 32]);
  __syncthreads();
  return all;
}

/// age [n] -> parts [2, blocks]: of each stretch of 4096 latents the number that is dead, and the
/// number that the forecast counts.
extern "C" __global__ void __launch_bounds__(1024)
    dead_count(PARAMETERS(dead_count)) {
  __shared__ u32 shared[32];
  const double after = hyper[DEAD_AFTER], soon = after - FORECAST_STEPS * hyper[ROWS];
  u32 dead = 0, forecast = 0;
  for (u32 e = 0; e < DEAD_EACH; e++) {
    const u32 j = blockIdx.x * DEAD_BLOCK + e * DEAD_THREADS + threadIdx.x;
    if (j >= n) break;
    dead += age[j] > after;
    forecast += age[j] > soon;
  }
  dead = blockTotal(dead, shared);
  forecast = blockTotal(forecast, shared);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = dead;
    parts[gridDim.x + blockIdx.x] = forecast;
  }
}

/**
 * age [n], parts of dead_count -> list [n]: the dead latents, ascending (what stands behind the
 * last of them is not written); slot [n]: the place of each latent in the list, or NONE; counts
 * [2]: how many are dead, and the forecast; sums[DEAD].
 */
extern "C" __global__ void __launch_bounds__(1024)
    dead_list(PARAMETERS(dead_list)) {
  __shared__ u32 shared[32];
  const double after = hyper[DEAD_AFTER];
  u32 before = 0, dead = 0, forecast = 0;
  for (u32 b = threadIdx.x; b < gridDim.x; b += DEAD_THREADS) {
    const u32 count = parts[b];
    dead += count;
    forecast += parts[gridDim.x + b];
    if (b < blockIdx.x) before += count;
  }
  before = blockTotal(before, shared);
  if (blockIdx.x == 0) {
    dead = blockTotal(dead, shared);
    forecast = blockTotal(forecast, shared);
    if (threadIdx.x == 0) {
      counts[0] = dead;
      counts[1] = forecast;
      sums[DEAD] = dead;
    }
  }

  // A thread's latents are neighbours, so that an exclusive scan over the threads gives the
  // ascending order.
  const u32 first = blockIdx.x * DEAD_BLOCK + threadIdx.x * DEAD_EACH;
  bool is[DEAD_EACH];
  u32 own = 0;
  for (u32 e = 0; e < DEAD_EACH; e++) {
    is[e] = first + e < n && age[first + e] > after;
    own += is[e];
  }
  u32 scan = own;
  for (int step = 1; step < 32; step *= 2) {
    const u32 below = __shfl_up_sync(0xffffffffu, scan, step);
    if (threadIdx.x % 32 >= step) scan += below;
  }
  if (threadIdx.x % 32 == 31) shared[threadIdx.x / 32] = scan;
  __syncthreads();
  const u32 lane = threadIdx.x % 32;
  u32 at = before + scan - own + __reduce_add_sync(0xffffffffu, lane < threadIdx.x / 32 ? shared[lane] : 0);
  for (u32 e = 0; e < DEAD_EACH; e++) {
    if (first + e >= n) break;
    slot[first + e] = is[e] ? at : NONE;
    if (is[e]) list[at++] = first + e;
  }
}

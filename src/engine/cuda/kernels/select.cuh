// What selections of the highest of a row share: maxima of groups and the bound that they give,
// keys and how they are sorted.
//
// A candidate is a key: the bits of the value (positive floats are ordered as their bits are) above
// the complement of its position. Keys differ, so the result does not depend on the order in which
// they arrive. Values below the smallest normal number count as 0 (-ftz=true).

#pragma once

#include "saetta.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;
constexpr u32 INFINITE = 0x7f800000u;

/// Is v at least the float with the bits `bound` (not 0)? False for NaN.
__device__ __forceinline__ bool reaches(float v, u32 bound) { return __float_as_uint(v) - bound <= INFINITE - bound; }

__device__ __forceinline__ u64 keyOf(float v, u32 position) {
  return static_cast<u64>(__float_as_uint(v)) << 32 | (NONE - position);
}

/// A load that leaves the L1 cache to the biases.
__device__ __forceinline__ uint4 loadPast(const void* p) {
  uint4 v;
  asm("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

struct Shared {
  u32 bounds[8], partial[2][8], count, hits[2];
};

/// The maxima of a thread's groups, two a word: the upper halves of their bits, as if rounded down
/// to bf16; 0 where no value of the group is above 0.
template <u32 GROUPS>
struct Maxima {
  u32 pairs[GROUPS / 2];

  __device__ __forceinline__ void set(u32 group, float highest) {
    const u32 bits = __float_as_uint(highest);
    if (group % 2 == 0) pairs[group / 2] = bits >> 16;
    else pairs[group / 2] = __byte_perm(pairs[group / 2], bits, 0x7610);
  }
  /// The lower end of what the maximum may be.
  __device__ __forceinline__ u32 at(u32 group) const {
    return group % 2 == 0 ? pairs[group / 2] << 16 : pairs[group / 2] & 0xffff0000u;
  }
  /// False only when no value of the group is above 0 and reaches the bound.
  __device__ __forceinline__ bool mayReach(u32 group, u32 bound) const {
    return at(group) >= max(bound & 0xffff0000u, 0x10000u);
  }

  __device__ __forceinline__ u32 highest() const {
    u32 top = 0;
#pragma unroll
    for (u32 group = 0; group < GROUPS; group++) top = max(top, at(group));
    return top;
  }
};

/// look(position) for each position of the groups of a tile that may reach the bound, a thread a
/// position: few groups are hit, and in one thread their elements would come one after the other.
/// Where more than `room` groups are hit, shared.count says that they are too many. All threads
/// call it. Tile: its sizes.
template <class Tile, class Look>
__device__ __forceinline__ void eachHit(u32 n, u32 base, const Maxima<Tile::GROUPS>& maxima, u32 bound, u16* hits,
                                        u32 room, Shared& shared, const Look& look) {
  u32 mask = 0;
#pragma unroll
  for (u32 group = 0; group < Tile::GROUPS; group++) mask |= maxima.mayReach(group, bound) ? 1u << group : 0;
  u32& found = shared.hits[base / Tile::SIZE % 2];
  if (threadIdx.x == 0) shared.hits[(base / Tile::SIZE + 1) % 2] = 0;
  if (mask != 0) {
    u32 at = atomicAdd(&found, __popc(mask));
    for (; mask != 0; mask &= mask - 1, at++) {
      if (at < room) hits[at] = (__ffs(mask) - 1) * Tile::THREADS + threadIdx.x;
    }
  }
  __syncthreads();
  const u32 elements = min(found, room) * Tile::EACH;
  if (found > room && threadIdx.x == 0) atomicMax(&shared.count, room + 1);
  for (u32 i = threadIdx.x; i < elements; i += Tile::THREADS) {
    const u32 hit = hits[i / Tile::EACH], run = hit / Tile::THREADS * Tile::RUNS + i % Tile::EACH / Tile::RUN;
    const u32 position = base + (run * Tile::THREADS + hit % Tile::THREADS) * Tile::RUN + i % Tile::RUN;
    if (position < n) look(position);
  }
}

/// A number that at least r of the warp's maxima reach, and few more; 0 when not so many are above
/// 0.
template <u32 GROUPS>
__device__ __forceinline__ u32 warpBound(const Maxima<GROUPS>& maxima, u32 r) {
  u32 own = maxima.highest();
  if (r <= 8) {
    // One maximum a lane is enough: the highest are seldom in the same lane.
    for (;;) {
      const u32 top = __reduce_max_sync(ALL_LANES, own);
      if (--r == 0) return top;
      if (threadIdx.x % 32 == __ffs(__ballot_sync(ALL_LANES, own == top)) - 1) own = 0;
    }
  }
  const u32 top = __reduce_max_sync(ALL_LANES, own) >> 16;
  u32 low = 0, high = top + 1;
  // The r-th is within four octaves of the highest, as a rule.
  for (u32 middle = top > 512 ? top - 512 : top / 2; high - low > 1; middle = low + (high - low) / 2) {
    u32 count = 0;
#pragma unroll
    for (u32 group = 0; group < GROUPS; group++) count += maxima.at(group) >= middle << 16;
    if (__reduce_add_sync(ALL_LANES, count) >= r) low = middle;
    else high = middle;
  }
  return low << 16;
}

/// The sum over the block, the same in every thread. `turn` alternates, so that one barrier is
/// enough.
template <u32 THREADS>
__device__ __forceinline__ u32 blockTotal(u32 v, Shared& shared, u32& turn) {
  const u32 sum = __reduce_add_sync(ALL_LANES, v);
  u32* const partial = shared.partial[turn++ & 1];
  const u32 lane = threadIdx.x % 32;
  if (lane == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  return __reduce_add_sync(ALL_LANES, lane < THREADS / 32 ? partial[lane] : 0);
}

/// The steps of a bitonic sort by which runs of `run` keys are merged, from FROM apart on, all
/// within a warp. Key e of a thread has number THREADS e + thread.
template <u32 THREADS, u32 E, u32 FROM>
__device__ __forceinline__ void mergeInWarp(u64 (&own)[E], u32 run) {
#pragma unroll
  for (u32 stride = FROM; stride > 0; stride /= 2) {
#pragma unroll
    for (u32 e = 0; e < E; e++) {
      const bool isLow = (threadIdx.x & stride) == 0, descends = ((e * THREADS + threadIdx.x) & run) == 0;
      const u64 other = __shfl_xor_sync(ALL_LANES, own[e], stride);
      own[e] = (own[e] < other) == (isLow == descends) ? other : own[e];
    }
  }
}

/// Sorts keys [0, size), highest first, E keys a thread; size is a power of two, at least 64, and
/// THREADS E where E is not 1.
template <u32 THREADS, u32 E>
__device__ __noinline__ void sortPowerOfTwo(u64* keys, u32 size) {
  const bool in = threadIdx.x < size;
  u64 own[E];
#pragma unroll
  for (u32 e = 0; e < E; e++) own[e] = in ? keys[e * THREADS + threadIdx.x] : 0;
  if (in) {
    mergeInWarp<THREADS, E, 1>(own, 2);
    mergeInWarp<THREADS, E, 2>(own, 4);
    mergeInWarp<THREADS, E, 4>(own, 8);
    mergeInWarp<THREADS, E, 8>(own, 16);
    mergeInWarp<THREADS, E, 16>(own, 32);
  }
  for (u32 run = 64; run <= size; run *= 2) {
#pragma unroll
    for (u32 apart = E / 2; apart > 0; apart /= 2) {
      if (run < 2 * apart * THREADS) continue;
#pragma unroll
      for (u32 e = 0; e < E; e++) {
        if ((e & apart) != 0) continue;
        const u64 a = own[e], b = own[e | apart];
        const bool swap = (a < b) == ((e * THREADS & run) == 0);
        own[e] = swap ? b : a;
        own[e | apart] = swap ? a : b;
      }
    }
    for (u32 stride = min(run / 2, THREADS / 2); stride >= 32; stride /= 2) {
      __syncthreads();
      if (in) {
#pragma unroll
        for (u32 e = 0; e < E; e++) keys[e * THREADS + threadIdx.x] = own[e];
      }
      __syncthreads();
      if (in) {
#pragma unroll
        for (u32 e = 0; e < E; e++) {
          const u32 i = e * THREADS + threadIdx.x;
          const u64 other = keys[i ^ stride];
          own[e] = (own[e] < other) == (((i & stride) == 0) == ((i & run) == 0)) ? other : own[e];
        }
      }
    }
    if (in) mergeInWarp<THREADS, E, 16>(own, run);
  }
  __syncthreads();
  if (in) {
#pragma unroll
    for (u32 e = 0; e < E; e++) keys[e * THREADS + threadIdx.x] = own[e];
  }
  __syncthreads();
}

/// The same for a size that does not fit in registers.
template <u32 THREADS>
__device__ __noinline__ void sortInPlace(u64* keys, u32 size) {
  for (u32 run = 2; run <= size; run *= 2) {
    for (u32 stride = run / 2; stride > 0; stride /= 2) {
      for (u32 pair = threadIdx.x; pair < size / 2; pair += THREADS) {
        const u32 low = 2 * pair - (pair & (stride - 1)), high = low + stride;
        const u64 a = keys[low], b = keys[high];
        if ((a < b) == ((low & run) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

/// Sorts keys [0, count), highest first; there is room up to the next power of two.
template <u32 THREADS>
__device__ __forceinline__ void sortKeys(u64* keys, u32 count) {
  u32 size = 64;
  while (size < count) size *= 2;
  for (u32 i = count + threadIdx.x; i < size; i += THREADS) keys[i] = 0;
  __syncthreads();
  if (size <= THREADS) sortPowerOfTwo<THREADS, 1>(keys, size);
  else if (size == 2 * THREADS) sortPowerOfTwo<THREADS, 2>(keys, size);
  else if (size == 4 * THREADS) sortPowerOfTwo<THREADS, 4>(keys, size);
  else if (size == 8 * THREADS) sortPowerOfTwo<THREADS, 8>(keys, size);
  else sortInPlace<THREADS>(keys, size);
}

struct Out {
  u32* latent;
  float *value, *grad;
  u32* fired;
  float firedAbove;
};

/// latent: what the key's position stands for.
__device__ __forceinline__ void put(const Out& out, u32 slot, u64 key, u32 latent) {
  const bool on = key != 0;
  const float value = __uint_as_float(static_cast<u32>(key >> 32));
  out.latent[slot] = on ? latent : NONE;
  out.value[slot] = value;
  out.grad[slot] = 0;
  if (on && out.fired != nullptr && value > out.firedAbove) out.fired[latent] = 1;
}

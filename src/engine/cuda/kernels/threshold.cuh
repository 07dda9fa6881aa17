// What the rules "threshold" and "band" take of a row, in ascending order of the latents.

#pragma once

#include "saetta.cuh"

/// The codes that a warp takes of a row: live: above 0 and above the threshold; band: within half
/// of hyper[BANDWIDTH] of it.
struct Taken {
  const Selected &live, &band;
  u64 row;
  u32* fired;
  float firedAbove, near;
  u32 liveCount = 0, bandCount = 0;

  __device__ __forceinline__ Taken(const Selected& live, const Selected& band, u64 row, const double* hyper, u32* fired)
      : live(live), band(band), row(row), fired(fired) {
    firedAbove = __double2float_rd(hyper[FIRED_ABOVE]);
    // For a float, to be below a number is to be below the next float at or above it.
    near = band.latent == nullptr ? 0 : __double2float_ru(hyper[BANDWIDTH] / 2);
  }

  /// Of each lane that is on, a latent with its value and its threshold; all lanes call it.
  __device__ __forceinline__ void add(bool on, u32 j, float v, float limit) {
    const u32 lanesBefore = (1u << (threadIdx.x & 31)) - 1;
    const bool isLive = on && v > 0 && v > limit, isBand = on && fabsf(v - limit) < near;
    const u32 lives = __ballot_sync(0xffffffffu, isLive), bands = __ballot_sync(0xffffffffu, isBand);
    if (isLive && write(live, liveCount + __popc(lives & lanesBefore), j, v) && v > firedAbove) fired[j] = 1;
    if (isBand) write(band, bandCount + __popc(bands & lanesBefore), j, v);
    liveCount += __popc(lives);
    bandCount += __popc(bands);
  }

  /// The slots that are left; counts[row], also of those that do not fit; bad: FULL.
  __device__ __forceinline__ void end(u32* counts, u32* bad) const {
    if (live.latent != nullptr) {
      endRow(live, liveCount, bad);
      if ((threadIdx.x & 31) == 0) counts[row] = liveCount;
    }
    if (band.latent != nullptr) endRow(band, bandCount, bad);
  }

 private:
  /// Writes a code; false where there is no slot for it.
  __device__ __forceinline__ bool write(const Selected& to, u32 slot, u32 j, float v) const {
    if (to.latent == nullptr || slot >= to.capacity) return false;
    const u64 at = row * to.capacity + slot;
    to.latent[at] = j;
    to.value[at] = v;
    to.grad[at] = 0;
    return true;
  }

  __device__ __forceinline__ void endRow(const Selected& to, u32 count, u32* bad) const {
    const u32 lane = threadIdx.x & 31;
    if (count > to.capacity && lane == 0) atomicOr(bad, FULL);
    for (u64 slot = count + lane; slot < to.capacity; slot += 32) {
      to.latent[row * to.capacity + slot] = NONE;
      to.value[row * to.capacity + slot] = 0;
      to.grad[row * to.capacity + slot] = 0;
    }
  }
};

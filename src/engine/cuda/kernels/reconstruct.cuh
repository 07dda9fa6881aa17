// What decode, residual and codeGrad have in common, one by one and together (reconstruct.cu,
// reconstruct_wide.cu).

#pragma once

#include "saetta.cuh"

/// The latents of one plane of err: `size` of them from `begin` on. An unused slot's is none of
/// them.
struct Plane {
  u32 begin, size;

  __device__ __forceinline__ bool has(u32 j) const { return j - begin < size; }
};

__device__ __forceinline__ Plane planeAt(const Prefixes& prefixes, u32 g) {
  const u32 begin = g == 0 ? 0 : prefixes.ends[g - 1];
  return {begin, prefixes.ends[g] - min(begin, prefixes.ends[g])};
}

/// sums += columns [c, c + V) of W z for one row, of slots from `first` on whose latents are in the
/// plane.
template <int V>
__device__ __forceinline__ void decodeColumns(const half_t* decoder, const u32* latent, const float* value, u32 first,
                                              u32 k, u32 d, Plane plane, u32 c, float (&sums)[V]) {
  constexpr u32 BATCH = 8;
  for (u32 slot = first; slot < k; slot += BATCH) {
    if (latent[slot] == NONE) break;
    Raw<V> raw[BATCH];
    float factor[BATCH];
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      const u32 j = slot + i < k ? latent[slot + i] : NONE;
      factor[i] = plane.has(j) ? value[slot + i] : 0;
      raw[i] = fetchIf<V>(plane.has(j), decoder + static_cast<u64>(j) * d + c);
    }
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      float row[V];
      unpack(raw[i], row);
#pragma unroll
      for (int u = 0; u < V; u++) sums[u] = fmaf(row[u], factor[i], sums[u]);
    }
  }
}

/// The sum over the lanes of sums[i] in lane i: halves are exchanged, so that each sum is a tree
/// over the lanes, the same as warpSum.
template <int COUNT>
__device__ __forceinline__ float turnedSum(const float (&sums)[COUNT]) {
  if constexpr (COUNT == 1) {
    return sums[0];
  } else {
    constexpr int HALF = COUNT / 2;
    const bool upper = (threadIdx.x & HALF) != 0;
    float halves[HALF];
#pragma unroll
    for (int i = 0; i < HALF; i++) {
      const float mine = upper ? sums[i + HALF] : sums[i], other = upper ? sums[i] : sums[i + HALF];
      halves[i] = mine + __shfl_xor_sync(0xffffffffu, other, HALF);
    }
    return turnedSum(halves);
  }
}

/// Of `slots` <= HELD slots the sums over a block of a thread's parts -> grad, where latents are in
/// the plane; 0 in unused slots. `order` (may be null): the slot that each is written to. room
/// [warps][HELD]. True when one is not finite. All threads call it; `room` may be used again when
/// they have met once more.
__device__ __forceinline__ bool writeGradients(float (&parts)[HELD], const u32* latent, u32 slots, Plane plane,
                                               float* grad, float* room, const u8* order = nullptr) {
  const float sum = turnedSum(parts);
  room[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= slots) return false;
  const u32 j = latent[threadIdx.x];
  if (!plane.has(j) && j != NONE) return false;
  float all = 0;
  for (u32 at = threadIdx.x; at < blockDim.x; at += HELD) all += room[at];
  if (j == NONE) all = 0;
  grad[order != nullptr ? order[threadIdx.x] : threadIdx.x] = all;
  return !(fabsf(all) <= 3.4028234e38f);
}

/// The gradients of the codes of one row whose latents are in the plane; `err` in shared memory.
template <int V>
__device__ __forceinline__ bool gradientsOfRow(const half_t* decoder, const u32* latent, float* grad, u32 k,
                                               const float* err, u32 d, Plane plane, float* room) {
  constexpr u32 BATCH = 8;
  bool bad = false;
  for (u32 first = 0; first < k; first += HELD) {
    if (first > 0 && latent[first] == NONE) break;
    const u32 slots = min(static_cast<u32>(HELD), k - first);
    float parts[HELD] = {};
    for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      float e[V];
      loadFloats(err + c, e);
#pragma unroll
      for (u32 batch = 0; batch < HELD; batch += BATCH) {
        if (batch >= slots || latent[first + batch] == NONE) break;
        Raw<V> raw[BATCH];
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) {
          // Read again for each column: addresses of all slots would take too many registers.
          const u32 j =
              batch + i < slots ? *static_cast<const volatile u32*>(latent + first + batch + i) : NONE;
          raw[i] = fetchIf<V>(plane.has(j), decoder + static_cast<u64>(j) * d + c);
        }
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) {
          float row[V];
          unpack(raw[i], row);
#pragma unroll
          for (int u = 0; u < V; u++) parts[batch + i] = fmaf(row[u], e[u], parts[batch + i]);
        }
      }
    }
    __syncthreads();
    bad = writeGradients(parts, latent + first, slots, plane, grad + first, room) || bad;
  }
  return bad;
}

/// A thread's sums in float64 of V columns, over the rows of a block.
template <int V>
struct Columns {
  double err[V], centred[V];

  __device__ __forceinline__ void add(int u, double e, double x) {
    err[u] += e;
    centred[u] += x;
  }
};

struct Squares {
  double err, x, centred;
};

struct Residual {
  const float *preBias, *x;
  half_t* err16;
  float* err;
  /// The live err when this is the dead branch, else null.
  const float* live;
};

/// What columns [c, c + V) of W z become err with: x and bias, or the live err.
template <int V>
struct Target {
  float x[V], bias[V];
};

template <int V>
__device__ __forceinline__ Target<V> targetOf(const Residual& a, u64 b, u32 d, u32 c) {
  Target<V> target = {};
  loadFloats((a.live != nullptr ? a.live : a.x) + b * d + c, target.x);
  if (a.live == nullptr) loadFloats(a.preBias + c, target.bias);
  return target;
}

/// `e` holds columns [c, c + V) of W z of row b and becomes err, which is written. True when it
/// does not fit half_t.
template <int V, class Sums>
__device__ __forceinline__ bool residualColumns(const Residual& a, const Target<V>& target, u64 b, u32 d, u32 c,
                                                float (&e)[V], Sums& columns, Squares& squares) {
  const u64 at = b * d + c;
  bool bad = false;
#pragma unroll
  for (int u = 0; u < V; u++) {
    if (a.live != nullptr) {
      e[u] += target.x[u];
    } else {
      const double wide = target.x[u], centred = wide - target.bias[u];
      e[u] += target.bias[u] - target.x[u];
      columns.add(u, e[u], centred);
      squares.x += wide * wide;
      squares.centred += centred * centred;
    }
  }
#pragma unroll
  for (int u = 0; u < V; u++) {
    squares.err += static_cast<double>(e[u]) * e[u];
    bad = bad || isBad(e[u]);
  }
  storeFloats(a.err + at, e);
#if SAETTA_COMPUTE != 0
  storeHalf(a.err16 + at, e);
#endif
  return bad;
}

/// A block's line of partial sums; `active` counts in each thread.
__device__ __forceinline__ void writeSquares(double* line, const Squares& squares, u32 active, double* room) {
  const double err = blockSum(squares.err, room), x = blockSum(squares.x, room),
               centred = blockSum(squares.centred, room);
  const double on = blockSum(static_cast<double>(active), room);
  if (threadIdx.x > 0) return;
  line[P_ERR2] = err;
  line[P_X2] = x;
  line[P_CENTRED2] = centred;
  line[P_ACTIVE] = on;
}

/// Adds a thread's columns of one row to the block's line, whose columns are this thread's own;
/// begins them with the first row.
template <int V>
__device__ __forceinline__ void addColumns(double* line, u32 d, u32 c, const Columns<V>& columns, bool first) {
#pragma unroll
  for (int u = 0; u < V; u++) {
    double &err = line[P_COLUMNS + c + u], &centred = line[P_COLUMNS + d + c + u];
    err = (first ? 0 : err) + columns.err[u];
    centred = (first ? 0 : centred) + columns.centred[u];
  }
}

/// The codes of a row in shared memory; of three rows, so that threads meet once a row.
struct HeldCodes {
  u32 latent[HELD];
  float value[HELD];
};

/// Of HeldCodes that are ordered by plane: the plane of each, the number of planes where there is
/// none; the slot it is in; and how many are of each plane or one before.
struct alignas(16) HeldPlanes {
  u8 plane[HELD], slot[HELD], ends[MOST_PREFIXES];
};

// decode, residual and codeGrad in one kernel, for rows of codes that may have more than HELD slots
// (reconstruct_wide) and for Matryoshka's planes of err (reconstruct_planes), with the bits of the
// three one by one; and the residual of planes.
//
// As `reconstruct`, a block takes R rows, keeps the decoder rows of the first HELD slots in shared
// memory from decode to codeGrad, and brings the next row's meanwhile. Further slots are read from
// L2 where they are needed, twice. Sums of planes are in shared memory, a thread's columns for
// itself alone: planes [plane][V / 4][thread]. The first HELD slots are ordered by plane, so that
// each plane's sums are in registers while they are added to and while they are used.

#include "reconstruct.cuh"

/// A thread's columns of the planes of a row.
template <int V>
struct Planes {
  float4* room;

  __device__ __forceinline__ void load(u32 g, float (&to)[V]) const {
#pragma unroll
    for (u32 quarter = 0; quarter < V / 4; quarter++) {
      const float4 part = room[(g * (V / 4) + quarter) * blockDim.x + threadIdx.x];
      to[quarter * 4] = part.x, to[quarter * 4 + 1] = part.y;
      to[quarter * 4 + 2] = part.z, to[quarter * 4 + 3] = part.w;
    }
  }
  __device__ __forceinline__ void store(u32 g, const float (&from)[V]) const {
#pragma unroll
    for (u32 quarter = 0; quarter < V / 4; quarter++)
      room[(g * (V / 4) + quarter) * blockDim.x + threadIdx.x] =
          make_float4(from[quarter * 4], from[quarter * 4 + 1], from[quarter * 4 + 2], from[quarter * 4 + 3]);
  }
};

/// A thread's sums in float64 over the rows of a block, in shared memory: V columns of err plane 0,
/// then the squares of each prefix but the last.
struct PlaneSums {
  double* room;

  __device__ __forceinline__ double& at(u32 i) const { return room[i * blockDim.x + threadIdx.x]; }
};

/// A step of `prefixResiduals` of ../../../sae/math.ts, from the last prefix to the first.
__device__ __forceinline__ float weightedResidual(const Prefixes& prefixes, u32 g, float residual, float later) {
  return fmaf(prefixes.weights[g], residual, later);
}

/// Of a row: `planes` hold sums of W z and become err, which is written. True when it does not fit
/// half_t.
template <int V>
__device__ __forceinline__ bool planeResidual(const Residual& a, const Prefixes& prefixes, const Target<V>& target,
                                              u64 b, u32 B, u32 d, u32 c, const Planes<V>& planes,
                                              const PlaneSums& sums, Columns<V>& columns, Squares& squares) {
  const u32 last = prefixes.count - 1;
  float sum[V];
#pragma unroll
  for (int u = 0; u < V; u++) {
    const double wide = target.x[u], centred = wide - target.bias[u];
    squares.x += wide * wide;
    squares.centred += centred * centred;
    columns.centred[u] += centred;
    sum[u] = target.bias[u] - target.x[u];
  }
#pragma unroll 1
  for (u32 g = 0; g <= last; g++) {
    float part[V];
    double square = 0;
    planes.load(g, part);
#pragma unroll
    for (int u = 0; u < V; u++) {
      sum[u] += part[u];
      square += static_cast<double>(sum[u]) * sum[u];
    }
    planes.store(g, sum);
    if (g < last) sums.at(V + g) += square;
    else squares.err += square;
  }
#pragma unroll
  for (int u = 0; u < V; u++) columns.err[u] += sum[u];
  bool bad = false;
  float err[V] = {};
#pragma unroll 1
  for (u32 g = prefixes.count; g-- > 0;) {
    float residual[V];
    planes.load(g, residual);
#pragma unroll
    for (int u = 0; u < V; u++) {
      err[u] = weightedResidual(prefixes, g, residual[u], err[u]);
      bad = bad || isBad(err[u]);
    }
    planes.store(g, err);
    const u64 at = (static_cast<u64>(g) * B + b) * d + c;
    storeFloats(a.err + at, err);
#if SAETTA_COMPUTE != 0
    storeHalf(a.err16 + at, err);
#endif
  }
#pragma unroll
  for (int u = 0; u < V; u++) sums.at(u) += err[u];
  return bad;
}

/// The codes of the first HELD slots, a lane of the first warp each, ordered by plane and, within
/// one, by slot. Unused slots come last.
__device__ __forceinline__ void orderByPlane(const Prefixes& prefixes, u32 j, float v, HeldCodes& codes,
                                             HeldPlanes& planes) {
  const u32 own = j == NONE ? prefixes.count : planeOf(prefixes, j);
  const u32 lanesBefore = (1u << threadIdx.x) - 1;
  u32 at = 0, end = 0;
  for (u32 g = 0; g <= prefixes.count; g++) {
    const u32 mask = __ballot_sync(0xffffffffu, own == g);
    if (g == own) at = end + __popc(mask & lanesBefore);
    end += __popc(mask);
    if (threadIdx.x == 0 && g < prefixes.count) planes.ends[g] = static_cast<u8>(end);
  }
  codes.latent[at] = j;
  codes.value[at] = v;
  planes.plane[at] = static_cast<u8>(own);
  planes.slot[at] = static_cast<u8>(threadIdx.x);
}

/// A row's codes behind the first HELD, in memory.
struct More {
  const u32* latent;
  const float* value;
  float* grad;
  u32 k;

  __device__ __forceinline__ bool from(u32 first) const { return first < k && latent[first] != NONE; }
};

/// Rows [first, last) of a block. `held` [HELD][thread]: decoder rows of the first HELD slots.
template <int V, bool PLANES>
__device__ __forceinline__ void reconstructRows(const half_t* decoder, const u32* latent, const float* value,
                                                float* grad, u32 k, const Residual& a, const Prefixes& prefixes,
                                                bool add, u32 first, u32 last, u32 B, u32 d, double* line,
                                                HeldCodes* codes, HeldPlanes* heldPlanes, uint4* held,
                                                float* room, const Planes<V>& planes, const PlaneSums& sums,
                                                Squares& squares, u32& active, bool& bad) {
  constexpr u32 BATCH = 8;
  const u32 c = threadIdx.x * V, inHeld = min(k, HELD), n = prefixes.ends[prefixes.count - 1];
  const Plane all = {0, n};
  const bool on = c < d, isSlot = threadIdx.x < HELD;
  const auto latentOf = [&](u32 b) {
    return threadIdx.x < inHeld && b < last ? latent[static_cast<u64>(b) * k + threadIdx.x] : NONE;
  };
  const auto valueOf = [&](u32 b) {
    return threadIdx.x < inHeld && b < last ? value[static_cast<u64>(b) * k + threadIdx.x] : 0;
  };
  const auto ask = [&](const HeldCodes& row, int i) {
    const u32 j = row.latent[i];
    copyAheadIf(all.has(j), held + i * blockDim.x + threadIdx.x,
                decoder + (all.has(j) ? static_cast<u64>(j) * d + c : 0));
  };
  const auto addTo = [&](u32 j, float factor, const Raw<V>& raw, float (&e)[V]) {
    float row[V];
    unpack(raw, row);
    if constexpr (PLANES) {
      const u32 g = planeOf(prefixes, j);
      float sum[V];
      planes.load(g, sum);
#pragma unroll
      for (int u = 0; u < V; u++) sum[u] = fmaf(row[u], factor, sum[u]);
      planes.store(g, sum);
    } else {
#pragma unroll
      for (int u = 0; u < V; u++) e[u] = fmaf(row[u], factor, e[u]);
    }
  };
  const auto dot = [&](u32 j, const Raw<V>& raw, const float (&e)[V], float& part) {
    float row[V];
    unpack(raw, row);
    if constexpr (PLANES) {
      float own[V];
      planes.load(planeOf(prefixes, j), own);
#pragma unroll
      for (int u = 0; u < V; u++) part = fmaf(row[u], own[u], part);
    } else {
#pragma unroll
      for (int u = 0; u < V; u++) part = fmaf(row[u], e[u], part);
    }
  };
  const auto heldRow = [&](int i) {
    const uint4 bits = held[i * blockDim.x + threadIdx.x];
    return Raw<V>{{bits.x, bits.y, bits.z, bits.w}};
  };
  const auto hold = [&](u32 turn, u32 j, float v) {
    if constexpr (PLANES) {
      orderByPlane(prefixes, j, v, codes[turn], heldPlanes[turn]);
    } else {
      codes[turn].latent[threadIdx.x] = j;
      codes[turn].value[threadIdx.x] = v;
    }
  };
  if (isSlot) {
    hold(0, latentOf(first), valueOf(first));
    hold(1, latentOf(first + 1), valueOf(first + 1));
  }
  if constexpr (PLANES) {
    for (u32 i = 0; i < V + prefixes.count - 1; i++) sums.at(i) = 0;
  }
  __syncthreads();
  if (on) {
#pragma unroll 8
    for (int i = 0; i < HELD; i++) ask(codes[0], i);
  }
  Columns<V> columns = {};
  u32 now = 0, turn = 0;
  for (u32 b = first; b < last; b++) {
    const u32 next = now == 2 ? 0 : now + 1, afterNext = next == 2 ? 0 : next + 1;
    const u32 latentAfter = isSlot ? latentOf(b + 2) : NONE;
    const float valueAfter = isSlot ? valueOf(b + 2) : 0;
    const u64 at = static_cast<u64>(b) * k;
    const More more = {latent + at, value + at, grad + at, k};
    float e[V] = {}, parts[HELD] = {};
    if (on) {
      const Target<V> target = targetOf<V>(a, b, d, c);
      if (add) loadFloats(a.err + static_cast<u64>(b) * d + c, e);
      endOfCopies();
      waitForCopies<0>();
      const auto addHeld = [&](u32 i) {
        float row[V];
        unpack(heldRow(i), row);
        const float factor = codes[now].value[i];
#pragma unroll
        for (int u = 0; u < V; u++) e[u] = fmaf(row[u], factor, e[u]);
      };
      if constexpr (PLANES) {
        // Little code: more than the instruction cache holds is slower than any loop.
        u32 i = 0;
        for (u32 g = 0; g < prefixes.count; g++) {
          const u32 end = heldPlanes[now].ends[g];
#pragma unroll 4
          for (; i < end; i++) addHeld(i);
          planes.store(g, e);
#pragma unroll
          for (int u = 0; u < V; u++) e[u] = 0;
        }
      } else {
#pragma unroll 8
        for (u32 i = 0; i < HELD; i++) addHeld(i);
      }
      for (u32 slot = HELD; more.from(slot); slot += BATCH) {
        Raw<V> raw[BATCH];
        u32 latents[BATCH];
        float factor[BATCH];
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) {
          latents[i] = slot + i < k ? more.latent[slot + i] : NONE;
          factor[i] = latents[i] != NONE ? more.value[slot + i] : 0;
          raw[i] = fetchIf<V>(latents[i] != NONE, decoder + static_cast<u64>(latents[i]) * d + c);
        }
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) {
          if (PLANES && latents[i] == NONE) break;
          addTo(latents[i], factor[i], raw[i], e);
        }
      }
      if constexpr (PLANES) {
        bad = planeResidual(a, prefixes, target, b, B, d, c, planes, sums, columns, squares) || bad;
      } else {
        bad = residualColumns(a, target, b, d, c, e, columns, squares) || bad;
      }
      // Of planes: e is err of the one that `plane` says. Four of their numbers are in a word.
      u32 plane = NONE, numbers[HELD / 4] = {};
      const auto planeOfSlot = [&](int i) { return numbers[i / 4] >> 8 * (i % 4) & 255; };
      if constexpr (PLANES) {
#pragma unroll
        for (int i = 0; i < HELD / 16; i++) {
          const uint4 some = reinterpret_cast<const uint4*>(heldPlanes[now].plane)[i];
          numbers[4 * i] = some.x, numbers[4 * i + 1] = some.y, numbers[4 * i + 2] = some.z,
                      numbers[4 * i + 3] = some.w;
        }
      }
#pragma unroll
      for (int i = 0; i < HELD; i++) {
        if (PLANES ? planeOfSlot(i) < prefixes.count : codes[now].latent[i] != NONE) {
          if (PLANES && plane != planeOfSlot(i)) {
            plane = planeOfSlot(i);
            planes.load(plane, e);
          }
          float row[V];
          unpack(heldRow(i), row);
#pragma unroll
          for (int u = 0; u < V; u++) parts[i] = fmaf(row[u], e[u], parts[i]);
        }
        // After the last row there are no codes: zeros take the place.
        ask(codes[next], i);
      }
    }
    if (isSlot) {
      hold(afterNext, latentAfter, valueAfter);
      active += codes[now].value[threadIdx.x] > 0;
    }
    const u8* const order = PLANES ? heldPlanes[now].slot : nullptr;
    bad = writeGradients(parts, codes[now].latent, inHeld, all, more.grad, room + (turn++ & 1) * blockDim.x, order) ||
          bad;
    for (u32 slot = HELD; more.from(slot); slot += HELD) {
      const u32 slots = min(HELD, k - slot);
#pragma unroll
      for (int i = 0; i < HELD; i++) parts[i] = 0;
      if (on) {
#pragma unroll
        for (u32 batch = 0; batch < HELD; batch += BATCH) {
          if (batch >= slots || more.latent[slot + batch] == NONE) break;
          Raw<V> raw[BATCH];
          u32 latents[BATCH];
#pragma unroll
          for (u32 i = 0; i < BATCH; i++) {
            latents[i] = batch + i < slots ? more.latent[slot + batch + i] : NONE;
            raw[i] = fetchIf<V>(latents[i] != NONE, decoder + static_cast<u64>(latents[i]) * d + c);
          }
#pragma unroll
          for (u32 i = 0; i < BATCH; i++) {
            if (latents[i] != NONE) dot(latents[i], raw[i], e, parts[batch + i]);
          }
        }
      }
      if (threadIdx.x < slots) active += more.value[slot + threadIdx.x] > 0;
      bad = writeGradients(parts, more.latent + slot, slots, all, more.grad + slot,
                           room + (turn++ & 1) * blockDim.x) ||
            bad;
    }
    now = next;
  }
  endOfCopies();
  waitForCopies<0>();
  if (on) addColumns(line, d, c, columns, true);
}

template <bool PLANES>
__device__ __forceinline__ void reconstructBlock(const half_t* decoder, const u32* latent, const float* value,
                                                 float* grad, u32 k, const Residual& a, const Prefixes& prefixes,
                                                 bool add, u32 B, u32 d, u32 R, double* partial, u32* bad) {
  extern __shared__ uint4 shared[];
  __shared__ HeldCodes codes[3];
  __shared__ HeldPlanes heldPlanes[PLANES ? 3 : 1];
  const u32 first = blockIdx.x * R, last = min(B, first + R), G = prefixes.count, c = threadIdx.x * WIDE;
  const u32 width = P_COLUMNS + 2 * d + (PLANES ? d + G - 1 : 0);
  double* line = partial + static_cast<u64>(blockIdx.x) * width;
  // Twice a float a thread, for gradients and, when they are done, for sums: a warp needs no room.
  float* const parts = reinterpret_cast<float*>(shared + HELD * blockDim.x);
  double* const room = reinterpret_cast<double*>(parts);
  const Planes<WIDE> planes = {reinterpret_cast<float4*>(parts + 2 * blockDim.x)};
  const PlaneSums sums = {reinterpret_cast<double*>(planes.room + G * (WIDE / 4) * blockDim.x)};
  Squares squares = {};
  u32 active = 0;
  bool notFinite = false;
  reconstructRows<WIDE, PLANES>(decoder, latent, value, grad, k, a, prefixes, add, first, last, B, d, line, codes,
                                heldPlanes, shared, parts, planes, sums, squares, active, notFinite);
  if (notFinite) markBad(bad);
  writeSquares(line, squares, active, room);
  if constexpr (PLANES) {
    if (c < d) {
#pragma unroll
      for (int u = 0; u < WIDE; u++) line[P_COLUMNS + 2 * d + c + u] = sums.at(u);
    }
    for (u32 g = 0; g + 1 < G; g++) {
      const double square = blockSum(sums.at(WIDE + g), room);
      if (threadIdx.x == 0) line[P_COLUMNS + 3 * d + g] = square;
    }
  }
}

#ifndef WIDE_REGISTERS
#define WIDE_REGISTERS 168
#endif

/// decode, residual and code_grad where d is a multiple of WIDE and d <= MOST_THREADS WIDE; one
/// prefix. `add`: err holds what is added to W z. Grid ceil(B / R), block T(d), shared 520 T(d).
extern "C" __global__ void __maxnreg__(WIDE_REGISTERS)
    reconstruct_wide(PARAMETERS(reconstruct_wide)) {
  reconstructBlock<false>(decoder, latent, value, grad, k, {preBias, x, err16, err, nullptr}, prefixes, add != 0, B, d,
                          R, partial, bad);
}

/// The same with G prefixes, at least 2. A line of `partial` goes on with d columns of err plane 0
/// and the squares of each prefix but the last. Shared (520 + 4 WIDE G + 8 (WIDE + G - 1)) T(d).
extern "C" __global__ void __maxnreg__(WIDE_REGISTERS)
    reconstruct_planes(PARAMETERS(reconstruct_planes)) {
  reconstructBlock<true>(decoder, latent, value, grad, k, {preBias, x, err16, err, nullptr}, prefixes, add != 0, B, d,
                         R, partial, bad);
}

/// planeResidual one by one: err [G][B,d] holds sums of W z. Columns are added to the block's line.
template <int V>
__device__ __forceinline__ bool planeRows(const Residual& a, const Prefixes& prefixes, u32 first, u32 last, u32 B,
                                          u32 d, double* line, const PlaneSums& sums, Squares& squares) {
  const u32 final = prefixes.count - 1;
  const u64 plane = static_cast<u64>(B) * d;
  bool bad = false;
  for (u32 b = first; b < last; b++) {
    for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      const Target<V> target = targetOf<V>(a, b, d, c);
      float* err = a.err + static_cast<u64>(b) * d + c;
      float sum[V], weighted[V] = {};
      double* columns = line + P_COLUMNS + c;
#pragma unroll
      for (int u = 0; u < V; u++) {
        const double wide = target.x[u], centred = wide - target.bias[u];
        squares.x += wide * wide;
        squares.centred += centred * centred;
        columns[d + u] = (b == first ? 0 : columns[d + u]) + centred;
        sum[u] = target.bias[u] - target.x[u];
      }
      for (u32 g = 0; g <= final; g++) {
        float part[V];
        double square = 0;
        loadFloats(err + g * plane, part);
#pragma unroll
        for (int u = 0; u < V; u++) {
          sum[u] += part[u];
          square += static_cast<double>(sum[u]) * sum[u];
        }
        storeFloats(err + g * plane, sum);
        if (g < final) sums.at(g) += square;
        else squares.err += square;
      }
      for (u32 g = prefixes.count; g-- > 0;) {
        float residual[V];
        loadFloats(err + g * plane, residual);
#pragma unroll
        for (int u = 0; u < V; u++) {
          weighted[u] = weightedResidual(prefixes, g, residual[u], weighted[u]);
          bad = bad || isBad(weighted[u]);
        }
        storeFloats(err + g * plane, weighted);
#if SAETTA_COMPUTE != 0
        storeHalf(a.err16 + g * plane + static_cast<u64>(b) * d + c, weighted);
#endif
      }
#pragma unroll
      for (int u = 0; u < V; u++) {
        columns[u] = (b == first ? 0 : columns[u]) + sum[u];
        columns[2 * d + u] = (b == first ? 0 : columns[2 * d + u]) + weighted[u];
      }
    }
  }
  return bad;
}

/// A line of `partial` as of reconstruct_planes. Grid ceil(B / R), block T(d), shared 8 (G - 1)
/// T(d).
extern "C" __global__ void residual_planes(PARAMETERS(residual_planes)) {
  extern __shared__ uint4 shared[];
  __shared__ double room[33];
  const Residual a = {preBias, x, err16, err, nullptr};
  const PlaneSums sums = {reinterpret_cast<double*>(shared)};
  const u32 first = blockIdx.x * R, last = min(B, first + R), G = prefixes.count;
  double* line = partial + static_cast<u64>(blockIdx.x) * (P_COLUMNS + 3 * d + G - 1);
  for (u32 g = 0; g + 1 < G; g++) sums.at(g) = 0;
  Squares squares = {};
  u32 active = 0;
  const u64 end = static_cast<u64>(last) * k;
  for (u64 slot = static_cast<u64>(first) * k + threadIdx.x; slot < end; slot += blockDim.x) active += value[slot] > 0;
  const bool notFinite = d % WIDE == 0 ? planeRows<WIDE>(a, prefixes, first, last, B, d, line, sums, squares)
                                       : planeRows<1>(a, prefixes, first, last, B, d, line, sums, squares);
  if (notFinite) markBad(bad);
  writeSquares(line, squares, active, room);
  for (u32 g = 0; g + 1 < G; g++) {
    const double square = blockSum(sums.at(g), room);
    if (threadIdx.x == 0) line[P_COLUMNS + 3 * d + g] = square;
  }
}

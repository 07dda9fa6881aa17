// decode, residual and codeGrad, each on its own and in one kernel, with the same bits: sums over
// slots go in their order, sums over columns in an order that depends on d only (a thread's
// columns, the lanes, the warps).
//
// Where a row of codes has at most HELD slots, the one kernel reads their decoder rows once, to
// shared memory, and the next row's while it works: B k d elements from L2 (0.81 GB at B = 16384, k
// = 32, d = 768, 16 bits), and B d (4 of x + 4 of err + 2 of err16) bytes of memory. A block takes
// R rows, whose sums in float64 are its line of `partial` [blocks][4 + 2 d]: squares of err, of x,
// of x - b, the active latents, columns of err, columns of x - b. residual_sums adds the lines in
// order.

#include "saetta.cuh"

/// Columns [c, c + V) of W z for one row. Unused slots have a latent that is not below n.
template <int V>
__device__ __forceinline__ void decodeColumns(const half_t* decoder, const u32* latent, const float* value, u32 k,
                                              u32 d, u32 n, u32 c, float (&sums)[V]) {
  constexpr u32 BATCH = 8;
#pragma unroll
  for (int u = 0; u < V; u++) sums[u] = 0;
  for (u32 slot = 0; slot < k; slot += BATCH) {
    Raw<V> raw[BATCH];
    float factor[BATCH];
#pragma unroll
    for (u32 i = 0; i < BATCH; i++) {
      const u32 j = slot + i < k ? latent[slot + i] : NONE;
      factor[i] = j < n ? value[slot + i] : 0;
      raw[i] = fetchIf<V>(j < n, decoder + static_cast<u64>(j) * d + c);
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

template <int V>
__device__ __forceinline__ void decodeRow(const half_t* decoder, const u32* latent, const float* value, u32 k, u32 d,
                                          u32 n, float* err) {
  for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    float e[V];
    decodeColumns(decoder, latent, value, k, d, n, c, e);
    storeFloats(err + c, e);
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

/// Of `slots` <= HELD slots the sums over a block of a thread's parts -> grad; `latent` in shared
/// memory, room [warps][HELD]. True when one is not finite. All threads call it; `room` may be used
/// again when they have met once more.
__device__ __forceinline__ bool writeGradients(float (&parts)[HELD], const u32* latent, u32 slots, u32 n, float* grad,
                                               float* room) {
  const float sum = turnedSum(parts);
  room[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= slots) return false;
  float all = 0;
  for (u32 at = threadIdx.x; at < blockDim.x; at += HELD) all += room[at];
  if (latent[threadIdx.x] >= n) all = 0;
  grad[threadIdx.x] = all;
  return !(fabsf(all) <= 3.4028234e38f);
}

/// The gradients of the codes of one row; `latent` and `err` in shared memory.
template <int V>
__device__ __forceinline__ bool gradientsOfRow(const half_t* decoder, const u32* latent, float* grad, u32 k,
                                               const float* err, u32 d, u32 n, float* room) {
  constexpr u32 BATCH = 8;
  bool bad = false;
  for (u32 first = 0; first < k; first += HELD) {
    const u32 slots = min(static_cast<u32>(HELD), k - first);
    float parts[HELD] = {};
    for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      float e[V];
      loadFloats(err + c, e);
#pragma unroll
      for (u32 batch = 0; batch < HELD; batch += BATCH) {
        Raw<V> raw[BATCH];
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) {
          const u32 j = batch + i < slots ? latent[first + batch + i] : NONE;
          raw[i] = fetchIf<V>(j < n, decoder + static_cast<u64>(j) * d + c);
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
    bad = writeGradients(parts, latent + first, slots, n, grad + first, room) || bad;
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

/// Grid B, block T(d), shared 8 k.
extern "C" __global__ void decode(PARAMETERS(decode)) {
  extern __shared__ uint4 shared[];
  u32* latents = reinterpret_cast<u32*>(shared);
  float* values = reinterpret_cast<float*>(latents + k);
  const u64 b = blockIdx.x;
  for (u32 slot = threadIdx.x; slot < k; slot += blockDim.x) {
    latents[slot] = latent[b * k + slot];
    values[slot] = value[b * k + slot];
  }
  __syncthreads();
  if (d % WIDE == 0) decodeRow<WIDE>(decoder, latents, values, k, d, n, err + b * d);
  else decodeRow<1>(decoder, latents, values, k, d, n, err + b * d);
}

/// Rows [first, last) of a block. Where one round of the threads covers a row, sums of the columns
/// stay in registers.
template <int V>
__device__ __forceinline__ void residualRows(const Residual& a, u32 first, u32 last, u32 d, double* line,
                                             Squares& squares, bool& bad) {
  const bool once = d <= blockDim.x * V;
  Columns<V> all = {};
  for (u32 b = first; b < last; b++) {
    for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      float e[V];
      loadFloats(a.err + static_cast<u64>(b) * d + c, e);
      if (!once) all = {};
      bad = residualColumns(a, targetOf<V>(a, b, d, c), b, d, c, e, all, squares) || bad;
      if (!once) addColumns(line, d, c, all, b == first);
    }
  }
  if (once && threadIdx.x * V < d) addColumns(line, d, threadIdx.x * V, all, true);
}

/// Grid ceil(B / R), block T(d).
extern "C" __global__ void residual(PARAMETERS(residual)) {
  __shared__ double room[33];
  const Residual a = {preBias, x, err16, err, live};
  const u32 first = blockIdx.x * R, last = min(B, first + R);
  double* line = partial + static_cast<u64>(blockIdx.x) * (P_COLUMNS + 2 * d);
  Squares squares = {};
  u32 active = 0;
  bool notFinite = false;
  const u64 end = static_cast<u64>(last) * k;
  for (u64 slot = static_cast<u64>(first) * k + threadIdx.x; slot < end; slot += blockDim.x) active += value[slot] > 0;
  if (d % WIDE == 0) residualRows<WIDE>(a, first, last, d, line, squares, notFinite);
  else residualRows<1>(a, first, last, d, line, squares, notFinite);
  if (notFinite) markBad(bad);
  writeSquares(line, squares, active, room);
}

/// Grid B, block T(d), shared 4 (d + k).
extern "C" __global__ void code_grad(PARAMETERS(code_grad)) {
  extern __shared__ uint4 shared[];
  __shared__ float room[MOST_THREADS];
  float* row = reinterpret_cast<float*>(shared);
  u32* latents = reinterpret_cast<u32*>(row + d);
  const u64 b = blockIdx.x;
  for (u32 i = threadIdx.x; i < d; i += blockDim.x) row[i] = err[b * d + i];
  for (u32 slot = threadIdx.x; slot < k; slot += blockDim.x) latents[slot] = latent[b * k + slot];
  __syncthreads();
  const bool notFinite = d % WIDE == 0 ? gradientsOfRow<WIDE>(decoder, latents, grad + b * k, k, row, d, n, room)
                                       : gradientsOfRow<1>(decoder, latents, grad + b * k, k, row, d, n, room);
  if (notFinite) markBad(bad);
}

/// The codes of a row in shared memory; of three rows, so that threads meet once a row.
struct HeldCodes {
  u32 latent[HELD];
  float value[HELD];
};

/// Rows [first, last) of a block, all three operations, for k <= HELD and rows that the threads
/// cover at once. Decoder rows are in shared memory from decode to codeGrad, `held` [HELD][thread],
/// a thread's columns for itself alone; as codeGrad is done with a slot, the next row's takes its
/// place.
template <int V>
__device__ __forceinline__ void reconstructHeld(const half_t* decoder, const u32* latent, const float* value,
                                                float* grad, u32 k, const Residual& a, u32 first, u32 last, u32 d,
                                                u32 n, double* line, HeldCodes* codes, uint4* held,
                                                float (*room)[MOST_THREADS], Squares& squares, u32& active, bool& bad) {
  const u32 c = threadIdx.x * V;
  const bool on = c < d, isSlot = threadIdx.x < HELD;
  const auto latentOf = [&](u32 b) {
    return threadIdx.x < k && b < last ? latent[static_cast<u64>(b) * k + threadIdx.x] : NONE;
  };
  const auto valueOf = [&](u32 b) {
    return threadIdx.x < k && b < last ? value[static_cast<u64>(b) * k + threadIdx.x] : 0;
  };
  const auto ask = [&](const HeldCodes& row, int i) {
    const u32 j = row.latent[i];
    copyAheadIf(j < n, held + i * blockDim.x + threadIdx.x, decoder + (j < n ? static_cast<u64>(j) * d + c : 0));
  };
  if (isSlot) {
    codes[0].latent[threadIdx.x] = latentOf(first);
    codes[0].value[threadIdx.x] = valueOf(first);
    codes[1].latent[threadIdx.x] = latentOf(first + 1);
    codes[1].value[threadIdx.x] = valueOf(first + 1);
  }
  __syncthreads();
  if (on) {
#pragma unroll 8
    for (int i = 0; i < HELD; i++) ask(codes[0], i);
  }
  Columns<V> columns = {};
  u32 now = 0;
  for (u32 b = first; b < last; b++) {
    const u32 next = now == 2 ? 0 : now + 1, afterNext = next == 2 ? 0 : next + 1;
    const u32 latentAfter = isSlot ? latentOf(b + 2) : NONE;
    const float valueAfter = isSlot ? valueOf(b + 2) : 0;
    float parts[HELD] = {};
    if (on) {
      const Target<V> target = targetOf<V>(a, b, d, c);
      float e[V] = {};
      endOfCopies();
      waitForCopies<0>();
#pragma unroll 8
      for (int i = 0; i < HELD; i++) {
        const uint4 bits = held[i * blockDim.x + threadIdx.x];
        const float factor = codes[now].value[i];
        float row[V];
        unpack(bits, row);
#pragma unroll
        for (int u = 0; u < V; u++) e[u] = fmaf(row[u], factor, e[u]);
      }
      bad = residualColumns(a, target, b, d, c, e, columns, squares) || bad;
#pragma unroll
      for (int i = 0; i < HELD; i++) {
        const uint4 bits = held[i * blockDim.x + threadIdx.x];
        float row[V];
        unpack(bits, row);
#pragma unroll
        for (int u = 0; u < V; u++) parts[i] = fmaf(row[u], e[u], parts[i]);
        // After the last row there are no codes: zeros take the place.
        ask(codes[next], i);
      }
    }
    if (isSlot) {
      codes[afterNext].latent[threadIdx.x] = latentAfter;
      codes[afterNext].value[threadIdx.x] = valueAfter;
      active += codes[now].value[threadIdx.x] > 0;
    }
    bad = writeGradients(parts, codes[now].latent, k, n, grad + static_cast<u64>(b) * k, room[b & 1]) || bad;
    now = next;
  }
  endOfCopies();
  waitForCopies<0>();
  if (on) addColumns(line, d, c, columns, true);
}

#ifndef HELD_REGISTERS
#define HELD_REGISTERS (SAETTA_COMPUTE == 0 ? 168 : 128)
#endif

/// decode, residual and code_grad where k <= HELD, d is a multiple of WIDE and d <= MOST_THREADS
/// WIDE. Grid ceil(B / R), block T(d), shared 512 T(d).
extern "C" __global__ void __maxnreg__(HELD_REGISTERS)
    reconstruct(PARAMETERS(reconstruct)) {
  extern __shared__ uint4 shared[];
  __shared__ double room[33];
  __shared__ float parts[2][MOST_THREADS];
  __shared__ HeldCodes codes[3];
  const Residual a = {preBias, x, err16, err, live};
  const u32 first = blockIdx.x * R, last = min(B, first + R);
  double* line = partial + static_cast<u64>(blockIdx.x) * (P_COLUMNS + 2 * d);
  Squares squares = {};
  u32 active = 0;
  bool notFinite = false;
  reconstructHeld<WIDE>(decoder, latent, value, grad, k, a, first, last, d, n, line, codes, shared, parts, squares,
                        active, notFinite);
  if (notFinite) markBad(bad);
  writeSquares(line, squares, active, room);
}

/// Grid ceil((4 + 2 d) / 32), block 1024: 32 columns, over each of which 32 warps add a part of the
/// lines, then the parts in order.
extern "C" __global__ void residual_sums(PARAMETERS(residual_sums)) {
  __shared__ double room[32][33];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = P_COLUMNS + 2 * d,
            column = blockIdx.x * 32 + lane;
  const u32 lines = (blocks + 31) / 32, first = warp * lines, last = min(blocks, first + lines);
  double sum = 0;
  if (column < (dead != 0 ? 1 : width)) {
#pragma unroll 8
    for (u32 line = first; line < last; line++) sum += partial[static_cast<u64>(line) * width + column];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= (dead != 0 ? 1 : width)) return;
  for (u32 part = 1; part < 32; part++) sum += room[part][lane];
  // Squares of floats cannot overflow in float64: the sum is finite exactly when every element is.
  if (column == P_ERR2 && !(sum < __longlong_as_double(0x7ff0000000000000ll))) markBad(bad);
  if (dead != 0) sums[AUX_ERR2] += sum;
  else if (column >= P_COLUMNS) sums[SUMS + column - P_COLUMNS] += sum;
  else sums[column == P_ERR2 ? ERR2 : column == P_X2 ? X2 : column == P_CENTRED2 ? CENTRED2 : ACTIVE] += sum;
}

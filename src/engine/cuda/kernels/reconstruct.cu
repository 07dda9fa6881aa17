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

#include "reconstruct.cuh"

template <int V>
__device__ __forceinline__ void decodeRow(const half_t* decoder, const u32* latent, const float* value, u32 k, u32 d,
                                          Plane plane, bool add, float* err) {
  for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    float e[V] = {};
    if (add) loadFloats(err + c, e);
    decodeColumns(decoder, latent, value, 0, k, d, plane, c, e);
    storeFloats(err + c, e);
  }
}

/// -> err [planes][B,d]; `add`: to what plane 0 holds. Grid B, block T(d), shared 8 min(k,
/// SHARED_SLOTS).
extern "C" __global__ void decode(PARAMETERS(decode)) {
  extern __shared__ uint4 shared[];
  const u64 b = blockIdx.x;
  latent += b * k;
  value += b * k;
  if (k <= SHARED_SLOTS) {
    u32* latents = reinterpret_cast<u32*>(shared);
    float* values = reinterpret_cast<float*>(latents + k);
    for (u32 slot = threadIdx.x; slot < k; slot += blockDim.x) {
      latents[slot] = latent[slot];
      values[slot] = value[slot];
    }
    __syncthreads();
    latent = latents;
    value = values;
  }
  for (u32 g = 0; g < prefixes.count; g++) {
    const Plane plane = planeAt(prefixes, g);
    const bool adds = add != 0 && g == 0;
    float* row = err + (static_cast<u64>(g) * B + b) * d;
    if (d % WIDE == 0) decodeRow<WIDE>(decoder, latent, value, k, d, plane, adds, row);
    else decodeRow<1>(decoder, latent, value, k, d, plane, adds, row);
  }
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

/// err [planes][B,d] -> grad [B,k]. Grid B, block T(d), shared 4 (d + min(k, SHARED_SLOTS)).
extern "C" __global__ void __launch_bounds__(MOST_THREADS, 4)
    code_grad(PARAMETERS(code_grad)) {
  extern __shared__ uint4 shared[];
  __shared__ float room[MOST_THREADS];
  float* row = reinterpret_cast<float*>(shared);
  u32* latents = reinterpret_cast<u32*>(row + d);
  const u64 b = blockIdx.x;
  bool notFinite = false;
  for (u32 first = 0; first < k; first += SHARED_SLOTS) {
    const u32 slots = min(SHARED_SLOTS, k - first);
    const u64 at = b * k + first;
    if (first > 0 && latent[at] == NONE) break;
    for (u32 g = 0; g < prefixes.count; g++) {
      const Plane plane = planeAt(prefixes, g);
      const float* from = err + (static_cast<u64>(g) * B + b) * d;
      if (first > 0 || g > 0) __syncthreads();
      for (u32 i = threadIdx.x; i < d; i += blockDim.x) row[i] = from[i];
      for (u32 slot = threadIdx.x; slot < slots; slot += blockDim.x) latents[slot] = latent[at + slot];
      __syncthreads();
      notFinite = (d % WIDE == 0 ? gradientsOfRow<WIDE>(decoder, latents, grad + at, slots, row, d, plane, room)
                                 : gradientsOfRow<1>(decoder, latents, grad + at, slots, row, d, plane, room)) ||
                  notFinite;
    }
  }
  if (notFinite) markBad(bad);
}

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
    bad = writeGradients(parts, codes[now].latent, k, {0, n}, grad + static_cast<u64>(b) * k, room[b & 1]) || bad;
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

/// Sums are columns of `partial` [blocks][width]: the first four, then those that follow the named
/// ones in `sums`. Grid ceil(width / 32), block 1024: 32 columns, over each of which 32 warps add a
/// part of the lines, then the parts in order.
extern "C" __global__ void residual_sums(PARAMETERS(residual_sums)) {
  __shared__ double room[32][33];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = blockIdx.x * 32 + lane;
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

/// tanh(hyper[TANH_SCALE] f) of the values f of each row, where that is the penalty -> partial
/// [grid]. Grid any, block 256.
extern "C" __global__ void tanh_rows(PARAMETERS(tanh_rows)) {
  __shared__ double room[33];
  if (static_cast<u32>(hyper[PENALTY]) != PENALTY_TANH) return;
  const float scale = static_cast<float>(hyper[TANH_SCALE]);
  const u32 warps = blockDim.x / 32;
  double sum = 0;
  for (u64 b = blockIdx.x * warps + threadIdx.x / 32; b < B; b += gridDim.x * warps) {
    for (u32 slot = threadIdx.x & 31; slot < k; slot += 32) {
      const float f = value[b * k + slot];
      if (f == 0) break;
      sum += tanhf(scale * f);
    }
  }
  sum = blockSum(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// sums[TANH] += partial [blocks]. Grid 1, block 1024.
extern "C" __global__ void tanh_total(PARAMETERS(tanh_total)) {
  __shared__ double room[33];
  if (static_cast<u32>(hyper[PENALTY]) != PENALTY_TANH) return;
  double sum = 0;
  for (u32 block = threadIdx.x; block < blocks; block += blockDim.x) sum += partial[block];
  sum = blockSum(sum, room);
  if (threadIdx.x == 0) sums[TANH] += sum;
}

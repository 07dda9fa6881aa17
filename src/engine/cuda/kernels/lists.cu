// paramGrad: inverts the codes to a list for each latent (gradients.cuh) and sums what is small:
// the gradients of both biases.
//
// A counting sort without exchange between blocks: rows are cut in P parts, each of which counts
// its latents in shared memory (list_count); the counts are summed over the parts (list_prefix) and
// over the latents (list_scan); then each part places its entries (list_fill), row after row, which
// no thread may overtake: within a row every latent stands once, so 32 slots of a row are placed at
// a time. A row ends at its first unused slot. Live parts come before dead ones. No order depends
// on the machine.
//
// Bytes at B = 16384, k = 32, n = 32768, d = 768: counts 17 MB written, read, written; slots 2 MB
// twice and 4 MB; entries 8 MB written in sectors of 32 bytes (17 MB) and read; encoder16 50 MB for
// the bias of the inputs.

#include "gradients.cuh"

/// The codes of one branch that fall to a part.
struct Part {
  const u32* latent;
  u64 first;
  u32 slots, k;
};

__device__ __forceinline__ Part partOf(const u32* live, u32 k, const u32* dead, u32 auxk, u32 B, u32 rowsPerPart,
                                       u32 P) {
  const bool isDead = blockIdx.y >= P;
  const u32 width = isDead ? auxk : k;
  const u32 first = min(B, (isDead ? blockIdx.y - P : blockIdx.y) * rowsPerPart),
            rows = min(B, first + rowsPerPart) - first;
  return {isDead ? dead : live, static_cast<u64>(first) * width, rows * width, width};
}

/// Grid (ranges, parts of both branches), block 1024, shared 2 width: two counts in a word, for a
/// part has fewer than 65536 rows. Only `listed` latents have lists.
extern "C" __global__ void __launch_bounds__(1024)
    list_count(PARAMETERS(list_count)) {
  extern __shared__ uint4 shared[];
  u32* pairs = reinterpret_cast<u32*>(shared);
  const u32 begin = blockIdx.x * width, end = min(n, begin + width);
  for (u32 i = threadIdx.x; i < width / 2; i += blockDim.x) pairs[i] = 0;
  __syncthreads();
  const Part part = partOf(live, k, dead, auxk, B, rowsPerPart, P);
#pragma unroll 4
  for (u32 slot = threadIdx.x; slot < part.slots; slot += blockDim.x) {
    const u32 j = part.latent[part.first + slot];
    if (j >= begin && j < end && has(listed, j))
      atomicAdd(pairs + (j - begin) / 2, ((j - begin) & 1) != 0 ? 65536u : 1u);
  }
  __syncthreads();
  counts += static_cast<u64>(blockIdx.y) * n + begin;
  for (u32 i = threadIdx.x; i < end - begin; i += blockDim.x)
    counts[i] = (i & 1) != 0 ? pairs[i / 2] >> 16 : pairs[i / 2] & 65535;
}

/// Grid ceil(n / 32), block 256 or (32, 8): for each latent, counts become the sums of the parts
/// before; -> totals [n].
extern "C" __global__ void list_prefix(PARAMETERS(list_prefix)) {
  __shared__ u32 room[8][32];
  const u32 thread = threadIdx.y * 32 + threadIdx.x, lane = thread & 31, warp = thread / 32, j = blockIdx.x * 32 + lane;
  const u32 share = (parts + 7) / 8, first = min(parts, warp * share), last = min(parts, first + share);
  u32 sum = 0;
  if (j < n) {
#pragma unroll 8
    for (u32 part = first; part < last; part++) sum += counts[static_cast<u64>(part) * n + j];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (j >= n) return;
  u32 before = 0;
  for (u32 other = 0; other < warp; other++) before += room[other][lane];
  if (warp == 7) totals[j] = before + sum;
#pragma unroll 8
  for (u32 part = first; part < last; part++) {
    u32& count = counts[static_cast<u64>(part) * n + j];
    const u32 own = count;
    count = before;
    before += own;
  }
}

/// x summed over the lanes up to this one.
__device__ __forceinline__ u64 sumUpTo(u64 x) {
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const u64 other = __shfl_up_sync(0xffffffffu, x, step);
    if ((threadIdx.x & 31) >= step) x += other;
  }
  return x;
}

/// scalesOf of ../../cpu/kernels/param_grad.cc: 2 mseScale / (rows d); wideCoef times that, or 2
/// auxCoef over the variation of the auxiliary target; deadPenalty / rows.
__device__ void scalesOf(const double* hyper, const double* sums, bool isWide, u32 d, double* scales, double* room) {
  const double rows = hyper[ROWS];
  double squares = 0;
  for (u32 i = threadIdx.x; i < d; i += blockDim.x) squares += sums[SUMS + i] * sums[SUMS + i] / rows;
  const double variation = sums[ERR2] - blockSum(squares, room);
  if (threadIdx.x > 0) return;
  const bool off = sums[DEAD] == 0 || variation <= LEAST_VARIATION * sums[X2];
  scales[0] = 2 * hyper[MSE_SCALE] / (rows * d);
  scales[1] = isWide ? hyper[WIDE_COEF] * scales[0] : off ? 0 : 2 * hyper[AUX_COEF] / variation;
  scales[2] = hyper[DEAD_PENALTY] / rows;
  scales[3] = hyper[DEAD_AFTER];
}

/// Grid 1, block 1024. -> start [n + 1], pieceAt [n], pieceOf [pieceCount], scales [4]. `wideSums`
/// (may be null): the second branch is the wide one.
extern "C" __global__ void list_scan(PARAMETERS(list_scan)) {
  // A warp takes EACH * 32 latents of a tile, a lane one of each 32. Sums hold entries in the low
  // half and pieces in the high half.
  constexpr u32 EACH = 32;
  __shared__ u64 room[32];
  __shared__ double roomOfSums[33];
  scalesOf(hyper, sums, wideSums != nullptr, d, scales, roomOfSums);
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  u64 before = 0;
  for (u32 tile = 0; tile < n; tile += EACH * blockDim.x) {
    const u32 first = tile + warp * EACH * 32 + lane;
    u32 length[EACH];
    u64 own = 0;
#pragma unroll
    for (u32 i = 0; i < EACH; i++) length[i] = first + i * 32 < n ? totals[first + i * 32] : 0;
    const auto sizeOf = [&](u32 entries) {
      return entries | (entries > chunk ? static_cast<u64>((entries + chunk - 1) / chunk) << 32 : 0);
    };
#pragma unroll
    for (u32 i = 0; i < EACH; i++) own += sizeOf(length[i]);
    own = warpSum(own);
    __syncthreads();
    if (lane == 0) room[warp] = own;
    __syncthreads();
    const u64 warps = sumUpTo(room[lane]);
    u64 at = before + __shfl_sync(0xffffffffu, warps, warp) - own;
    before += __shfl_sync(0xffffffffu, warps, 31);
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
      const u64 size = sizeOf(length[i]), upTo = sumUpTo(size), mine = at + upTo - size;
      at += __shfl_sync(0xffffffffu, upTo, 31);
      const u32 j = first + i * 32, pieces = static_cast<u32>(size >> 32), piece = static_cast<u32>(mine >> 32);
      if (j >= n) continue;
      start[j] = static_cast<u32>(mine);
      pieceAt[j] = pieces > 0 ? piece : NONE;
      for (u32 p = 0; p < pieces; p++) pieceOf[piece + p] = j;
    }
  }
  if (threadIdx.x > 0) return;
  start[n] = static_cast<u32>(before);
  *pieceCount = static_cast<u32>(before >> 32);
}

/// penaltySlope of ../../../sae/math.ts.
__device__ __forceinline__ double penaltySlope(const double* hyper, const float* sparsity, float f) {
  if (static_cast<u32>(hyper[PENALTY]) != PENALTY_TANH) return 0;
  const double bent = tanh(hyper[TANH_SCALE] * f);
  return hyper[SPARSITY] * *sparsity * hyper[TANH_SCALE] / hyper[ROWS] * (1 - bent * bent);
}

/// Where the rows of a tile of slots end, of which the first has its last slot before `rowEnd`:
/// ends[row] is the first unused slot, or the end of the row or tile. For k > 32, so that there is
/// a thread for each row. All threads call it.
__device__ __forceinline__ void findEnds(const u32* latents, u32 slots, u32 rowEnd, u32 k, u32* ends) {
  const u32 to = min(rowEnd + threadIdx.x * k, slots), from = threadIdx.x == 0 ? 0 : rowEnd + (threadIdx.x - 1) * k;
  if (from >= slots) return;
  u32 low = from, high = to;
  while (low < high) {
    const u32 middle = (low + high) / 2;
    if (latents[middle] != NONE) low = middle + 1;
    else high = middle;
  }
  ends[threadIdx.x] = low;
}

/// Grid (ranges, parts of both branches), block 1024, shared 2 width + 4 LIST_TILE. The first warp
/// numbers the slots of a tile, all warps write their entries. `sparsity` (may be null): the
/// penalty's slope is added to the gradients of live codes, and the pre-activation loss of the dead
/// (`age`, may be null). `rowsEach`: of err, of each replica that rows are of. `band`: values
/// stay as they are.
extern "C" __global__ void __launch_bounds__(1024)
    list_fill(PARAMETERS(list_fill)) {
  extern __shared__ uint4 shared[];
  __shared__ u32 ends[LIST_TILE / 32 + 2];
  u32* numbers = reinterpret_cast<u32*>(shared);
  u32* pairs = numbers + LIST_TILE;
  const u32 begin = blockIdx.x * width, end = min(n, begin + width), lane = threadIdx.x & 31;
  for (u32 i = threadIdx.x; i < width / 2; i += blockDim.x) pairs[i] = 0;
  const bool isDead = blockIdx.y >= P;
  const Part part = partOf(live, k, dead, auxk, B, rowsPerPart, P);
  const float *value = isDead ? deadValue : liveValue, *grad = isDead ? deadGrad : liveGrad;
  const double scale = scales[isDead ? 1 : 0];
  counts += static_cast<u64>(blockIdx.y) * n;
  for (u32 tile = 0; tile < part.slots; tile += LIST_TILE) {
    const u32 slots = min(LIST_TILE, part.slots - tile);
    const u32* latent = part.latent + part.first + tile;
    __syncthreads();
    for (u32 i = threadIdx.x; i < slots; i += blockDim.x) numbers[i] = latent[i];
    __syncthreads();
    u32 rowEnd = (tile / part.k + 1) * part.k - tile;
    const bool isLong = part.k > 32;
    if (isLong) {
      findEnds(numbers, slots, rowEnd, part.k, ends);
      __syncthreads();
    }
    if (threadIdx.x < 32) {
      // [from, to): as many slots of one row as there are lanes. A batch of these is read before
      // the first of it is numbered.
      constexpr int BATCH = 4;
      u32 from = 0, row = 0;
      while (from < slots) {
        u32 at[BATCH], j[BATCH], number[BATCH];
#pragma unroll
        for (int u = 0; u < BATCH; u++) {
          const u32 end = from >= slots ? slots : isLong ? ends[row] : min(rowEnd, slots), to = min(from + 32, end);
          at[u] = from + lane;
          j[u] = at[u] < to ? numbers[at[u]] - begin : NONE;
          if (at[u] < to && !has(listed, numbers[at[u]])) j[u] = NONE;
          from = to;
          if (to == end) from = rowEnd, rowEnd += part.k, row++;
        }
#pragma unroll
        for (int u = 0; u < BATCH; u++) {
          if (j[u] < end - begin) number[u] = atomicAdd(pairs + j[u] / 2, (j[u] & 1) != 0 ? 65536u : 1u);
          __syncwarp();
        }
#pragma unroll
        for (int u = 0; u < BATCH; u++) {
          if (j[u] < end - begin) numbers[at[u]] = (j[u] & 1) != 0 ? number[u] >> 16 : number[u] & 65535;
        }
      }
    }
    __syncthreads();
#pragma unroll 4
    for (u32 i = threadIdx.x; i < slots; i += blockDim.x) {
      const u32 j = latent[i];
      if (j < begin || j >= end || !has(listed, j)) continue;
      const u64 slot = part.first + tile + i;
      const u32 row = static_cast<u32>(slot / part.k);
      const float v = value[slot], factor = band != 0 ? v : static_cast<float>(scale * v);
      double inner = scale * grad[slot];
      if (sparsity != nullptr && !isDead) {
        inner += penaltySlope(hyper, sparsity, v);
        if (age != nullptr && age[j] > scales[3]) inner += scales[2];
      }
      u32 errRow = row;
      if (prefixes.count > 1 && !isDead)
        errRow = (row / rowsEach * prefixes.count + planeOf(prefixes, j)) * rowsEach + row % rowsEach;
      const u32 path = isDead ? DEAD_PATH : 0;
      entries[start[j] + counts[j] + numbers[i]] = make_uint4(
          row | path, __float_as_uint(factor), __float_as_uint(static_cast<float>(inner)), errRow | path);
    }
  }
}

/// Entries first, first + step, ... before last.
__device__ __forceinline__ Totals totalsOf(const Gradients& g, u32 first, u32 last, u32 step) {
  Totals all = {};
#pragma unroll 4
  for (u32 e = first; e < last; e += step) {
    const uint4 entry = g.entries[e];
    const double grad = __uint_as_float(entry.z);
    all.grad += grad;
    all.grads += fabs(grad);
    all.values += fabs(static_cast<double>(__uint_as_float(entry.y)));
  }
  return all;
}

template <int V>
__device__ __forceinline__ void formPiece(const Gradients& g, u32 side, u32 piece, u32 first, u32 last, uint4* stage) {
  const u32 d = widthOf(g, side);
  for (u32 at = 0; at < d; at += blockDim.x * V) {
    const u32 c = at + threadIdx.x * V;
    float sums[V];
    sumStaged(g, side, g.entries + first, last - first, c, c < d, stage, sums);
    if (c < d) storeFloats(g.pieceRows + (static_cast<u64>(piece) * 2 + side) * widestOf(g) + c, sums);
  }
}

/// The rows and totals of each piece of the lists that are longer than a chunk. Grid any, block
/// R(d).
extern "C" __global__ void list_long(PARAMETERS(list_long)) {
  __shared__ uint4 stage[STAGED];
  const u32 count = *pieceCount * 2;
  for (u32 i = blockIdx.x; i < count; i += gridDim.x) {
    const u32 piece = i / 2, side = i & 1, j = pieceOf[piece];
    const u32 first = g.start[j] + (piece - g.pieceAt[j]) * static_cast<u32>(g.chunk), last = min(
    g.start[j + 1], first + static_cast<u32>(g.chunk));
    if (inQuads(g)) formPiece<ROW_WIDTH>(g, side, piece, first, last, stage);
    else formPiece<1>(g, side, piece, first, last, stage);
    if (side != ENCODER || threadIdx.x >= 32) continue;
    const Totals own = totalsOf(g, first + threadIdx.x, last, 32);
    const Totals all = {warpSum(own.grad), warpSum(own.grads), warpSum(own.values)};
    if (threadIdx.x == 0) pieceTotals[piece] = all;
  }
}

__device__ __forceinline__ double shareSum(double x) {
#pragma unroll
  for (u32 step = BIAS_SHARE / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// -> line [d]: the biases' gradients of `count` latents times their encoder rows.
template <int V>
__device__ __forceinline__ void throughInput(const half_t* encoder, const double* bias, u32 count, u32 d,
                                             double* line) {
  for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    double through[V] = {};
#pragma unroll 16
    for (u32 j = 0; j < count; j++) {
      const double factor = bias[j];
      float row[V];
      unpack(fetch<V>(encoder + static_cast<u64>(j) * d + c), row);
#pragma unroll
      for (int u = 0; u < V; u++) through[u] += factor == 0 ? 0 : factor * row[u];
    }
#pragma unroll
    for (int u = 0; u < V; u++) line[c + u] = through[u];
  }
}

/// Grid ceil(n / BIAS_LATENTS), block BIAS_LATENTS * BIAS_SHARE. -> latentBias [n]: sums of the
/// gradients of the codes, 0 where they are not `counted` here, and a line of biasPartial (may be
/// null) [blocks][dIn]: these times encoder. `largest` (may be null): of the absolute values that
/// encoder rows stand before; `deadRows`: the pre-activation loss counts here. No weight may change
/// in a step that is not finite, and rows are formed only as weights change: a bound on every
/// element is checked here instead, the sum of absolute factors times the norm of all that they may
/// stand before.
extern "C" __global__ void list_bias(PARAMETERS(list_bias)) {
  __shared__ double bias[BIAS_LATENTS];
  const u32 first = blockIdx.x * BIAS_LATENTS, d = g.dIn, j = first + threadIdx.x / BIAS_SHARE,
            part = threadIdx.x % BIAS_SHARE;
  const double largestInput = fmax(largest == nullptr ? sqrt(sums[CENTRED2]) : *largest, 1.0);
  double largestErr = sqrt(fmax(sums[ERR2], wideSums != nullptr ? wideSums[ERR2] : sums[AUX_ERR2]));
  for (u32 h = 0; h + 1 < prefixes.count; h++) largestErr += prefixes.weights[h] * sqrt(sums[SUMS + 3 * g.dOut + h]);
  const bool counts = j < g.n && has(counted, j);
  Totals own = {};
  if (counts) {
    const u32 from = g.start[j], to = g.start[j + 1];
    if (to - from <= g.chunk) {
      own = totalsOf(g, from + part, to, BIAS_SHARE);
    } else {
      const Totals* piece = pieceTotals + g.pieceAt[j];
      for (u32 p = part; p < (to - from + g.chunk - 1) / g.chunk; p += BIAS_SHARE) {
        own.grad += piece[p].grad;
        own.grads += piece[p].grads;
        own.values += piece[p].values;
      }
    }
  }
  double sum = shareSum(own.grad);
  double grads = shareSum(own.grads);
  const double values = shareSum(own.values);
  const double dead = counts && deadRows != 0 && isPenalized(g, j) ? g.scales[2] * hyper[ROWS] : 0;
  grads += dead;
  if (!(grads * largestInput < LARGEST_GRADIENT && values * largestErr < LARGEST_GRADIENT)) markBad(bad);
  if (part == 0) {
    if (counts && g.deadSlot != nullptr && g.deadSlot[j] < g.cap) sum += g.scales[1] * deadBias[g.deadSlot[j]];
    sum -= dead;
    bias[j - first] = sum;
    if (j < g.n) latentBias[j] = static_cast<float>(sum);
  }
  if (biasPartial == nullptr) return;
  double* line = biasPartial + static_cast<u64>(blockIdx.x) * d;
  if (__syncthreads_or(counts) == 0) {
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) line[c] = 0;
    return;
  }
  const u32 count = min(BIAS_LATENTS, static_cast<u32>(g.n) - first);
  if (d % 4 == 0) throughInput<4>(encoder + static_cast<u64>(first) * d, bias, count, d, line);
  else throughInput<1>(encoder + static_cast<u64>(first) * d, bias, count, d, line);
}

/// Grid ceil(d / 32), block 1024. -> preBias [d] = live factor * column sums of err - encoder^T
/// latentBias (0 `blocks`: without); sums: column sums of err plane 0; `wideColumns` (may be null):
/// of the wide err, with its factor; `counts`: all ranks have these, and one of them counts them.
extern "C" __global__ void list_prebias(PARAMETERS(list_prebias)) {
  __shared__ double room[32][33];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = blockIdx.x * 32 + lane;
  const u32 lines = (blocks + 31) / 32, first = warp * lines, last = min(blocks, first + lines);
  double sum = 0;
  if (column < d) {
#pragma unroll 8
    for (u32 line = first; line < last; line++) sum += biasPartial[static_cast<u64>(line) * d + column];
  }
  room[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= d) return;
  for (u32 part = 1; part < 32; part++) sum += room[part][lane];
  double gradient = (counts != 0 ? scales[0] * sums[column] : 0) - sum;
  if (counts != 0 && wideColumns != nullptr) gradient += scales[1] * wideColumns[column];
  if (!(fabs(gradient) < LARGEST_GRADIENT)) markBad(bad);
  preBias[column] = static_cast<float>(gradient);
}

template <int V>
__device__ __forceinline__ void formRow(const Gradients& g, const List& list) {
  const u32 d = widthOf(g, list.side);
  float* to = (list.side == ENCODER ? g.formedEncoder : g.formedDecoder) + static_cast<u64>(list.j) * d;
  for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    float sums[V];
    formColumns(g, list, c, sums);
    storeFloats(to + c, sums);
  }
}

/// Where the gradient is asked for: rows as they are, not projected. Persistent: grid the blocks
/// that fit at once, block R(d), shared STAGE_BYTES.
extern "C" __global__ void gradient_rows(PARAMETERS(gradient_rows)) {
  extern __shared__ uint4 shared[];
  eachRow(g, true, shared, [](const List&, u32) {}, [&](const List& list, u32) {
    if (inQuads(g)) formRow<ROW_WIDTH>(g, list);
    else formRow<1>(g, list);
  });
}

/// countSlope of ../../../sae/math.ts.
__device__ __forceinline__ double countSlope(const double* hyper, const float* sparsity, double active) {
  const u32 penalty = static_cast<u32>(hyper[PENALTY]);
  const double coefficient = hyper[SPARSITY] * *sparsity, rows = hyper[ROWS], target = hyper[TARGET_L0];
  if (penalty == PENALTY_STEP) return coefficient / rows;
  return penalty == PENALTY_QUADRATIC ? 2 * coefficient * (active / rows / target - 1) / (target * rows) : 0;
}

/// thresholdGradients of ../../../sae/math.ts, from lists of the band's codes (`start`, `entries`):
/// their values, and gradients with the factor of the loss; and what the pre-activation loss of the
/// dead adds: rows in which a latent is off. A warp a latent. Grid ceil(n / 8), block 256.
extern "C" __global__ void threshold_gradient(PARAMETERS(threshold_gradient)) {
  const u32 j = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (j >= g.n) return;
  const float own = threshold[j];
  const double count = countSlope(hyper, sparsity, *active), atZero = penaltySlope(hyper, sparsity, 0);
  double sum = 0;
  for (u32 e = start[j] + lane; e < start[j + 1]; e += 32) {
    const float z = __uint_as_float(entries[e].y);
    const double slope = __uint_as_float(entries[e].z) + (z > own && z > 0 ? penaltySlope(hyper, sparsity, z) : atZero);
    sum += own * slope + count;
  }
  sum = warpSum(sum);
  double all = sum == 0 ? 0 : -sum / hyper[BANDWIDTH];
  if (isPenalized(g, j) && has(counted, j)) {
    u32 on = 0;
    for (u32 e = g.start[j] + lane; e < g.start[j + 1]; e += 32) on += (g.entries[e].x & DEAD_PATH) == 0;
    on = __reduce_add_sync(0xffffffffu, on);
    all += g.scales[2] * ((deadRows != 0 ? hyper[ROWS] : 0) - on);
  }
  if (lane > 0) return;
  if (!(fabs(all) < LARGEST_GRADIENT)) markBad(bad);
  gradient[j] = static_cast<float>(all);
}

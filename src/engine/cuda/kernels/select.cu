// select: the exact top k of relu(z + latentBias) of each row of a chunk of pre-activations z
// [C,n], in one pass over z.
//
// A block takes a row. It goes over the row, or over tiles of it one after the other, in groups of
// elements of which only the maxima are kept, in registers. Where k groups have a maximum of at
// least b, the k-th value is not below b: a bound which leaves a few candidates. They are read
// again and sorted. Each warp finds a b for its share of k, and the bound is the lowest of these.
// Where more values pass than there is room for (many equal ones, or all high ones side by side)
// the cut is found by bisection over the row.

#include "select.cuh"

/// A tile of a row of z with its biases, of all latents. A group is RUNS runs of eight neighbours.
/// Blocks are small, so that some load while others are at what comes after.
struct LiveTile {
  /// BATCH: groups that are loaded before the first is used.
  static constexpr u32 THREADS = 128, RUN = 8, PARTS = RUN / WIDE, RUNS = 2, EACH = RUNS * RUN, GROUPS = 16 / PARTS,
                       BATCH = 2 / PARTS;
  static constexpr u32 SIZE = THREADS * GROUPS * EACH;
  const float* bias;
  const u32* list;
  u32 n;

  __device__ __forceinline__ LiveTile(const float* bias, const u32* list, u32 n) : bias(bias), list(list), n(n) {}

  /// WHOLE: the tile ends at n or before it. zero becomes NaN when something is not finite.
  template <bool WHOLE>
  __device__ __forceinline__ void maximaOf(const half_t* z, u32 from, Maxima<GROUPS>& maxima, float& zero) const {
    const half_t* const zs = z + from;
    const float* const biases = bias + from;
#pragma unroll
    for (u32 first = 0; first < GROUPS; first += BATCH) {
      uint4 data[BATCH * RUNS][PARTS];
#pragma unroll
      for (u32 run = 0; run < BATCH * RUNS; run++) {
        const u32 at = (first * RUNS + run) * THREADS * RUN;
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
          if (WHOLE || from + at < n) data[run][part] = loadPast(zs + at + part * WIDE);
        }
      }
      float highest = 0;
#pragma unroll
      for (u32 run = 0; run < BATCH * RUNS; run++) {
        const u32 at = (first * RUNS + run) * THREADS * RUN;
        if (run % RUNS == 0) highest = 0;
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
          if (!WHOLE && from + at >= n) continue;
          float v[WIDE], b[WIDE];
          unpack(data[run][part], v);
          if (WHOLE) loadFloats(biases + at + part * WIDE, b);
#pragma unroll
          for (u32 e = 0; e < WIDE; e++) {
            const u32 i = at + part * WIDE + e;
            if (!WHOLE) b[e] = from + i < n ? biases[i] : 0;
            v[e] = WHOLE || from + i < n ? v[e] + b[e] : 0;
            highest = fmaxf(highest, v[e]);
            zero = fmaf(v[e], 0.0f, zero);
          }
        }
        if (run % RUNS == RUNS - 1) maxima.set(first + run / RUNS, highest);
      }
    }
  }

  /// -> the bits of each group's maximum, 0 where nothing is above 0; false when something is not
  /// finite.
  __device__ __forceinline__ bool load(const half_t* z, u32 base, Maxima<GROUPS>& maxima) const {
    float zero = 0;
    if (base + SIZE <= n) maximaOf<true>(z, base + threadIdx.x * RUN, maxima, zero);
    else maximaOf<false>(z, base + threadIdx.x * RUN, maxima, zero);
    return zero == 0;
  }

  /// add(value, position, number) for each value of the tile that reaches the bound; numbers go on
  /// from shared.count. All threads call it.
  template <class Add>
  __device__ __forceinline__ void each(const half_t* z, u32 base, const Maxima<GROUPS>& maxima, u32 bound, u16* hits,
                                       u32 room, Shared& shared, const Add& add) const {
    eachHit<LiveTile>(n, base, maxima, bound, hits, room, shared, [&](u32 position) {
      const float v = single(z, position);
      if (reaches(v, bound)) add(v, position, atomicAdd(&shared.count, 1));
    });
  }

  /// The value at a position, from memory.
  __device__ __forceinline__ float single(const half_t* z, u32 position) const {
    return toFloat(z[position]) + bias[position];
  }

  /// Warps of which every lane has something of this tile.
  __device__ __forceinline__ u32 wholeWarps(u32 base) const { return min(THREADS / 32, (n - base) / (32 * RUN)); }
  __device__ __forceinline__ u32 latent(u32 position) const { return position; }
};

/// A tile of the dead latents of a row of z with their biases. Positions are places in the list,
/// which is ascending.
struct DeadTile {
  static constexpr u32 THREADS = 256, EACH = 4, GROUPS = 8, SIZE = THREADS * GROUPS * EACH;
  float data[GROUPS][EACH];
  const float* bias;
  const u32* list;
  u32 base, n;

  __device__ __forceinline__ DeadTile(const float* bias, const u32* list, u32 n) : bias(bias), list(list), n(n) {}

  __device__ __forceinline__ u32 position(u32 group, u32 e) const {
    return base + (group * EACH + e) * THREADS + threadIdx.x;
  }

  template <class Add>
  __device__ __forceinline__ void each(const half_t*, u32, const Maxima<GROUPS>&, u32 bound, u16*, u32, Shared& shared,
                                       const Add& add) const {
    u32 mask = 0;
#pragma unroll
    for (u32 i = 0; i < GROUPS * EACH; i++) mask |= reaches(data[i / EACH][i % EACH], bound) ? 1u << i : 0;
    if (mask == 0) return;
    u32 at = atomicAdd(&shared.count, __popc(mask));
#pragma unroll
    for (u32 i = 0; i < GROUPS * EACH; i++) {
      if (mask >> i & 1) add(data[i / EACH][i % EACH], position(i / EACH, i % EACH), at++);
    }
  }

  __device__ __forceinline__ bool load(const half_t* z, u32 from, Maxima<GROUPS>& maxima) {
    base = from;
    float zero = 0;
#pragma unroll
    for (u32 group = 0; group < GROUPS; group++) {
      float highest = 0;
#pragma unroll
      for (u32 e = 0; e < EACH; e++) data[group][e] = -1;
      if (base + group * EACH * THREADS < n) {
#pragma unroll
        for (u32 e = 0; e < EACH; e++) {
          const u32 at = position(group, e);
          if (at < n) {
            const u32 j = __ldg(list + at);
            data[group][e] = toFloat(z[j]) + __ldg(bias + j);
          }
        }
#pragma unroll
        for (u32 e = 0; e < EACH; e++) {
          highest = fmaxf(highest, data[group][e]);
          zero = fmaf(data[group][e], 0.0f, zero);
        }
      }
      maxima.set(group, highest);
    }
    return zero == 0;
  }

  __device__ __forceinline__ float single(const half_t* z, u32 position) const {
    return toFloat(z[list[position]]) + bias[list[position]];
  }
  __device__ __forceinline__ u32 wholeWarps(u32 base) const { return min(THREADS / 32, (n - base) / 32); }
  __device__ __forceinline__ u32 latent(u32 position) const { return __ldg(list + position); }
};

/**
 * When more candidates pass than fit: leaves exactly the k highest of the row as keys; more than k
 * of its values reach `low`, none reaches `high`. It goes over the row once for every bit in
 * question.
 */
template <class Tile>
__device__ __noinline__ void bisect(const float* bias, const u32* list, u32 n, const half_t* z, u64* keys, u32 k,
                                    u32 low, u32 high, Shared& shared) {
  const Tile tile(bias, list, n);
  u32 turn = 0;
  // Of the value: at least k reach `low`, fewer than k reach `high`.
  while (high - low > 1) {
    const u32 middle = low + (high - low) / 2;
    u32 own = 0;
    for (u32 position = threadIdx.x; position < n; position += Tile::THREADS)
      own += reaches(tile.single(z, position), middle);
    if (blockTotal<Tile::THREADS>(own, shared, turn) >= k) low = middle;
    else high = middle;
  }
  // Of the position among those of exactly this value: what is left of k is at or before `last`.
  u32 above = 0;
  for (u32 position = threadIdx.x; position < n; position += Tile::THREADS) {
    const float v = tile.single(z, position);
    above += reaches(v, low) && __float_as_uint(v) != low;
  }
  const u32 equal = k - blockTotal<Tile::THREADS>(above, shared, turn);
  u32 first = 0, last = n - 1;
  while (first < last) {
    const u32 middle = first + (last - first) / 2;
    u32 own = 0;
    for (u32 position = threadIdx.x; position <= middle; position += Tile::THREADS)
      own += __float_as_uint(tile.single(z, position)) == low;
    if (blockTotal<Tile::THREADS>(own, shared, turn) >= equal) last = middle;
    else first = middle + 1;
  }
  const u64 lowest = static_cast<u64>(low) << 32 | (NONE - last);
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  for (u32 position = threadIdx.x; position < n; position += Tile::THREADS) {
    const float v = tile.single(z, position);
    if (reaches(v, low) && keyOf(v, position) >= lowest) keys[atomicAdd(&shared.count, 1)] = keyOf(v, position);
  }
  __syncthreads();
}

/// The candidates for the top k of a row, of tile.n positions of z, as keys in any order; returns
/// their number.
template <class Tile>
__device__ __forceinline__ u32 gather(Tile& tile, const half_t* z, u32* bad, u64* keys, u32 k, u32 capacity) {
  __shared__ Shared shared;
  u16* const hits = reinterpret_cast<u16*>(keys + capacity);
  const u32 lane = threadIdx.x % 32;
  u32 kept = 0, bound = 1;
  bool finite = true, fits = true;
  if (threadIdx.x == 0) shared.count = shared.hits[0] = 0;
  for (u32 base = 0; base < tile.n; base += Tile::SIZE) {
    Maxima<Tile::GROUPS> maxima;
    finite &= tile.load(z, base, maxima);
    const u32 warps = tile.n - base <= capacity ? 0 : tile.wholeWarps(base);
    if (warps > 0) {
      const u32 own = warpBound(maxima, (k + warps - 1) / warps);
      if (lane == 0) shared.bounds[threadIdx.x / 32] = own;
    }
    __syncthreads();
    if (warps > 0) bound = max(bound, __reduce_min_sync(ALL_LANES, shared.bounds[min(lane, warps - 1)]));
    tile.each(z, base, maxima, bound, hits, capacity, shared, [&](float v, u32 position, u32 at) {
      if (at < capacity) keys[at] = keyOf(v, position);
    });
    __syncthreads();
    kept = shared.count;
    fits &= kept <= capacity;
    if (!fits) continue;
    const bool last = base + Tile::SIZE >= tile.n;
    if (!last && kept > capacity / 2) {
      sortKeys<Tile::THREADS>(keys, kept);
      kept = k;
      bound = max(bound, static_cast<u32>(keys[k - 1] >> 32));
      if (threadIdx.x == 0) shared.count = k;
    }
  }
  if (!finite) markBad(bad);
  if (!fits) {
    bisect<Tile>(tile.bias, tile.list, tile.n, z, keys, k, bound, INFINITE + 1, shared);
    kept = k;
  }
  return kept;
}

/// The highest `most` of the keys, in order, in the first of `k` slots.
template <class Tile>
__device__ __forceinline__ void finish(const Tile& tile, u64* keys, u32 kept, u32 most, u32 k, const Out& out) {
  sortKeys<Tile::THREADS>(keys, kept);
  const u32 on = min(kept, most);
  for (u32 slot = threadIdx.x; slot < k; slot += Tile::THREADS) {
    const u64 key = slot < on ? keys[slot] : 0;
    put(out, slot, key, key == 0 ? NONE : tile.latent(NONE - static_cast<u32>(key)));
  }
}

/**
 * z [C,ldz] without biases (columns from n on are ignored), latentBias [n] -> latent, value, grad
 * (0) [C,k], at most hyper[ROW_K] of a row where `annealed`; fired: 1 where a value
 * is above hyper[FIRED_ABOVE]; bad when an element of z + latentBias is not finite. ldz is a
 * multiple of 8, z on 16 bytes. Block 128, grid C, dynamic shared memory 10 capacity; capacity: the
 * power of two from 4 k up, but 1024 to 4096, and at least 2 k.
 */
extern "C" __global__ void __launch_bounds__(128, 8)
    select_live(PARAMETERS(select_live)) {
  extern __shared__ u64 keys[];
  LiveTile tile(latentBias, nullptr, n);
  const u32 most = annealed != 0 ? min(k, static_cast<u32>(hyper[ROW_K])) : k;
  const u32 kept = gather(tile, z + static_cast<u64>(blockIdx.x) * ldz, bad, keys, max(1u, most), capacity);
  const u64 at = static_cast<u64>(blockIdx.x) * k;
  // For a float, to be above firedAbove is to be above the next float at or below it.
  finish(tile, keys, kept, most, k, {latent + at, value + at, grad + at, fired, __double2float_rd(hyper[FIRED_ABOVE])});
}

/**
 * The same among the dead latents: list, counts[0] of them, as dead_list leaves them -> latent,
 * value, grad (0) [C,auxk]. Block 256, grid C, dynamic shared memory 10 capacity; capacity: the
 * power of two from 4 auxk up, but 1024 to 4096, so auxk is at most 2048.
 */
extern "C" __global__ void __launch_bounds__(256, 4)
    select_dead(PARAMETERS(select_dead)) {
  extern __shared__ u64 keys[];
  DeadTile tile(latentBias, list, counts[0]);
  const u32 kept = gather(tile, z + static_cast<u64>(blockIdx.x) * ldz, bad, keys, auxk, capacity);
  const u64 at = static_cast<u64>(blockIdx.x) * auxk;
  finish(tile, keys, kept, auxk, auxk, {latent + at, value + at, grad + at, nullptr, 0});
}

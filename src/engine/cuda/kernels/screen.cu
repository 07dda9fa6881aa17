// screen: the codes of float32 from a product in 16 bits (0114).
//
// Rows x - preBias and the encoder are scaled by powers of two and rounded to f16. Their product z
// says of each pre-activation an upper and a lower end, whatever the roundings were: with x~ and w~
// what was rounded, |x . w - x~ . w~| <= |x - x~| |w| + |x~| |w - w~| (Cauchy-Schwarz, twice);
// the norms of the rounding errors are computed, not assumed. Adding up in f32 in any order, and
// the rounding of z to f16, come on top (`Ends`). Only a latent that may be selected by these ends
// is computed again, in f32: one fused multiply-add an input, from the first to the last, then the
// bias, as on the cpu engine. So codes are those of float32 to the bit, on both engines.
//
//     screen_norms, screen_encoder, screen_common    the encoder in f16, when it has changed
//     screen_columns, screen_inputs        what the ends are made of; the rows in f16
//     screen_highest, score_highest        the top k of a row of z: candidates, their f32 values
//     screen_threshold, score_threshold    what is above a threshold, or near it
//
// Bytes at n = 32768, d = 768, k = 32: z 64 kB a row; some 36 candidates of 3 kB each.

#include "select.cuh"
#include "threshold.cuh"

/// Norms that rows and encoder rows are scaled to, at most: their products fit f16.
constexpr int ROW_EXPONENT = 7, ENCODER_EXPONENT = 8;
/// A latent's weight in the bounds is at least this part of the largest: shorter rows lose bits to
/// f16's smallest numbers.
constexpr double LEAST_PART = 1.0 / 1024;
/// Relative: z as it is stored, and the bias added.
constexpr float STORED = 1.0f / 2048 + 1.0f / 262144, ADDED = 1.0f / 1048576;
constexpr float LARGEST_FLOAT = 3.4028234e38f;

/// What is common to all latents. In f32 bits rounded up: the largest norm of an encoder row; the
/// largest part of a row's weight that rounding took; a weight that few latents are above; the
/// largest bias. Then how many are above that weight, and which.
enum ScreenCommon { LARGEST, LOST, USUAL, LARGEST_BIAS, HEAVY };

__device__ __forceinline__ double largestOf(const u32* common) { return __uint_as_float(common[LARGEST]); }

/// 2^e with norm 2^e in (2^(to - 1), 2^to]; 1 for 0.
__device__ __forceinline__ double scaleTo(double norm, int to) {
  if (!(norm > 0)) return 1;
  int exponent;
  const double part = frexp(norm, &exponent);
  return ldexp(1.0, to - exponent + (part == 0.5 ? 1 : 0));
}

__device__ __forceinline__ __half roundedHalf(double x) { return __float2half_rn(__double2float_rn(x)); }

/// The norm of a row of d numbers; all lanes of a warp call it.
__device__ __forceinline__ double rowNorm(const float* row, u32 d) {
  double sum = 0;
#pragma unroll 4
  for (u32 i = threadIdx.x % 32; i < d; i += 32) {
    const double element = row[i];
    sum = fma(element, element, sum);
  }
  return sqrt(warpSum(sum));
}

/// to [d]: row times scale in f16 -> the norm of what rounding took, in the row's units.
__device__ __forceinline__ double roundRow(const float* row, u32 d, double scale, u16* to) {
  double lost = 0;
#pragma unroll 4
  for (u32 i = threadIdx.x % 32; i < d; i += 32) {
    const double exact = row[i] * scale;
    const __half half = roundedHalf(exact);
    to[i] = __half_as_ushort(half);
    const double error = exact - __half2float(half);
    lost = fma(error, error, lost);
  }
  return sqrt(warpSum(lost)) / scale;
}

/// encoder [n,d] -> norm [n], common[LARGEST], which is 0 before. Grid ceil(n / 8), block 256.
extern "C" __global__ void __launch_bounds__(256)
    screen_norms(PARAMETERS(screen_norms)) {
  const u32 j = blockIdx.x * 8 + threadIdx.x / 32;
  if (j >= n) return;
  const float length = __double2float_ru(rowNorm(encoder + static_cast<u64>(j) * d, d));
  if (threadIdx.x % 32 != 0) return;
  norm[j] = length;
  // What is not a number is above all numbers.
  atomicMax(common + LARGEST, __float_as_uint(fabsf(length)));
}

/// -> encoder16 [n,d]; weight [n]: a number that is not below the norm, which is there before;
/// common[LOST], which is 0 before. Grid ceil(n / 8), block 256.
extern "C" __global__ void __launch_bounds__(256)
    screen_encoder(PARAMETERS(screen_encoder)) {
  const u32 j = blockIdx.x * 8 + threadIdx.x / 32;
  if (j >= n) return;
  const double largest = largestOf(common);
  const u64 row = static_cast<u64>(j) * d;
  const double lost = roundRow(encoder + row, d, scaleTo(largest, ENCODER_EXPONENT), encoder16 + row);
  if (threadIdx.x % 32 != 0) return;
  const float own = fmaxf(weight[j], __double2float_ru(largest * LEAST_PART));
  weight[j] = own;
  if (own > 0) atomicMax(common + LOST, __float_as_uint(__double2float_ru(lost / own)));
}

/// weight [n], latentBias [n] -> the rest of common. At most MOST_HEAVY latents are above the usual
/// weight: these are looked at one by one, so that they do not widen the bounds of all. Grid 1,
/// block 1024.
extern "C" __global__ void __launch_bounds__(1024)
    screen_common(PARAMETERS(screen_common)) {
  // Weights by exponent and two more bits.
  constexpr u32 SHIFT = 21, BINS = 1024;
  __shared__ u32 bins[BINS], usual, heavy, largestBias;
  bins[threadIdx.x] = 0;
  if (threadIdx.x == 0) usual = heavy = largestBias = 0;
  __syncthreads();
  float bias = 0;
  for (u32 j = threadIdx.x; j < n; j += 1024) {
    bias = fmaxf(bias, fabsf(latentBias[j]));
    const u32 bin = __float_as_uint(weight[j]) >> SHIFT;
    // Most are in the same bin.
    const u32 same = __match_any_sync(__activemask(), bin);
    if (threadIdx.x % 32 == __ffs(same) - 1) atomicAdd(bins + bin, __popc(same));
  }
  atomicMax(&largestBias, __float_as_uint(bias));
  __syncthreads();
  // The lowest bin above which there are few: what is in it or below it is usual.
  u32 above = 0;
  if (threadIdx.x < 32) {
    for (u32 first = BINS - 32;; first -= 32) {
      u32 upTo = bins[first + 31 - threadIdx.x];
#pragma unroll
      for (u32 step = 1; step < 32; step *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, upTo, step);
        if (threadIdx.x >= step) upTo += other;
      }
      const u32 full = __ballot_sync(ALL_LANES, above + upTo > MOST_HEAVY);
      if (full != 0 || first == 0) {
        if (threadIdx.x == 0) usual = full == 0 ? 0 : first + 31 - (__ffs(full) - 1);
        break;
      }
      above += __shfl_sync(ALL_LANES, upTo, 31);
    }
  }
  __syncthreads();
  for (u32 j = threadIdx.x; j < n; j += 1024) {
    if (__float_as_uint(weight[j]) >> SHIFT <= usual) continue;
    common[HEAVY + 1 + atomicAdd(&heavy, 1)] = j;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  common[USUAL] = min((usual + 1) << SHIFT, 0x7f7fffffu);
  common[LARGEST_BIAS] = largestBias;
  common[HEAVY] = heavy;
}

/// What a candidate's upper end must reach: half the band below the threshold, or the threshold.
__device__ __forceinline__ float lowestOf(float threshold, bool isLive, bool isBand, double band) {
  const float live = isLive ? fmaxf(threshold, 0.0f) : LARGEST_FLOAT;
  if (!isBand) return live;
  return fminf(live, threshold - __double2float_ru(band / 2) * (1 + ADDED) - fabsf(threshold) * ADDED);
}

/// latentBias, weight [n], common, threshold [thresholds] (n, or 1 for all latents; may be null) ->
/// columns [width]: bias and weight of each; usual [width]: the bias, or very low where the weight
/// is above the usual; limit [width]: what the upper end of a candidate must reach, live or in the
/// band. Columns from n on are never a candidate. bad when a bias is not finite. Grid
/// ceil(width / 256), block 256.
extern "C" __global__ void __launch_bounds__(256)
    screen_columns(PARAMETERS(screen_columns)) {
  const u32 j = blockIdx.x * 256 + threadIdx.x;
  if (j >= width) return;
  const bool in = j < n;
  const float bias = in ? latentBias[j] : -1, own = in ? weight[j] : 0;
  if (!(fabsf(bias) <= LARGEST_FLOAT)) markBad(bad);
  columns[j] = make_float2(bias, own);
  usual[j] = in && own < __uint_as_float(common[USUAL]) ? bias : -LARGEST_FLOAT;
  if (threshold == nullptr) return;
  const float of = in ? threshold[thresholds == 1 ? 0 : j] : 0;
  limit[j] = in ? lowestOf(of, isLive != 0, isBand != 0, hyper[BANDWIDTH]) : LARGEST_FLOAT;
}

/// xc [B,d] -> xc16 [B,d]; ends [B]: what z is to be multiplied by, and what a latent's weight is
/// to be multiplied by for the distance that x . w may have from it; bad when a row or the encoder
/// is not finite. Grid ceil(B / 8), block 256.
extern "C" __global__ void __launch_bounds__(256)
    screen_inputs(PARAMETERS(screen_inputs)) {
  const u32 b = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (b >= B) return;
  const u64 row = static_cast<u64>(b) * d;
  const double length = rowNorm(xc + row, d), largest = largestOf(common);
  const bool finite = length <= 1.7e308 && largest <= LARGEST_FLOAT;
  const double scale = finite ? scaleTo(length, ROW_EXPONENT) : 1;
  const double lost = roundRow(xc + row, d, scale, xc16 + row);
  if (lane != 0) return;
  if (!finite) markBad(bad);
  const double factor = 1 / (scale * scaleTo(largest, ENCODER_EXPONENT));
  // Adding up d products in f32, here and there.
  const double added = (2.0 * d + 32) / 8388608;
  const double distance = lost + __uint_as_float(common[LOST]) * (length + lost) + added * length;
  // Factors that f32 cannot hold: z says nothing then, and |x . w| <= |x| |w| everything.
  const bool usable = factor > 1e-36 && factor < 1e36;
  ends[b] = !finite ? make_float2(0, 0)
                    : make_float2(usable ? static_cast<float>(factor) : 0,
                                  __double2float_ru((usable ? distance : 2 * length) * (1 + 1e-3)));
}

/// Where the pre-activations of a row are between, from z.
struct Ends {
  const float2* columns;
  float back, reach;

  __device__ __forceinline__ Ends(const float2* columns, const float2& of)
      : columns(columns), back(of.x), reach(of.y) {}

  __device__ __forceinline__ void of(float z, float bias, float weight, float& low, float& high) const {
    const float scaled = z * back, middle = scaled + bias;
    const float apart = fmaf(reach, weight, fmaf(fabsf(scaled), STORED, fabsf(bias) * ADDED));
    low = middle - apart;
    high = middle + apart;
  }
  __device__ __forceinline__ void at(const u16* z, u32 j, float& low, float& high) const {
    const float2 column = columns[j];
    of(__half2float(__ushort_as_half(z[j])), column.x, column.y, low, high);
  }
};

/// Eight numbers of f16.
__device__ __forceinline__ void unpackHalves(const uint4& from, float (&to)[8]) {
  const u32 words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
    to[2 * i] = both.x;
    to[2 * i + 1] = both.y;
  }
}

// ---- again, in f32 ----

/// Candidates that a warp computes at a time, and inputs that it brings to shared memory at a time.
constexpr u32 SCORED = 16, INPUTS = 64, TILE_ROW = INPUTS + 4;

/**
 * x [d] . encoder[j] + bias[j], one input after the other, for the latents of lanes 0 to 15; lanes
 * 16 to 31 repeat them. Rows of the encoder come by whole lines. tile: SCORED TILE_ROW floats of
 * this warp, on 16 bytes.
 */
__device__ __noinline__ float score(const float* x, const float* encoder, const float* bias, u32 d, u32 j,
                                    float* tile) {
  constexpr u32 PIECES = SCORED * INPUTS / 4 / 32, IN_ROW = INPUTS / 4;
  const u32 lane = threadIdx.x % 32;
  float sum = 0;
  if (d % 4 != 0) {
    for (u32 i = 0; i < d; i++) sum = fmaf(encoder[static_cast<u64>(j) * d + i], x[i], sum);
    return sum + bias[j];
  }
  float4 ahead[PIECES];
  const auto fetch = [&](u32 from) {
    const u32 column = from + lane % IN_ROW * 4;
#pragma unroll
    for (u32 i = 0; i < PIECES; i++) {
      const u32 latent = __shfl_sync(ALL_LANES, j, (i * 32 + lane) / IN_ROW);
      if (column < d) ahead[i] = *reinterpret_cast<const float4*>(encoder + static_cast<u64>(latent) * d + column);
    }
  };
  const auto add = [&](const float* w, const float* element) {
    float a[4], b[4];
    loadFloats(w, a);
    loadFloats(element, b);
#pragma unroll
    for (u32 e = 0; e < 4; e++) sum = fmaf(a[e], b[e], sum);
  };
  fetch(0);
#pragma unroll 1
  for (u32 from = 0; from < d; from += INPUTS) {
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < PIECES; i++)
      *reinterpret_cast<float4*>(tile + (i * 32 + lane) / IN_ROW * TILE_ROW + lane % IN_ROW * 4) = ahead[i];
    __syncwarp();
    if (from + INPUTS < d) fetch(from + INPUTS);
    const float* own = tile + lane % SCORED * TILE_ROW;
    const u32 count = min(INPUTS, d - from);
#pragma unroll 4
    for (u32 i = 0; i < count; i += 4) add(own + i, x + from + i);
  }
  return sum + bias[j];
}

// ---- the highest ----

/// A row of z in tiles of groups of 16.
struct ScreenTile {
  static constexpr u32 THREADS = 128, RUN = 8, RUNS = 2, EACH = RUNS * RUN, GROUPS = 16, SIZE = THREADS * GROUPS * EACH;

  /// Warps of which every lane has something, of `left` columns.
  __device__ __forceinline__ static u32 wholeWarps(u32 left) { return min(THREADS / 32, left / (32 * RUN)); }
};

typedef Maxima<ScreenTile::GROUPS> GroupMaxima;

/// Of a row and all latents of usual weight: ends are at most apart + STORED |v| from v.
struct Usual {
  float back, apart;

  __device__ __forceinline__ Usual(const float2& of, const u32* common) : back(of.x) {
    const float bias = __uint_as_float(common[LARGEST_BIAS]);
    apart = (fmaf(of.y, __uint_as_float(common[USUAL]), 2 * PART * bias)) * (1 + 16 * ADDED);
  }
  /// v, moved so far up that it is above 0 where its upper end is.
  __device__ __forceinline__ float moved(float z, float bias) const { return fmaf(z, back, bias) + 2 * apart; }
  /// What the lower end of a v that is `moved` reaches.
  __device__ __forceinline__ float low(float moved) const { return (moved - 2 * apart) * (1 - PART) - apart; }
  /// What is moved at least as far where the upper end reaches a bound from 0 on.
  __device__ __forceinline__ float least(float bound) const {
    return fmaxf(((bound - apart) / (1 + PART) + 2 * apart) * (1 - ADDED) - bound * ADDED, 0.0f);
  }

 private:
  static constexpr float PART = STORED + ADDED;
};

/// -> the maxima of the moved values of each group. width: columns, a multiple of 8.
__device__ __forceinline__ void maximaOf(const u16* z, const float* biases, const Usual& usual, u32 base, u32 width,
                                         GroupMaxima& maxima) {
  constexpr u32 BATCH = 2;
#pragma unroll
  for (u32 first = 0; first < ScreenTile::GROUPS; first += BATCH) {
    uint4 data[BATCH * ScreenTile::RUNS];
#pragma unroll
    for (u32 run = 0; run < BATCH * ScreenTile::RUNS; run++) {
      const u32 at = base + ((first * ScreenTile::RUNS + run) * ScreenTile::THREADS + threadIdx.x) * ScreenTile::RUN;
      if (at < width) data[run] = loadPast(z + at);
    }
    float highest = 0;
#pragma unroll
    for (u32 run = 0; run < BATCH * ScreenTile::RUNS; run++) {
      const u32 at = base + ((first * ScreenTile::RUNS + run) * ScreenTile::THREADS + threadIdx.x) * ScreenTile::RUN;
      if (run % ScreenTile::RUNS == 0) highest = 0;
      if (at < width) {
        float v[8], b[8];
        unpackHalves(data[run], v);
        loadFloats(biases + at, b);
#pragma unroll
        for (u32 e = 0; e < 8; e++) highest = fmaxf(highest, usual.moved(v[e], b[e]));
      }
      if (run % ScreenTile::RUNS == ScreenTile::RUNS - 1) maxima.set(first + run / ScreenTile::RUNS, highest);
    }
  }
}

/// What computes candidates again.
struct Scores {
  const float *x, *encoder, *bias;
  u32 d;
  float* tiles;

  /// keys[0, count): those of the latents in list, 0 where a value is not above 0. All threads call
  /// it.
  __device__ __forceinline__ void all(const u32* list, u32 count, u64* keys) const {
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (u32 first = warp * SCORED; first < count; first += ScreenTile::THREADS / 32 * SCORED) {
      const u32 at = first + lane % SCORED, j = list[min(at, count - 1)];
      const float v = score(x, encoder, bias, d, j, tiles + warp * SCORED * TILE_ROW);
      if (lane < SCORED && at < count) keys[at] = v > 0 ? keyOf(v, j) : 0;
    }
  }
};

/**
 * Where more latents may be among the k highest than there is room for: the row again, a part of it
 * at a time, each computed in f32 and cut to the k highest so far. Slow, and right for every row.
 * keys has `capacity`, at least 2 k; returns how many of them are left, in order.
 */
__device__ __noinline__ u32 highestInParts(const u16* z, const Ends& ends, const Scores& scores, u32 n, u32 k,
                                           u32 capacity, u64* keys, Shared& shared) {
  const u32 room = capacity / 4;
  u32* const list = reinterpret_cast<u32*>(keys + (capacity - room));
  u32 kept = 0, bound = 1;
  for (u32 base = 0; base < n; base += room) {
    __syncthreads();
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    for (u32 j = base + threadIdx.x; j < min(n, base + room); j += ScreenTile::THREADS) {
      float low, high;
      ends.at(z, j, low, high);
      if (reaches(high, bound)) list[atomicAdd(&shared.count, 1)] = j;
    }
    __syncthreads();
    const u32 count = shared.count;
    if (count == 0) continue;
    scores.all(list, count, keys + kept);
    __syncthreads();
    sortKeys<ScreenTile::THREADS>(keys, kept + count);
    kept = min(k, kept + count);
    if (kept == k) bound = max(1u, static_cast<u32>(keys[k - 1] >> 32));
    __syncthreads();
  }
  return kept;
}

/// Of `kept` keys by their lower ends: those that may be among the `wanted` highest -> list, and
/// the bound that they reach; returns how many, also where they do not fit in `room`.
__device__ __noinline__ u32 narrow(const u16* z, const Ends& ends, u64* keys, u32 kept, u32 wanted, u32* list, u32 room,
                                   u32& bound, Shared& shared) {
  if (kept > wanted) {
    sortKeys<ScreenTile::THREADS>(keys, kept);
    bound = max(bound, static_cast<u32>(keys[wanted - 1] >> 32));
  }
  __syncthreads();
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  for (u32 i = threadIdx.x; i < kept; i += ScreenTile::THREADS) {
    const u32 j = NONE - static_cast<u32>(keys[i]);
    float low, high;
    ends.at(z, j, low, high);
    if (!reaches(high, bound)) continue;
    const u32 at = atomicAdd(&shared.count, 1);
    if (at < room) list[at] = j;
  }
  __syncthreads();
  return shared.count;
}

/**
 * z [C,ldz] f16, columns, usual [ldz], ends [C], common -> found [C,room]: latents that may be
 * among the k highest of their row, of which hyper[ROW_K] count where `annealed`; counts [C] of
 * them, NONE where there are more than fit. ldz is a multiple of 8, z on 16 bytes. Block 128, grid
 * C, dynamic shared memory 10 capacity as in select_live; room: at most capacity / 2.
 */
extern "C" __global__ void __launch_bounds__(128, 8)
    screen_highest(PARAMETERS(screen_highest)) {
  extern __shared__ u64 keys[];
  __shared__ Shared shared;
  typedef ScreenTile Tile;
  const u64 row = blockIdx.x;
  const u32 wanted = max(1u, annealed != 0 ? min(k, static_cast<u32>(hyper[ROW_K])) : k);
  const u16* const own = z + row * ldz;
  const Ends between(columns, ends[row]);
  const Usual most(ends[row], common);
  u16* const hits = reinterpret_cast<u16*>(keys + capacity);
  u32* const list = found + row * room;
  const u32 lane = threadIdx.x % 32, heavy = common[HEAVY];
  u32 kept = 0, bound = 1;
  if (threadIdx.x == 0) shared.count = shared.hits[0] = 0;
  const auto look = [&](u32 j) {
    float low, high;
    between.at(own, j, low, high);
    if (!reaches(high, bound)) return;
    const u32 at = atomicAdd(&shared.count, 1);
    if (at < capacity) keys[at] = keyOf(fmaxf(low, 0.0f), j);
  };
  for (u32 base = 0; base < n; base += Tile::SIZE) {
    GroupMaxima maxima;
    maximaOf(own, usual, most, base, ldz, maxima);
    const u32 warps = n - base <= capacity ? 0 : Tile::wholeWarps(n - base);
    if (warps > 0) {
      const u32 share = warpBound(maxima, (wanted + warps - 1) / warps);
      if (lane == 0) shared.bounds[threadIdx.x / 32] = share;
    }
    __syncthreads();
    if (warps > 0) {
      const float least = most.low(__uint_as_float(__reduce_min_sync(ALL_LANES, shared.bounds[min(lane, warps - 1)])));
      bound = max(bound, __float_as_uint(fmaxf(least, 0.0f)));
    }
    const u32 from = max(1u, __float_as_uint(most.least(__uint_as_float(bound))));
    // Those above the usual weight come one by one.
    eachHit<Tile>(n, base, maxima, from, hits, capacity, shared, [&](u32 j) {
      if (usual[j] > -LARGEST_FLOAT) look(j);
    });
    if (base == 0) {
      for (u32 i = threadIdx.x; i < heavy; i += Tile::THREADS) look(common[HEAVY + 1 + i]);
    }
    __syncthreads();
    kept = shared.count;
    if (kept > capacity) break;
    const bool last = base + Tile::SIZE >= n;
    if (!last && kept <= capacity / 2) continue;
    kept = narrow(own, between, keys, kept, wanted, list, room, bound, shared);
    if (last || kept > room) break;
    for (u32 i = threadIdx.x; i < kept; i += Tile::THREADS) {
      float low, high;
      between.at(own, list[i], low, high);
      keys[i] = keyOf(fmaxf(low, 0.0f), list[i]);
    }
  }
  if (threadIdx.x == 0) counts[row] = kept > room ? NONE : kept;
}

/**
 * found, counts as screen_highest leaves them, with what it was given; xc [C,d], encoder [n,d],
 * latentBias [n] -> latent, value, grad (0) [C,k]: the codes of float32; fired: 1 where a value is
 * above hyper[FIRED_ABOVE]. Block 128, grid C, dynamic shared memory 8 capacity.
 */
extern "C" __global__ void __launch_bounds__(128, 7)
    score_highest(PARAMETERS(score_highest)) {
  extern __shared__ u64 keys[];
  __shared__ Shared shared;
  __shared__ float4 tiles[4 * SCORED * TILE_ROW / 4];
  typedef ScreenTile Tile;
  const u64 row = blockIdx.x;
  const u32 most = annealed != 0 ? min(k, static_cast<u32>(hyper[ROW_K])) : k;
  const Scores scores = {xc + row * d, encoder, latentBias, d, reinterpret_cast<float*>(tiles)};
  u32 kept = counts[row];
  if (kept != NONE) {
    scores.all(found + row * room, kept, keys);
    __syncthreads();
    sortKeys<Tile::THREADS>(keys, kept);
  } else {
    const Ends between(columns, ends[row]);
    kept = highestInParts(z + row * ldz, between, scores, n, max(1u, most), capacity, keys, shared);
  }
  const u64 to = row * k;
  const Out out = {latent + to, value + to, grad + to, fired, __double2float_rd(hyper[FIRED_ABOVE])};
  const u32 on = min(kept, most);
  for (u32 slot = threadIdx.x; slot < k; slot += Tile::THREADS) {
    const u64 key = slot < on ? keys[slot] : 0;
    put(out, slot, key, NONE - static_cast<u32>(key));
  }
}

// ---- thresholds ----

/**
 * z, columns, ends as in screen_highest, limit [ldz] -> found [C,room]: latents whose upper end
 * reaches their limit, in ascending order, and counts [C] of them, also where they do not fit; bad:
 * FULL. Grid ceil(C / THRESHOLD_ROWS), block 256.
 */
extern "C" __global__ void __launch_bounds__(256, 2)
    screen_threshold(PARAMETERS(screen_threshold)) {
  constexpr u32 RUN = 8, TILE = 256 * RUN;
  __shared__ u32 sums[2][THRESHOLD_ROWS][8];
  const u32 first = blockIdx.x * THRESHOLD_ROWS, rows = min(THRESHOLD_ROWS, C - first), warp = threadIdx.x / 32,
            lane = threadIdx.x % 32;
  float2 of[THRESHOLD_ROWS];
  u32 count[THRESHOLD_ROWS];
#pragma unroll
  for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
    of[r] = ends[first + min(r, rows - 1)];
    count[r] = 0;
  }
  u32 turn = 0;
#pragma unroll 1
  for (u32 base = 0; base < n; base += TILE) {
    const u32 at = base + threadIdx.x * RUN;
    const bool in = at < ldz;
    uint4 data[THRESHOLD_ROWS];
    float pairs[16], limits[8];
#pragma unroll
    for (u32 r = 0; r < THRESHOLD_ROWS; r++)
      data[r] = in ? loadPast(z + static_cast<u64>(first + min(r, rows - 1)) * ldz + at) : make_uint4(0, 0, 0, 0);
    if (in) {
      loadFloats(reinterpret_cast<const float*>(columns + at), pairs);
      loadFloats(limit + at, limits);
    }
    u32 mask[THRESHOLD_ROWS], upTo[THRESHOLD_ROWS];
    turn ^= 1;
#pragma unroll
    for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
      const Ends between(columns, of[r]);
      float v[8];
      unpackHalves(data[r], v);
      mask[r] = 0;
#pragma unroll
      for (u32 e = 0; e < RUN; e++) {
        float low, high;
        between.of(v[e], pairs[2 * e], pairs[2 * e + 1], low, high);
        mask[r] |= in && high >= limits[e] ? 1u << e : 0;
      }
      // Where its hits go among those of the warp.
      upTo[r] = __popc(mask[r]);
      if (__any_sync(ALL_LANES, mask[r] != 0)) {
#pragma unroll
        for (u32 step = 1; step < 32; step *= 2) {
          const u32 other = __shfl_up_sync(ALL_LANES, upTo[r], step);
          if (lane >= step) upTo[r] += other;
        }
      }
      if (lane == 31) sums[turn][r][warp] = upTo[r];
    }
    __syncthreads();
#pragma unroll
    for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
      u32 place = count[r] + upTo[r] - __popc(mask[r]);
#pragma unroll
      for (u32 other = 0; other < 8; other++) {
        const u32 sum = sums[turn][r][other];
        if (other < warp) place += sum;
        count[r] += sum;
      }
      if (r >= rows) continue;
      u32* const to = found + static_cast<u64>(first + r) * room;
      for (u32 bits = mask[r]; bits != 0; bits &= bits - 1, place++) {
        if (place < room) to[place] = at + __ffs(bits) - 1;
      }
    }
  }
  if (threadIdx.x != 0) return;
#pragma unroll
  for (u32 r = 0; r < THRESHOLD_ROWS; r++) {
    if (r >= rows) continue;
    counts[first + r] = count[r];
    if (count[r] > room) atomicOr(bad, FULL);
  }
}

/**
 * found [C,room], counts [C], xc [C,d], encoder [n,d], latentBias [n], threshold [thresholds] ->
 * live, band, fired as in select_threshold, of the values in f32; counts: how many live ones there
 * are, where these are asked for. Grid C, block 128.
 */
extern "C" __global__ void __launch_bounds__(128, 8)
    score_threshold(PARAMETERS(score_threshold)) {
  constexpr u32 AT_ONCE = 4 * SCORED;
  __shared__ float4 tiles[4 * SCORED * TILE_ROW / 4];
  __shared__ float values[AT_ONCE];
  const u64 row = blockIdx.x;
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 count = min(counts[row], room);
  const u32* const list = found + row * room;
  Taken taken(live, band, row, hyper, fired);
  for (u32 first = 0; first < count; first += AT_ONCE) {
    const u32 own = first + warp * SCORED;
    if (own < count) {
      const float v = score(xc + row * d, encoder, latentBias, d, list[min(own + lane % SCORED, count - 1)],
                            reinterpret_cast<float*>(tiles) + warp * SCORED * TILE_ROW);
      if (lane < SCORED) values[warp * SCORED + lane] = v;
    }
    __syncthreads();
    if (warp == 0) {
#pragma unroll 1
      for (u32 some = 0; some < AT_ONCE && first + some < count; some += 32) {
        const bool on = first + some + lane < count;
        const u32 j = on ? list[first + some + lane] : 0;
        taken.add(on, j, on ? values[some + lane] : 0, on ? threshold[thresholds == 1 ? 0 : j] : 0);
      }
    }
    __syncthreads();
  }
  if (warp == 0) taken.end(counts, bad);
}

// load: rows gathered by number, converted to f32, normalised with statistics in float64; a step's
// small tensors zeroed.
//
// Moves B d (bytes of raw + 4): a warp a row, which reads its row again for each pass of the
// statistics (L1).

#include "saetta.cuh"

/// sums [length]. Where `bad` has FULL, nothing. Grid ceil(max(n, length) / 256), block 256.
extern "C" __global__ void load_begin(PARAMETERS(load_begin)) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  // Another block may have set it to 0 by now, but only where it has no FULL.
  if ((*static_cast<volatile u32*>(bad) & FULL) != 0) return;
  if (i < length) sums[i] = 0;
  if (i < n) fired[i] = 0;
  if (i > 0) return;
  *bad = 0;
  *sq = 0;
  *cut = 0;
  *active = 0;
}

/// Elements [i, i + 4) of a row, or one where `four` is false.
template <class T>
__device__ __forceinline__ void elements(const T* row, u32 i, bool four, float (&to)[4]) {
  struct alignas(4 * sizeof(T)) Four {
    T at[4];
  };
  if (four) {
    const Four all = *reinterpret_cast<const Four*>(row + i);
#pragma unroll
    for (int u = 0; u < 4; u++) to[u] = static_cast<float>(all.at[u]);
  } else {
    to[0] = static_cast<float>(row[i]);
  }
}

/// visit(i, elements, how many) over the row; `four`: 4 at a time, as rows of raw and of x have
/// multiples of 4 elements and begin on such borders.
template <class T, class F>
__device__ __forceinline__ void eachOf(const T* row, u32 d, bool four, const F& visit) {
  const u32 step = four ? 4 : 1;
  for (u32 i = (threadIdx.x & 31) * step; i < d; i += 32 * step) {
    float part[4];
    elements(row, i, four, part);
    visit(i, part, step);
  }
}

template <class T>
__device__ void loadRow(const T* row, float* x, u32 d, bool four, u32* bad, u32 normalization, double factor) {
  double mean = 0;
  if (normalization == NORMALIZE_UNIT || normalization == NORMALIZE_LAYER_NORM) {
    double sum = 0, squares = 0, spread = 0;
    eachOf(row, d, four, [&](u32, const float(&part)[4], u32 count) {
#pragma unroll
      for (u32 u = 0; u < 4; u++) {
        if (u >= count) break;
        const double v = part[u];
        sum += v;
        squares += v * v;
      }
    });
    mean = warpSum(sum) / d;
    squares = warpSum(squares);
    eachOf(row, d, four, [&](u32, const float(&part)[4], u32 count) {
#pragma unroll
      for (u32 u = 0; u < 4; u++) {
        if (u >= count) break;
        const double v = part[u] - mean;
        spread += v * v;
      }
    });
    spread = warpSum(spread);
    // A row that is constant becomes zeros. Squares of floats are finite in float64: what is not
    // finite here was not in the row, and goes through as NaN.
    const bool constant = sqrt(spread) <= CONSTANT_ROW * sqrt(squares);
    factor =
        constant ? 0 : 1 / (normalization == NORMALIZE_UNIT ? sqrt(spread) : sqrt(spread / (d - 1)) + LAYER_NORM_EPS);
    if (constant) mean = 0;
  }
  bool finite = true;
  eachOf(row, d, four, [&](u32 i, float(&part)[4], u32 count) {
#pragma unroll
    for (u32 u = 0; u < 4; u++) {
      if (u >= count) break;
      if (normalization != NORMALIZE_NONE) part[u] = static_cast<float>((part[u] - mean) * factor);
      finite = finite && fabsf(part[u]) <= 3.4028234e38f;
    }
    if (count == 4) *reinterpret_cast<float4*>(x + i) = make_float4(part[0], part[1], part[2], part[3]);
    else x[i] = part[0];
  });
  if (!finite) markBad(bad);
}

/// Whether all exponent bits of an element are set.
template <class Bits>
__device__ __forceinline__ bool anyNonFinite(const Bits* row, u32 d, Bits exponent) {
  bool any = false;
  for (u32 i = threadIdx.x & 31; i < d; i += 32) any = any || (row[i] & exponent) == exponent;
  return any;
}

/// Rows [first, first + count) of raw as they have come: flags [row] is 1 where one holds something
/// not finite, else 0. Grid ceil(count / 8), block 256.
extern "C" __global__ void screen_rows(PARAMETERS(screen_rows)) {
  const u32 i = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (i >= count) return;
  const u64 from = static_cast<u64>(first + i) * d;
  bool any;
  if (format == FORMAT_F32) any = anyNonFinite(static_cast<const u32*>(raw) + from, d, 0x7f800000u);
  else if (format == FORMAT_F64)
    any = anyNonFinite(static_cast<const u64*>(raw) + from, d, static_cast<u64>(0x7ff0000000000000ull));
  else
    any =
        anyNonFinite(static_cast<const u16*>(raw) + from, d, static_cast<u16>(format == FORMAT_F16 ? 0x7c00 : 0x7f80));
  any = __any_sync(0xffffffffu, any);
  if ((threadIdx.x & 31) == 0) flags[first + i] = any ? 1 : 0;
}

/// raw [m,width] -> x [B,d], columns from `column` on. Where `bad` has FULL, nothing. A row that is
/// not there is left as it is and named in fault [2] (1, its number). Grid ceil(B / 8), block 256.
extern "C" __global__ void load_rows(PARAMETERS(load_rows)) {
  const u32 b = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (b >= B || (*static_cast<volatile u32*>(bad) & FULL) != 0) return;
  const u32 row = rows[b];
  if (row >= m) {
    fault[1] = row;
    fault[0] = 1;
    return;
  }
  x += static_cast<u64>(b) * d;
  const bool four = d % 4 == 0 && width % 4 == 0 && column % 4 == 0;
  const auto load = [&](const auto* from) {
    loadRow(from + static_cast<u64>(row) * width + column, x, d, four, bad, normalization, factor);
  };
  if (format == FORMAT_F32) load(static_cast<const float*>(raw));
  else if (format == FORMAT_F64) load(static_cast<const double*>(raw));
  else if (format == FORMAT_F16) load(static_cast<const __half*>(raw));
  else load(static_cast<const __nv_bfloat16*>(raw));
}

// load: columns of rows gathered by number, converted to f32, normalised.

#ifndef SAETTA_PATH
#include "saetta.h"

#define SAETTA_FILE "load.cc"
#include "each_path.h"

extern "C" void saetta_load(saetta::Stream* stream, const saetta::Load* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) {
    if ((*a.t.bad & FULL) != 0) return;
    for (size_t b = 0; b < a.B; b++) {
      if (a.rows[b] >= a.m)
        throw std::out_of_range("load: row " + std::to_string(a.rows[b]) + " was asked for, there are " +
                                std::to_string(a.m));
    }
    if (a.column == 0) {
      std::memset(a.t.sums, 0, a.sums * sizeof(double));
      std::memset(a.t.fired, 0, a.n * sizeof(uint32_t));
      *a.t.bad = 0;
      *a.t.sq = *a.t.active = 0;
      *a.t.cut = 0;
    }
    SAETTA_RUN(s, loadRows, a);
  });
}

#else

static void convertRow(Format format, const char* from, float* __restrict to, size_t d) {
  if (format == FORMAT_F32) {
    std::memcpy(to, from, d * sizeof(float));
  } else if (format == FORMAT_F64) {
    const double* p = reinterpret_cast<const double*>(from);
    for (size_t i = 0; i < d; i++) to[i] = static_cast<float>(p[i]);
  } else if (format == FORMAT_BF16) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(from);
    for (size_t i = 0; i < d; i++) {
      const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
      std::memcpy(to + i, &bits, 4);
    }
  } else {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(from);
    size_t i = 0;
#if SAETTA_WIDTH > 4
    for (; i + 8 <= d; i += 8)
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i))));
#endif
    for (; i < d; i++) {
      // Exponent and fraction in their places of a float, whose exponent is then 112 too small;
      // infinities and NaN keep theirs at the top.
      const uint32_t magnitude = static_cast<uint32_t>(p[i] & 0x7fff) << 13;
      float value;
      std::memcpy(&value, &magnitude, 4);
      value *= 0x1p112f;
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      bits |= (p[i] & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
      bits |= static_cast<uint32_t>(p[i] & 0x8000) << 16;
      std::memcpy(to + i, &bits, 4);
    }
  }
}

/// 0 times what is not finite is NaN, and nothing takes a NaN out of a sum.
static bool isFinite(const float* x, size_t d) {
  Vec nan = {};
  float rest = 0;
  size_t i = 0;
  for (; i + W <= d; i += W) nan += load<Vec>(x + i) * 0.0f;
  for (; i < d; i++) rest += x[i] * 0.0f;
  return !std::isnan(total(nan) + rest);
}

struct Spread {
  double sum, squares;
};

/// Sums of x - from and of its square over d elements, in float64, in an order that depends on d
/// only.
static Spread spreadFrom(double from, const float* x, size_t d) {
  constexpr size_t H = W / 2;
  Wide sums[2] = {}, squares[2] = {};
  size_t i = 0;
  for (; i + 2 * H <= d; i += 2 * H) {
    for (size_t u = 0; u < 2; u++) {
      const Wide v = __builtin_convertvector(*reinterpret_cast<const HalfInMemory*>(x + i + u * H), Wide) - from;
      sums[u] += v;
      squares[u] += v * v;
    }
  }
  Spread all = {0, 0};
  for (; i < d; i++) {
    const double v = x[i] - from;
    all.sum += v;
    all.squares += v * v;
  }
  for (size_t l = 0; l < H; l++) {
    all.sum += sums[0][l] + sums[1][l];
    all.squares += squares[0][l] + squares[1][l];
  }
  return all;
}

/// A row of finite elements; squares of floats cannot overflow in float64.
static void normalizeRow(Normalization kind, double factor, float* __restrict x, size_t d) {
  double mean = 0;
  if (kind != NORMALIZE_SCALE) {
    const Spread all = spreadFrom(0, x, d);
    mean = all.sum / static_cast<double>(d);
    const double spread = spreadFrom(mean, x, d).squares;
    if (std::sqrt(spread) <= CONSTANT_ROW * std::sqrt(all.squares)) {
      std::fill(x, x + d, 0.0f);
      return;
    }
    factor = 1 / (kind == NORMALIZE_UNIT ? std::sqrt(spread)
                                         : std::sqrt(spread / static_cast<double>(d - 1)) + LAYER_NORM_EPS);
  }
  for (size_t i = 0; i < d; i++) x[i] = static_cast<float>((x[i] - mean) * factor);
}

static void loadRows(Stream& s, const Load& a) {
  constexpr size_t ROWS = 16;
  const size_t size = a.format == FORMAT_F64 ? 8 : a.format == FORMAT_F32 ? 4 : 2;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      float* to = a.x + b * a.d;
      convertRow(a.format, a.raw + (a.rows[b] * a.width + a.column) * size, to, a.d);
      bool finite = isFinite(to, a.d);
      if (finite && a.normalization != NORMALIZE_NONE) {
        normalizeRow(a.normalization, a.factor, to, a.d);
        finite = isFinite(to, a.d);
      }
      if (!finite) markBad(a.t);
    }
  });
}

#endif

// logSums: of rows of logits [.., v], the logarithm of the sum of their exponentials, and the
// Kullback-Leibler divergence from other rows. In float64, one row per thread at a time: a row of
// 262,144 words is 1 MiB, which stays in the second cache between the passes over it.

#ifndef SAETTA_PATH
#include "saetta.h"

#include <limits>

#define SAETTA_FILE "log_sums.cc"
#include "each_path.h"

extern "C" void saetta_log_sums(saetta::Stream* stream, const saetta::LogSums* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, logSums, a); });
}

#else

constexpr size_t H = W / 2;
/// Vectors in flight: the polynomial of one waits for its own results.
constexpr size_t FLIGHT = 4;
typedef long long Bits __attribute__((vector_size(4 * W)));

[[maybe_unused]] static inline Wide splat(double x) { return x - Wide{}; }

static inline Wide wide(const float* p) {
  return __builtin_convertvector(*reinterpret_cast<const HalfInMemory*>(p), Wide);
}

/// e^x for x of at most 1, to 1e-14 of itself; 0 below -700; NaN of NaN. x = k ln 2 + r, and e^r is
/// a polynomial.
static inline Wide exponential(Wide x) {
  // Adding it leaves the nearest whole number in the low bits.
  const Wide magic = splat(6755399441055744.0);
  const Wide shifted = x * 1.4426950408889634 + magic, k = shifted - magic;
  const Wide r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  Wide e = splat(1.0 / 479001600);
  for (const double factor : {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                              1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) {
    e = e * r + factor;
  }
  const Bits power = (reinterpret_cast<Bits>(shifted) + 1023) << 52;
  const Wide value = e * reinterpret_cast<Wide>(power);
  return x < splat(-700) ? Wide{} : value;
}

/// The last v % H logits of a row of v, in a vector.
struct Rest {
  float at[H] = {};
  Rest(const float* row, size_t v) { std::memcpy(at, row + v - v % H, v % H * sizeof(float)); }
};

/// The sum of f(i) over the whole vectors of a row of v, which begin at i, and of `last`, of which
/// v % H lanes count. Its order depends on v only.
template <class F>
static inline double summed(size_t v, Wide last, const F& f) {
  Wide sums[FLIGHT] = {};
  size_t i = 0;
  for (; i + FLIGHT * H <= v; i += FLIGHT * H) {
    for (size_t u = 0; u < FLIGHT; u++) sums[u] += f(i + u * H);
  }
  for (; i + H <= v; i += H) sums[0] += f(i);
  const Wide all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = 0;
  for (size_t l = 0; l < H; l++) sum += all[l];
  for (size_t l = 0; l < v % H; l++) sum += last[l];
  return sum;
}

static float largest(const float* row, size_t v) {
  constexpr float NONE = -std::numeric_limits<float>::infinity();
  Vec most[FLIGHT];
  for (Vec& each : most) each = NONE - Vec{};
  size_t i = 0;
  for (; i + FLIGHT * W <= v; i += FLIGHT * W) {
    for (size_t u = 0; u < FLIGHT; u++) {
      const Vec x = load<Vec>(row + i + u * W);
      most[u] = x > most[u] ? x : most[u];
    }
  }
  float result = NONE;
  for (const Vec& each : most) {
    for (int l = 0; l < W; l++) result = each[l] > result ? each[l] : result;
  }
  for (; i < v; i++) result = row[i] > result ? row[i] : result;
  return result;
}

static double logSum(const float* row, size_t v) {
  const float top = largest(row, v);
  const Wide most = splat(top);
  const Wide last = exponential(wide(Rest(row, v).at) - most);
  return top + std::log(summed(v, last, [&](size_t i) { return exponential(wide(row + i) - most); }));
}

/// sum p (ln p - ln q). A word that p rules out counts nothing, whatever q says.
static double divergence(const float* p, const float* q, double logP, double logQ, size_t v) {
  const auto term = [&](Wide a, Wide b) {
    const Wide own = a - logP, weight = exponential(own);
    return weight > Wide{} ? weight * (own - (b - logQ)) : Wide{};
  };
  const Wide last = term(wide(Rest(p, v).at), wide(Rest(q, v).at));
  return summed(v, last, [&](size_t i) { return term(wide(p + i), wide(q + i)); });
}

static void logSums(Stream& s, const LogSums& a) {
  s.parallel(a.B, [&](size_t i, unsigned) {
    const size_t row = a.rows[i];
    const float* logits = a.logits + row * a.v;
    a.sums[i] = logSum(logits, a.v);
    if (a.from != nullptr) a.divergence[i] = divergence(a.from + row * a.v, logits, a.fromSums[i], a.sums[i], a.v);
  });
}

#endif

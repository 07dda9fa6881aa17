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
#if SAETTA_WIDTH == 16
  return reinterpret_cast<Wide>(_mm512_cvtps_pd(_mm256_loadu_ps(p)));
#elif SAETTA_WIDTH == 8
  // The compiler takes the vector apart otherwise.
  return reinterpret_cast<Wide>(_mm256_cvtps_pd(_mm_loadu_ps(p)));
#else
  return __builtin_convertvector(*reinterpret_cast<const HalfInMemory*>(p), Wide);
#endif
}

/// e^x of N vectors for x of at most 1, to 1e-14 of itself; 0 below -700; NaN of NaN.
/// x = k ln 2 + r, and e^r is a polynomial, which goes through all vectors term by term: each
/// waits for its own results.
template <size_t N>
static inline void exponentials(const Wide (&x)[N], Wide (&value)[N]) {
  // Adding it leaves the nearest whole number in the low bits.
  const Wide magic = splat(6755399441055744.0);
  Wide r[N], e[N];
  for (size_t u = 0; u < N; u++) {
    const Wide k = (x[u] * 1.4426950408889634 + magic) - magic;
    r[u] = (x[u] - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    e[u] = splat(1.0 / 39916800);
  }
  for (const double factor :
       {1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) {
    for (size_t u = 0; u < N; u++) e[u] = e[u] * r[u] + factor;
  }
  for (size_t u = 0; u < N; u++) {
    const Bits power = (reinterpret_cast<Bits>(x[u] * 1.4426950408889634 + magic) + 1023) << 52;
    value[u] = x[u] < splat(-700) ? Wide{} : e[u] * reinterpret_cast<Wide>(power);
  }
}

/// The last v % H logits of a row of v, in a vector.
struct Rest {
  float at[H] = {};
  Rest(const float* row, size_t v) { std::memcpy(at, row + v - v % H, v % H * sizeof(float)); }
};

/// The sum over a row of v of f, which is given places and makes vectors of them; `last`: what it
/// makes of the rest, of which v % H lanes count. Its order depends on v only.
template <class F>
static inline double summed(size_t v, Wide last, const F& f) {
  Wide sums[FLIGHT] = {};
  size_t i = 0;
  for (; i + FLIGHT * H <= v; i += FLIGHT * H) {
    Wide terms[FLIGHT];
    f(i, terms);
    for (size_t u = 0; u < FLIGHT; u++) sums[u] += terms[u];
  }
  for (; i + H <= v; i += H) {
    Wide term[1];
    f(i, term);
    sums[0] += term[0];
  }
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
  const auto terms = [most](const float* at, auto& sums) {
    constexpr size_t N = sizeof(sums) / sizeof(Wide);
    Wide x[N];
    for (size_t u = 0; u < N; u++) x[u] = wide(at + u * H) - most;
    exponentials(x, sums);
  };
  Wide last[1];
  terms(Rest(row, v).at, last);
  return top + std::log(summed(v, last[0], [&](size_t i, auto& sums) { terms(row + i, sums); }));
}

/// sum p (ln p - ln q). A word that p rules out counts nothing, whatever q says.
static double divergence(const float* p, const float* q, double logP, double logQ, size_t v) {
  const auto terms = [logP, logQ](const float* a, const float* b, auto& sums) {
    constexpr size_t N = sizeof(sums) / sizeof(Wide);
    Wide own[N], weight[N];
    for (size_t u = 0; u < N; u++) own[u] = wide(a + u * H) - logP;
    exponentials(own, weight);
    for (size_t u = 0; u < N; u++) {
      sums[u] = weight[u] > Wide{} ? weight[u] * (own[u] - (wide(b + u * H) - logQ)) : Wide{};
    }
  };
  Wide last[1];
  terms(Rest(p, v).at, Rest(q, v).at, last);
  return summed(v, last[0], [&](size_t i, auto& sums) { terms(p + i, q + i, sums); });
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

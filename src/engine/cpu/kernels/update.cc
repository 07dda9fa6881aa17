// update: one pass over memory for each latent: its gradient rows, projection, clipping, Adam, unit
// norm, EMA and age; then the parameters that all latents share.

#ifndef SAETTA_PATH
#include "gradients.h"

#include <algorithm>

namespace saetta {

/// The numbers of Adam, in f32: w -= rate m / (sqrt(v) root + eps), with PyTorch's bias correction.
struct Adam {
  float factor, beta1, beta2, rest1, rest2, rate, root, eps, emaRest;
};

static Adam adamOf(const double* hyper, double t, double sq) {
  const double clip = hyper[CLIP], norm = std::sqrt(sq);
  Adam o;
  o.factor = static_cast<float>(clip > 0 ? clip / std::max(norm, clip) : 1.0);
  o.beta1 = static_cast<float>(hyper[BETA1]);
  o.beta2 = static_cast<float>(hyper[BETA2]);
  o.rest1 = static_cast<float>(1 - hyper[BETA1]);
  o.rest2 = static_cast<float>(1 - hyper[BETA2]);
  o.rate = static_cast<float>(hyper[LR] / (1 - std::pow(hyper[BETA1], t)));
  o.root = static_cast<float>(1 / std::sqrt(1 - std::pow(hyper[BETA2], t)));
  o.eps = static_cast<float>(hyper[EPS]);
  o.emaRest = static_cast<float>(1 - hyper[EMA_DECAY]);
  return o;
}

static uint32_t fmix32(uint32_t h) {
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ h >> 16;
}

/// randomElement of sae/math.ts: a number in [-1, 1) from integers alone.
static float randomElement(uint32_t latent, uint32_t t, uint32_t i) {
  return static_cast<float>(fmix32(fmix32(fmix32(latent ^ 0x9e3779b9u) + t) + i) / 2147483648.0 - 1);
}

}  // namespace saetta

#define SAETTA_FILE "update.cc"
#include "each_path.h"

extern "C" void saetta_update(saetta::Stream* stream, const saetta::Update* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, update, a); });
}

#else

#include "rows.h"
#include "half_row.h"

static inline float rootOf(float v) { return std::sqrt(v); }
static inline Vec rootOf(Vec v) {
#if SAETTA_WIDTH == 16
  return reinterpret_cast<Vec>(_mm512_sqrt_ps(reinterpret_cast<__m512>(v)));
#elif SAETTA_WIDTH == 8
  return reinterpret_cast<Vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v)));
#elif defined(__SSE2__)
  return reinterpret_cast<Vec>(_mm_sqrt_ps(reinterpret_cast<__m128>(v)));
#else
  for (int i = 0; i < W; i++) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

/// Asks for what comes `ahead` elements later, a cache line at a time; past the end of an array
/// this does nothing. The hardware alone stops at the border of a page and knows nothing of the
/// next row while it works on other arrays: with this the pass took two thirds of the time.
static inline void fetchLine(const float* p, size_t i, size_t ahead) {
  if (i % 16 == 0) __builtin_prefetch(p + i + ahead, 0, 2);
}

/// Adam on elements [i, i + lanes) of a row; `along` times w is taken out of the gradient first.
/// GRADIENT false: it is 0.
template <class T, bool GRADIENT>
static inline void adamStep(const Adam& o, float* w, float* m, float* v, const float* gradient, float along, size_t i) {
  T weight = load<T>(w + i), first = o.beta1 * load<T>(m + i), second = o.beta2 * load<T>(v + i);
  if (GRADIENT) {
    const T g = o.factor * (load<T>(gradient + i) - along * weight);
    first += o.rest1 * g;
    second += o.rest2 * g * g;
  }
  weight -= o.rate * first / (rootOf(second) * o.root + o.eps);
  store(m + i, first);
  store(v + i, second);
  store(w + i, weight);
}

/// Adam on a row of d elements. The row after it is asked for meanwhile.
template <bool GRADIENT>
static void adamRow(const Adam& o, float* w, float* m, float* v, const float* gradient, float along, size_t d) {
  size_t i = 0;
  for (; i + W <= d; i += W) {
    fetchLine(w, i, d);
    fetchLine(m, i, d);
    fetchLine(v, i, d);
    adamStep<Vec, GRADIENT>(o, w, m, v, gradient, along, i);
  }
  for (; i < d; i++) adamStep<float, GRADIENT>(o, w, m, v, gradient, along, i);
}

/// `gradient` null: it is 0.
static void adam(const Adam& o, float* w, float* m, float* v, const float* gradient, float along, size_t d) {
  if (gradient == nullptr) adamRow<false>(o, w, m, v, gradient, along, d);
  else adamRow<true>(o, w, m, v, gradient, along, d);
}

static void average(const Adam& o, float* __restrict ema, const float* __restrict w, size_t d) {
  size_t i = 0;
  for (; i + W <= d; i += W) {
    fetchLine(ema, i, d);
    const Vec e = load<Vec>(ema + i);
    store(ema + i, e + o.emaRest * (load<Vec>(w + i) - e));
  }
  for (; i < d; i++) ema[i] += o.emaRest * (w[i] - ema[i]);
}

static void unitRow(float* w, float* m, float* v, uint32_t latent, uint32_t t, size_t d) {
  double length = std::sqrt(dot(w, w, d));
  if (length < SHORTEST_ROW) {
    for (size_t i = 0; i < d; i++) {
      w[i] = randomElement(latent, t, static_cast<uint32_t>(i));
      m[i] = 0;
      v[i] = 0;
    }
    length = std::max(std::sqrt(dot(w, w, d)), SHORTEST_ROW);
  }
  const float scale = static_cast<float>(1 / length);
  for (size_t i = 0; i < d; i++) w[i] *= scale;
}

/// moveCut of sae/math.ts.
static void moveCut(const Update& a) {
  if (*a.t.cut > 0)
    *a.p.cut = static_cast<float>(*a.p.cut + (1 - a.t.hyper[CUT_DECAY]) * (static_cast<double>(*a.t.cut) - *a.p.cut));
}

/// control of sae/math.ts.
static void control(const Update& a) {
  const double gain = a.t.hyper[GAIN];
  if (!(gain > 0)) return;
  float* sparsity = a.p.sparsity;
  const double l0 = *a.t.active / a.t.hyper[ROWS], before = sparsity[1];
  const double smoothed = before == 0 ? l0 : before + (1 - CONTROLLER_SMOOTHING) * (l0 - before);
  const double target = a.t.hyper[TARGET_L0], error = smoothed / target - 1, most = CONTROLLER_MOST;
  const double step = std::max(-CONTROLLER_STEP, std::min(CONTROLLER_STEP, gain * error));
  const double damped = before == 0 ? 0 : CONTROLLER_DAMPING * (before / target - 1);
  const double moved = std::sinh(std::asinh(sparsity[0] - damped) + step) + CONTROLLER_DAMPING * error;
  sparsity[0] = static_cast<float>(std::max(-most, std::min(most, moved)));
  sparsity[1] = static_cast<float>(smoothed);
}

static void update(Stream& s, const Update& a) {
  if ((*a.t.bad & FULL) != 0) return;
  if (*a.t.bad != 0) {
    a.counters[SKIPPED]++;
    return;
  }
  const Gradients& g = *a.g;
  const size_t n = g.n, dIn = g.dIn, dOut = g.dOut;
  const double t = ++a.counters[ADAM];
  const Adam o = adamOf(a.t.hyper, t, *a.t.sq);
  const bool averages = a.ema.encoder != nullptr && a.t.hyper[EMA_DECAY] > 0;
  const bool unit = a.t.hyper[UNIT_ROWS] != 0;
  const double rows = a.t.hyper[ROWS];
  float* buffers = s.scratch<float>(0, s.threads * g.width());
  HalfEncoder* half = s.halves.find(a.p.encoder);
  if (half != nullptr && !half->fresh) half = nullptr;
  if (averages) s.halves.changed(a.ema.encoder, n * dIn * sizeof(float));
  s.parallel(ceilDiv(n, LATENTS_A_TILE), [&](size_t tile, unsigned thread) {
    const size_t first = tile * LATENTS_A_TILE, last = std::min(n, first + LATENTS_A_TILE);
    for (size_t j = first; j < last; j++) {
      const Rows gradient = rowsOf(g, j, buffers + thread * g.width());
      const size_t in = j * dIn, out = j * dOut;
      float *encoder = a.p.encoder + in, *decoder = a.p.decoder + out;
      adam(o, encoder, a.m.encoder + in, a.v.encoder + in, gradient.encoder, 0, dIn);
      const bool projects = unit && gradient.decoder != nullptr;
      const float along = projects ? static_cast<float>(dot(decoder, gradient.decoder, dOut)) : 0;
      adam(o, decoder, a.m.decoder + out, a.v.decoder + out, gradient.decoder, along, dOut);
      if (unit)
        unitRow(decoder, a.m.decoder + out, a.v.decoder + out, a.firstLatent + static_cast<uint32_t>(j),
                static_cast<uint32_t>(t), dOut);
      if (half != nullptr) setRow(*half, j, encoder);
      if (averages) {
        average(o, a.ema.encoder + in, encoder, dIn);
        average(o, a.ema.decoder + out, decoder, dOut);
      }
      a.age[j] = a.t.fired[j] != 0 ? 0 : static_cast<uint32_t>(std::min(a.age[j] + rows, 4294967295.0));
    }
    const auto some = [&](float* Params::*of) {
      if (a.p.*of == nullptr) return;
      if (g.g.*of != nullptr)
        adam(o, a.p.*of + first, a.m.*of + first, a.v.*of + first, g.g.*of + first, 0, last - first);
      if (averages) average(o, a.ema.*of + first, a.p.*of + first, last - first);
    };
    some(&Params::latentBias);
    some(&Params::threshold);
  });
  // Last: gradient rows are formed from x - preBias.
  adam(o, a.p.preBias, a.m.preBias, a.v.preBias, g.g.preBias, 0, dOut);
  if (averages) average(o, a.ema.preBias, a.p.preBias, dOut);
  if (a.p.skip != nullptr) {
    s.parallel(dOut, [&](size_t row, unsigned) {
      const size_t at = row * dIn;
      if (g.g.skip != nullptr) adam(o, a.p.skip + at, a.m.skip + at, a.v.skip + at, g.g.skip + at, 0, dIn);
      if (averages) average(o, a.ema.skip + at, a.p.skip + at, dIn);
    });
  }
  if (a.p.cut != nullptr) moveCut(a);
  if (a.p.sparsity != nullptr) control(a);
  if (!averages) return;
  if (a.ema.cut != nullptr) *a.ema.cut = *a.p.cut;
  if (a.ema.sparsity != nullptr) std::copy(a.p.sparsity, a.p.sparsity + 2, a.ema.sparsity);
  a.counters[EMA]++;
}

#endif

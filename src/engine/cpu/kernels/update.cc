// update: one pass over memory for each latent: its gradient rows, projection, clipping, Adam, unit norm, EMA and age.

#ifndef SAETTA_PATH
#include "gradients.h"

#include <algorithm>

namespace saetta {

struct Update {
  Params p, m, v;
  /// encoder null: no average is kept.
  Params ema;
  uint32_t* age;
  double* counters;
  const Gradients* g;
  Step t;
};

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

extern "C" void saetta_update(saetta::Stream* stream, float* encoder, float* latentBias, float* decoder, float* preBias, float* mEncoder, float* mLatentBias,
                              float* mDecoder, float* mPreBias, float* vEncoder, float* vLatentBias, float* vDecoder, float* vPreBias, float* emaEncoder,
                              float* emaLatentBias, float* emaDecoder, float* emaPreBias, uint32_t* age, double* counters, const saetta::Gradients* g,
                              double* hyper, double* sums, uint32_t* fired, uint32_t* bad, double* sq) {
  using namespace saetta;
  const Update a = {{encoder, latentBias, decoder, preBias},
                    {mEncoder, mLatentBias, mDecoder, mPreBias},
                    {vEncoder, vLatentBias, vDecoder, vPreBias},
                    {emaEncoder, emaLatentBias, emaDecoder, emaPreBias},
                    age,
                    counters,
                    g,
                    {hyper, sums, fired, bad, sq}};
  stream->submit([a](Stream& s) { SAETTA_RUN(s, update, a); });
}

#else

#include "rows.h"
#include "half_row.h"

/// Adam on d elements; `along` times w is taken out of the gradient first.
static void adam(const Adam& o, float* __restrict w, float* __restrict m, float* __restrict v, const float* __restrict gradient, float along, size_t d) {
  const float factor = o.factor, beta1 = o.beta1, beta2 = o.beta2, rest1 = o.rest1, rest2 = o.rest2, rate = o.rate, root = o.root, eps = o.eps;
  for (size_t i = 0; i < d; i++) {
    const float g = factor * (gradient[i] - along * w[i]);
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * g * g;
    w[i] -= rate * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

/// The same where the gradient is 0.
static void adamUnused(const Adam& o, float* __restrict w, float* __restrict m, float* __restrict v, size_t d) {
  const float beta1 = o.beta1, beta2 = o.beta2, rate = o.rate, root = o.root, eps = o.eps;
  for (size_t i = 0; i < d; i++) {
    m[i] = beta1 * m[i];
    v[i] = beta2 * v[i];
    w[i] -= rate * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

static void average(const Adam& o, float* __restrict ema, const float* __restrict w, size_t d) {
  for (size_t i = 0; i < d; i++) ema[i] += o.emaRest * (w[i] - ema[i]);
}

static void unitRow(float* w, float* m, float* v, uint32_t latent, uint32_t t, size_t d) {
  double length = std::sqrt(dot(w, w, d));
  if (length < 1e-12) {
    for (size_t i = 0; i < d; i++) {
      w[i] = randomElement(latent, t, static_cast<uint32_t>(i));
      m[i] = 0;
      v[i] = 0;
    }
    length = std::max(std::sqrt(dot(w, w, d)), 1e-12);
  }
  const float scale = static_cast<float>(1 / length);
  for (size_t i = 0; i < d; i++) w[i] *= scale;
}

static void update(Stream& s, const Update& a) {
  if (*a.t.bad != 0) {
    a.counters[SKIPPED]++;
    return;
  }
  const Gradients& g = *a.g;
  const size_t n = g.n, d = g.d;
  const double t = ++a.counters[ADAM];
  const Adam o = adamOf(a.t.hyper, t, *a.t.sq);
  const bool averages = a.ema.encoder != nullptr && a.t.hyper[EMA_DECAY] > 0;
  const double rows = a.t.hyper[ROWS];
  float* buffers = s.scratch<float>(0, s.threads * 2 * d);
  HalfEncoder* half = s.halves.find(a.p.encoder);
  if (half != nullptr && !half->fresh) half = nullptr;
  if (averages) s.halves.changed(a.ema.encoder, n * d * sizeof(float));
  s.parallel(ceilDiv(n, LATENTS_A_TILE), [&](size_t tile, unsigned thread) {
    const size_t first = tile * LATENTS_A_TILE, last = std::min(n, first + LATENTS_A_TILE);
    for (size_t j = first; j < last; j++) {
      const Rows gradient = rowsOf(g, j, buffers + thread * 2 * d);
      const size_t row = j * d;
      float *encoder = a.p.encoder + row, *decoder = a.p.decoder + row;
      if (gradient.encoder == nullptr) {
        adamUnused(o, encoder, a.m.encoder + row, a.v.encoder + row, d);
        adamUnused(o, decoder, a.m.decoder + row, a.v.decoder + row, d);
      } else {
        adam(o, encoder, a.m.encoder + row, a.v.encoder + row, gradient.encoder, 0, d);
        adam(o, decoder, a.m.decoder + row, a.v.decoder + row, gradient.decoder, static_cast<float>(dot(decoder, gradient.decoder, d)), d);
      }
      unitRow(decoder, a.m.decoder + row, a.v.decoder + row, static_cast<uint32_t>(j), static_cast<uint32_t>(t), d);
      if (half != nullptr) setRow(*half, j, encoder);
      if (averages) {
        average(o, a.ema.encoder + row, encoder, d);
        average(o, a.ema.decoder + row, decoder, d);
      }
      a.age[j] = a.t.fired[j] != 0 ? 0 : static_cast<uint32_t>(std::min(a.age[j] + rows, 4294967295.0));
    }
    adam(o, a.p.latentBias + first, a.m.latentBias + first, a.v.latentBias + first, g.g.latentBias + first, 0, last - first);
    if (averages) average(o, a.ema.latentBias + first, a.p.latentBias + first, last - first);
  });
  // Last: gradient rows are formed from x - preBias.
  adam(o, a.p.preBias, a.m.preBias, a.v.preBias, g.g.preBias, 0, d);
  if (averages) {
    average(o, a.ema.preBias, a.p.preBias, d);
    a.counters[EMA]++;
  }
}

#endif

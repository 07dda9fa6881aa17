// Norm and update, on the stand-in.

#include "kernels.h"

namespace standin {

// ---- norm, update ----

static double dot(const float* a, const float* b, size_t d) {
  double sum = 0;
  for (size_t i = 0; i < d; i++) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

static void normRows(Launch& l) {
  const Gradients g = gradients(l);
  const float* decoder = l.array<float>(g.n * g.d);
  const uint32_t keep = l.u();
  const double* hyper = l.array<double>(HYPERS);
  double* squares = l.array<double>(2 * g.n);
  const uint32_t* bad = l.array<uint32_t>(1);
  persistent(l, g, 4 * g.d);
  if (*bad != 0) return;
  l.checkedArray(g.formedEncoder, g.n * g.d), l.checkedArray(g.formedDecoder, g.n * g.d);
  std::vector<float> projected(g.d);
  std::vector<float> encoderRow(g.d), decoderRow(g.d);
  for (size_t j = 0; j < g.n; j++) {
    float *e = g.formedEncoder + j * g.d, *w = g.formedDecoder + j * g.d;
    const bool ofEncoder = g.from <= j && j < g.to, ofDecoder = g.from <= g.n + j && g.n + j < g.to;
    if (keep != 2 && (ofEncoder || ofDecoder)) {
      rowsOf(l, g, j, encoderRow.data(), decoderRow.data());
      if (ofEncoder) std::copy(encoderRow.begin(), encoderRow.end(), e);
      if (ofDecoder) std::copy(decoderRow.begin(), decoderRow.end(), w);
    }
    if (ofEncoder) squares[j] = dot(e, e, g.d);
    if (!ofDecoder) continue;
    const float along = hyper[UNIT_ROWS] != 0 ? static_cast<float>(dot(decoder + j * g.d, w, g.d)) : 0;
    for (size_t i = 0; i < g.d; i++) projected[i] = w[i] - along * decoder[j * g.d + i];
    squares[g.n + j] = dot(projected.data(), projected.data(), g.d);
  }
}

static void normSum(Launch& l) {
  const double* squares = l.next<double*>();
  const float* latentBias = l.next<float*>();
  const float* preBias = l.next<float*>();
  const size_t n = l.u(), d = l.u();
  double* sq = l.array<double>(1);
  uint32_t* bad = l.array<uint32_t>(1);
  const Share counted = l.next<Share>();
  const bool counts = l.u() != 0;
  l.checkedArray(squares, 2 * n), l.checkedArray(latentBias, n), l.checkedArray(preBias, d);
  if (*bad != 0) return;
  *sq = counts ? dot(preBias, preBias, d) : 0;
  for (size_t j = 0; j < n; j++) {
    if (has(counted, j)) *sq += squares[j] + squares[n + j] + static_cast<double>(latentBias[j]) * latentBias[j];
  }
  if (!std::isfinite(*sq)) *bad |= 1;
}

static void updateBegin(Launch& l) {
  const double* hyper = l.array<double>(HYPERS);
  const double* sq = l.array<double>(1);
  const uint32_t* bad = l.array<uint32_t>(1);
  double* counters = l.array<double>(3);
  const bool hasEma = l.u() != 0;
  const uint32_t firstLatent = l.u();
  Numbers* numbers = l.array<Numbers>(1);
  Numbers o = {};
  if (*bad != 0) {
    if ((*bad & FULL) == 0) counters[SKIPPED]++;
    *numbers = o;
    return;
  }
  const double t = ++counters[ADAM], clip = hyper[CLIP];
  const auto f = [](double x) { return static_cast<float>(x); };
  o.factor = f(clip > 0 ? clip / std::max(std::sqrt(*sq), clip) : 1.0);
  o.beta1 = f(hyper[BETA1]), o.beta2 = f(hyper[BETA2]), o.rest1 = f(1 - hyper[BETA1]), o.rest2 = f(1 - hyper[BETA2]);
  o.rate = f(hyper[LR] / (1 - std::pow(hyper[BETA1], t))), o.root = f(1 / std::sqrt(1 - std::pow(hyper[BETA2], t)));
  o.eps = f(hyper[EPS]), o.emaRest = f(1 - hyper[EMA_DECAY]);
  o.go = 1, o.t = static_cast<uint32_t>(t), o.averages = hasEma && hyper[EMA_DECAY] > 0, o.rows = hyper[ROWS],
  o.firstLatent = firstLatent, o.unit = hyper[UNIT_ROWS] != 0;
  counters[EMA] += o.averages;
  *numbers = o;
}

static void adam(const Numbers& o, float& w, float& m, float& v, float gradient, float* ema) {
  const float g = o.factor * gradient;
  m = o.beta1 * m + o.rest1 * g;
  v = o.beta2 * v + o.rest2 * g * g;
  w -= o.rate * m / (std::sqrt(v) * o.root + o.eps);
  if (ema != nullptr && o.averages) *ema += o.emaRest * (w - *ema);
}

static uint32_t fmix32(uint32_t h) {
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

static void weights(Launch& l, const Weights& w, size_t n, size_t d) {
  l.checkedArray(w.encoder, n * d), l.checkedArray(w.decoder, n * d), l.checkedArray(w.latentBias, n),
      l.checkedArray(w.preBias, d);
}

static void updateRows(Launch& l) {
  const Gradients g = gradients(l);
  const bool formed = l.u() != 0;
  const Weights p = l.next<Weights>(), m = l.next<Weights>(), v = l.next<Weights>(), ema = l.next<Weights>();
  const size_t d = g.d;
  const Elements encoder16 = l.matrix(g.n * d), decoder16 = l.matrix(g.n * d);
  const Numbers o = *l.array<Numbers>(1);
  persistent(l, g, d % 4 == 0 && d <= l.width * 4 ? 96 * l.width : 4 * d);
  weights(l, p, g.n, d), weights(l, m, g.n, d), weights(l, v, g.n, d);
  if (o.go == 0) return;
  l.expect(!o.averages || owned(ema.encoder, g.n * d * 4), "there is no average");
  std::vector<float> e(d), w(d);
  for (size_t j = 0; j < g.n; j++) {
    if (formed) {
      std::copy_n(l.checkedArray(g.formedEncoder, g.n * d) + j * d, d, e.begin());
      std::copy_n(l.checkedArray(g.formedDecoder, g.n * d) + j * d, d, w.begin());
    } else {
      rowsOf(l, g, j, e.data(), w.data());
    }
    if (g.from <= j && j < g.to) {
      for (size_t i = 0; i < d; i++) {
        const size_t at = j * d + i;
        adam(o, p.encoder[at], m.encoder[at], v.encoder[at], e[i], o.averages ? ema.encoder + at : nullptr);
        encoder16.set(at, p.encoder[at]);
      }
    }
    if (g.from > g.n + j || g.n + j >= g.to) continue;
    float* row = p.decoder + j * d;
    const float along = o.unit != 0 ? static_cast<float>(dot(row, w.data(), d)) : 0;
    for (size_t i = 0; i < d; i++)
      adam(o, row[i], m.decoder[j * d + i], v.decoder[j * d + i], w[i] - along * row[i], nullptr);
    double length = o.unit != 0 ? std::sqrt(dot(row, row, d)) : 1;
    if (length < 1e-12) {
      for (size_t i = 0; i < d; i++) {
        const uint32_t drawn = fmix32(fmix32(fmix32((o.firstLatent + static_cast<uint32_t>(j)) ^ 0x9e3779b9u) + o.t) +
                                      static_cast<uint32_t>(i));
        row[i] = static_cast<float>(drawn / 2147483648.0 - 1);
        m.decoder[j * d + i] = v.decoder[j * d + i] = 0;
      }
      length = std::max(std::sqrt(dot(row, row, d)), 1e-12);
    }
    for (size_t i = 0; i < d; i++) {
      row[i] = static_cast<float>(row[i] / length);
      if (o.averages) ema.decoder[j * d + i] += o.emaRest * (row[i] - ema.decoder[j * d + i]);
      decoder16.set(j * d + i, row[i]);
    }
  }
}

static void updateSmall(Launch& l) {
  const size_t n = l.u(), d = l.u();
  const Weights p = l.next<Weights>(), m = l.next<Weights>(), v = l.next<Weights>(), ema = l.next<Weights>();
  const float* latentBias = l.array<float>(n);
  const float* preBias = l.array<float>(d);
  uint32_t* age = l.array<uint32_t>(n);
  const uint32_t* fired = l.array<uint32_t>(n);
  const Numbers o = *l.array<Numbers>(1);
  l.expect(size_t{l.x} * l.width >= n + d, "the grid is too small");
  weights(l, p, n, d), weights(l, m, n, d), weights(l, v, n, d);
  if (o.go == 0) return;
  for (size_t j = 0; j < n; j++) {
    adam(o, p.latentBias[j], m.latentBias[j], v.latentBias[j], latentBias[j],
         o.averages ? ema.latentBias + j : nullptr);
    age[j] = fired[j] != 0 ? 0 : static_cast<uint32_t>(std::min(age[j] + o.rows, 4294967295.0));
  }
  for (size_t i = 0; i < d; i++)
    adam(o, p.preBias[i], m.preBias[i], v.preBias[i], preBias[i], o.averages ? ema.preBias + i : nullptr);
}

const Works UPDATE = {
    {"norm_rows", normRows},
    {"norm_sum", normSum},
    {"update_begin", updateBegin},
    {"update_rows", updateRows},
    {"update_small", updateSmall},
};

}  // namespace standin

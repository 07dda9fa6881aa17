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
  const float* decoder = l.array<float>(g.n * g.dOut);
  const uint32_t keep = l.u();
  const double* hyper = l.array<double>(HYPERS);
  double* squares = l.array<double>(2 * g.n);
  const uint32_t* bad = l.array<uint32_t>(1);
  persistent(l, g, 4 * g.dOut);
  if (*bad != 0) return;
  l.checkedArray(g.formedEncoder, g.n * g.dIn), l.checkedArray(g.formedDecoder, g.n * g.dOut);
  std::vector<float> projected(g.dOut);
  std::vector<float> encoderRow(g.dIn), decoderRow(g.dOut);
  for (size_t j = 0; j < g.n; j++) {
    float *e = g.formedEncoder + j * g.dIn, *w = g.formedDecoder + j * g.dOut;
    const bool ofEncoder = g.from <= j && j < g.to, ofDecoder = g.from <= g.n + j && g.n + j < g.to;
    if (keep != 2 && (ofEncoder || ofDecoder)) {
      rowsOf(l, g, j, encoderRow.data(), decoderRow.data());
      if (ofEncoder) std::copy(encoderRow.begin(), encoderRow.end(), e);
      if (ofDecoder) std::copy(decoderRow.begin(), decoderRow.end(), w);
    }
    if (ofEncoder) squares[j] = dot(e, e, g.dIn);
    if (!ofDecoder) continue;
    const float along = hyper[UNIT_ROWS] != 0 ? static_cast<float>(dot(decoder + j * g.dOut, w, g.dOut)) : 0;
    for (size_t i = 0; i < g.dOut; i++) projected[i] = w[i] - along * decoder[j * g.dOut + i];
    squares[g.n + j] = dot(projected.data(), projected.data(), g.dOut);
  }
}

static void normSum(Launch& l) {
  const double* squares = l.next<double*>();
  const float* latentBias = l.next<float*>();
  const float* preBias = l.next<float*>();
  const float* threshold = l.next<float*>();
  const double* skip = l.next<double*>();
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
  for (size_t j = 0; threshold != nullptr && j < n; j++)
    if (has(counted, j)) *sq += static_cast<double>(l.checkedArray(threshold, n)[j]) * threshold[j];
  for (size_t b = 0; skip != nullptr && counts && b < SKIP_BLOCKS; b++) *sq += l.checkedArray(skip, SKIP_BLOCKS)[b];
  if (!std::isfinite(*sq)) *bad |= 1;
}

static void updateBegin(Launch& l) {
  const double* hyper = l.array<double>(HYPERS);
  const double* sq = l.array<double>(1);
  const uint32_t* bad = l.array<uint32_t>(1);
  double* counters = l.array<double>(3);
  const bool hasEma = l.u() != 0, ready = l.u() != 0;
  const uint32_t firstLatent = l.u();
  Numbers* numbers = l.array<Numbers>(1);
  Numbers o = {};
  if (*bad != 0 || !ready) {
    if (*bad != 0 && (*bad & FULL) == 0) counters[SKIPPED]++;
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

static void weights(Launch& l, const Weights& w, size_t n, size_t dIn, size_t dOut) {
  l.checkedArray(w.encoder, n * dIn), l.checkedArray(w.decoder, n * dOut), l.checkedArray(w.latentBias, n),
      l.checkedArray(w.preBias, dOut);
}

static void updateRows(Launch& l) {
  const Gradients g = gradients(l);
  const bool formed = l.u() != 0;
  const Weights p = l.next<Weights>(), m = l.next<Weights>(), v = l.next<Weights>(), ema = l.next<Weights>();
  const size_t dIn = g.dIn, d = g.dOut, widest = std::max(dIn, d);
  const Elements encoder16 = l.matrix(g.n * dIn), decoder16 = l.matrix(g.n * d);
  const Numbers o = *l.array<Numbers>(1);
  persistent(l, g, dIn % 4 == 0 && d % 4 == 0 && widest <= l.width * 4 ? 96 * l.width : 4 * widest);
  weights(l, p, g.n, dIn, d), weights(l, m, g.n, dIn, d), weights(l, v, g.n, dIn, d);
  if (o.go == 0) return;
  l.expect(!o.averages || owned(ema.encoder, g.n * dIn * 4), "there is no average");
  std::vector<float> e(dIn), w(d);
  for (size_t j = 0; j < g.n; j++) {
    if (formed) {
      std::copy_n(l.checkedArray(g.formedEncoder, g.n * dIn) + j * dIn, dIn, e.begin());
      std::copy_n(l.checkedArray(g.formedDecoder, g.n * d) + j * d, d, w.begin());
    } else {
      rowsOf(l, g, j, e.data(), w.data());
    }
    if (g.from <= j && j < g.to) {
      for (size_t i = 0; i < dIn; i++) {
        const size_t at = j * dIn + i;
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
  const float* threshold = l.next<float*>();
  uint32_t* age = l.array<uint32_t>(n);
  const uint32_t* fired = l.array<uint32_t>(n);
  const double* hyper = l.array<double>(HYPERS);
  const float lowest = *l.array<float>(1);
  const double active = *l.array<double>(1);
  const Numbers o = *l.array<Numbers>(1);
  l.expect(size_t{l.x} * l.width > n + d, "the grid is too small");
  if (o.go == 0) return;
  for (size_t j = 0; j < n; j++) {
    adam(o, p.latentBias[j], m.latentBias[j], v.latentBias[j], latentBias[j],
         o.averages ? ema.latentBias + j : nullptr);
    if (p.threshold != nullptr)
      adam(o, p.threshold[j], m.threshold[j], v.threshold[j], l.checkedArray(threshold, n)[j],
           o.averages ? ema.threshold + j : nullptr);
    age[j] = fired[j] != 0 ? 0 : static_cast<uint32_t>(std::min(age[j] + o.rows, 4294967295.0));
  }
  for (size_t i = 0; i < d; i++)
    adam(o, p.preBias[i], m.preBias[i], v.preBias[i], preBias[i], o.averages ? ema.preBias + i : nullptr);
  if (p.cut != nullptr) {
    if (lowest > 0) *p.cut = static_cast<float>(*p.cut + (1 - hyper[CUT_DECAY]) * (double{lowest} - *p.cut));
    if (o.averages) *ema.cut = *p.cut;
  }
  if (p.sparsity == nullptr) return;
  if (hyper[GAIN] > 0) {
    const double l0 = active / hyper[ROWS], before = p.sparsity[1];
    const double smoothed = before == 0 ? l0 : before + (1 - CONTROLLER_SMOOTHING) * (l0 - before);
    const double target = hyper[TARGET_L0], error = smoothed / target - 1, most = CONTROLLER_MOST;
    const double step = std::max(-CONTROLLER_STEP, std::min(CONTROLLER_STEP, hyper[GAIN] * error));
    const double damped = before == 0 ? 0 : CONTROLLER_DAMPING * (before / target - 1);
    const double moved = std::sinh(std::asinh(p.sparsity[0] - damped) + step) + CONTROLLER_DAMPING * error;
    p.sparsity[0] = static_cast<float>(std::max(-most, std::min(most, moved)));
    p.sparsity[1] = static_cast<float>(smoothed);
  }
  for (size_t i = 0; i < 2 && o.averages; i++) ema.sparsity[i] = p.sparsity[i];
}

static void skipScale(Launch& l) {
  float* skip = l.next<float*>();
  const size_t count = l.u();
  const double* scales = l.array<double>(3);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(skip, count);
  for (size_t i = 0; i < count; i++) {
    skip[i] *= static_cast<float>(scales[0]);
    if (!(std::fabs(skip[i]) < 1e18)) *bad |= 1;
  }
}

static void skipSquares(Launch& l) {
  const float* skip = l.next<float*>();
  const size_t count = l.u();
  double* partial = l.array<double>(SKIP_BLOCKS);
  l.checkedArray(skip, count);
  l.expect(l.x == SKIP_BLOCKS && l.width == 256, "the launch is wrong");
  std::fill(partial, partial + SKIP_BLOCKS, 0.0);
  for (size_t i = 0; i < count; i++) partial[i / 256 % SKIP_BLOCKS] += static_cast<double>(skip[i]) * skip[i];
}

static void updateSkip(Launch& l) {
  const float* skip = l.next<float*>();
  const size_t count = l.u();
  const Weights p = l.next<Weights>(), m = l.next<Weights>(), v = l.next<Weights>(), ema = l.next<Weights>();
  const Elements skip16 = l.matrix(count);
  const Numbers o = *l.array<Numbers>(1);
  l.expect(l.x == ceilDiv(count, 256) && l.width == 256, "the launch is wrong");
  l.checkedArray(skip, count), l.checkedArray(p.skip, count), l.checkedArray(m.skip, count);
  if (o.go == 0) return;
  for (size_t i = 0; i < count; i++) {
    adam(o, p.skip[i], m.skip[i], v.skip[i], skip[i], o.averages ? ema.skip + i : nullptr);
    skip16.set(i, p.skip[i]);
  }
}

const Works UPDATE = {
    {"skip_scale", skipScale},
    {"skip_squares", skipSquares},
    {"update_skip", updateSkip},
    {"norm_rows", normRows},
    {"norm_sum", normSum},
    {"update_begin", updateBegin},
    {"update_rows", updateRows},
    {"update_small", updateSmall},
};

}  // namespace standin

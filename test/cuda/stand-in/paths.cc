// Decode, residual and codeGrad, pair by pair and over all dead latents, on the stand-in.

#include "kernels.h"

namespace standin {

// ---- decode, residual, codeGrad ----

static void decodeRows(const Elements& decoder, const uint32_t* latent, const float* value, size_t k, float* err,
                       size_t B, size_t d, const Prefixes& prefixes, bool add) {
  std::fill(err + (add ? B * d : 0), err + prefixes.count * B * d, 0.0f);
  for (size_t s = 0; s < B * k; s++) {
    if (latent[s] == NONE) continue;
    float* to = err + (planeOf(prefixes, latent[s]) * B + s / k) * d;
    for (size_t i = 0; i < d; i++) to[i] += value[s] * decoder.get(latent[s] * d + i);
  }
}

static void residualRows(Launch& l, const float* preBias, const float* x, float* err, const Elements& err16,
                         const float* live, const float* value, size_t k, size_t B, size_t d, size_t R, double* partial,
                         uint32_t* bad, const Prefixes& prefixes) {
  const size_t G = prefixes.count, width = 4 + 2 * d + (G > 1 ? d + G - 1 : 0), plane = B * d;
  l.expect(l.x == ceilDiv(B, R), "the grid is wrong");
  rowThreads(l, d);
  std::fill(partial, partial + l.x * width, 0.0);
  for (size_t b = 0; b < B; b++) {
    double* line = partial + b / R * width;
    for (size_t i = 0; i < d; i++) {
      const size_t e = b * d + i;
      float sum = live != nullptr ? live[e] : preBias[i] - x[e], weighted = 0;
      for (size_t g = 0; g < G; g++) {
        err[g * plane + e] = sum += err[g * plane + e];
        if (g + 1 < G) line[4 + 3 * d + g] += static_cast<double>(sum) * sum;
      }
      for (size_t g = G; g-- > 0;) {
        err[g * plane + e] = weighted = std::fma(prefixes.weights[g], err[g * plane + e], weighted);
        err16.set(g * plane + e, weighted);
        if (!std::isfinite(err16.get(g * plane + e))) *bad |= 1;
      }
      const double centred = static_cast<double>(x[e]) - preBias[i];
      line[0] += static_cast<double>(sum) * sum;
      line[1] += static_cast<double>(x[e]) * x[e];
      line[2] += centred * centred;
      line[4 + i] += sum;
      line[4 + d + i] += centred;
      if (G > 1) line[4 + 2 * d + i] += weighted;
    }
    for (size_t s = b * k; s < (b + 1) * k; s++) line[3] += value[s] > 0;
  }
}

static void gradRows(const Elements& decoder, const uint32_t* latent, float* grad, size_t k, const float* err, size_t B,
                     size_t d, const Prefixes& prefixes, uint32_t* bad) {
  for (size_t s = 0; s < B * k; s++) {
    float sum = 0;
    const float* from = latent[s] == NONE ? err : err + (planeOf(prefixes, latent[s]) * B + s / k) * d;
    for (size_t i = 0; i < d && latent[s] != NONE; i++) sum += decoder.get(latent[s] * d + i) * from[i];
    grad[s] = sum;
    if (!std::isfinite(sum)) *bad |= 1;
  }
}

/// One prefix of all latents.
static Prefixes whole(size_t n) {
  Prefixes prefixes = {};
  prefixes.count = 1;
  prefixes.ends[0] = static_cast<uint32_t>(n);
  prefixes.weights[0] = 1;
  return prefixes;
}

static size_t latentsOf(const Prefixes& prefixes) { return prefixes.ends[prefixes.count - 1]; }

static void decode(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* latent = l.next<uint32_t*>();
  const float* value = l.next<float*>();
  const size_t k = l.u();
  float* err = l.next<float*>();
  const size_t B = l.u(), d = l.u();
  const Prefixes prefixes = l.next<Prefixes>();
  const bool add = l.u() != 0;
  l.expect(l.x == B && l.shared >= 8 * std::min<size_t>(k, SHARED_SLOTS), "the launch is wrong");
  rowThreads(l, d);
  l.checkedArray(latent, B * k), l.checkedArray(value, B * k), l.checkedArray(err, prefixes.count * B * d);
  decodeRows(l.matrixAt(weights, latentsOf(prefixes) * d), latent, value, k, err, B, d, prefixes, add);
}

static void residual(Launch& l) {
  const float* preBias = l.next<float*>();
  const float* x = l.next<float*>();
  float* err = l.next<float*>();
  void* err16 = l.next<void*>();
  const float* live = l.next<float*>();
  const float* value = l.next<float*>();
  const size_t k = l.u(), B = l.u(), d = l.u(), R = l.u();
  double* partial = l.array<double>(l.x * (4 + 2 * d));
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(preBias, d), l.checkedArray(x, B * d), l.checkedArray(err, B * d), l.checkedArray(value, B * k);
  if (live != nullptr) l.checkedArray(live, B * d);
  residualRows(l, preBias, x, err, l.matrixAt(err16, B * d), live, value, k, B, d, R, partial, bad, whole(0));
}

static void residualPlanes(Launch& l) {
  const float* preBias = l.next<float*>();
  const float* x = l.next<float*>();
  float* err = l.next<float*>();
  void* err16 = l.next<void*>();
  const float* value = l.next<float*>();
  const size_t k = l.u(), B = l.u(), d = l.u(), R = l.u();
  const Prefixes prefixes = l.next<Prefixes>();
  const size_t G = prefixes.count;
  double* partial = l.array<double>(l.x * (4 + 3 * d + G - 1));
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.shared >= 8 * (G - 1) * l.width, "too little shared memory");
  l.checkedArray(preBias, d), l.checkedArray(x, B * d), l.checkedArray(err, G * B * d), l.checkedArray(value, B * k);
  residualRows(l, preBias, x, err, l.matrixAt(err16, G * B * d), nullptr, value, k, B, d, R, partial, bad, prefixes);
}

static void codeGrad(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* latent = l.next<uint32_t*>();
  float* grad = l.next<float*>();
  const size_t k = l.u();
  const float* err = l.next<float*>();
  const size_t B = l.u(), d = l.u();
  const Prefixes prefixes = l.next<Prefixes>();
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.x == B && l.shared >= 4 * (d + std::min<size_t>(k, SHARED_SLOTS)), "the launch is wrong");
  rowThreads(l, d);
  l.checkedArray(latent, B * k), l.checkedArray(grad, B * k), l.checkedArray(err, prefixes.count * B * d);
  gradRows(l.matrixAt(weights, latentsOf(prefixes) * d), latent, grad, k, err, B, d, prefixes, bad);
}

static void reconstruct(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* latent = l.next<uint32_t*>();
  const float* value = l.next<float*>();
  float* grad = l.next<float*>();
  const size_t k = l.u();
  const float* preBias = l.next<float*>();
  const float* x = l.next<float*>();
  float* err = l.next<float*>();
  void* err16 = l.next<void*>();
  const float* live = l.next<float*>();
  const size_t B = l.u(), d = l.u(), n = l.u(), R = l.u();
  double* partial = l.array<double>(l.x * (4 + 2 * d));
  uint32_t* bad = l.array<uint32_t>(1);
  const size_t wide = l.compute == 0 ? 4 : 8;
  l.expect(k <= 32 && d % wide == 0 && d <= 256 * wide && l.shared == 512 * l.width, "the launch is wrong");
  l.checkedArray(latent, B * k), l.checkedArray(value, B * k), l.checkedArray(grad, B * k);
  l.checkedArray(preBias, d), l.checkedArray(x, B * d), l.checkedArray(err, B * d);
  if (live != nullptr) l.checkedArray(live, B * d);
  const Elements decoder = l.matrixAt(weights, n * d);
  decodeRows(decoder, latent, value, k, err, B, d, whole(n), false);
  residualRows(l, preBias, x, err, l.matrixAt(err16, B * d), live, value, k, B, d, R, partial, bad, whole(n));
  gradRows(decoder, latent, grad, k, err, B, d, whole(n), bad);
}

static void reconstructWide(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* latent = l.next<uint32_t*>();
  const float* value = l.next<float*>();
  float* grad = l.next<float*>();
  const size_t k = l.u();
  const float* preBias = l.next<float*>();
  const float* x = l.next<float*>();
  float* err = l.next<float*>();
  void* err16 = l.next<void*>();
  const size_t B = l.u(), d = l.u(), R = l.u();
  const Prefixes prefixes = l.next<Prefixes>();
  const size_t G = prefixes.count;
  const bool add = l.u() != 0;
  double* partial = l.array<double>(l.x * (4 + 2 * d + (G > 1 ? d + G - 1 : 0)));
  uint32_t* bad = l.array<uint32_t>(1);
  const size_t wide = l.compute == 0 ? 4 : 8;
  const size_t each = 520 + (G > 1 ? 4 * wide * G + 8 * (wide + G - 1) : 0);
  l.expect(d % wide == 0 && d <= 256 * wide && l.shared == each * l.width, "the launch is wrong");
  l.checkedArray(latent, B * k), l.checkedArray(value, B * k), l.checkedArray(grad, B * k);
  l.checkedArray(preBias, d), l.checkedArray(x, B * d), l.checkedArray(err, G * B * d);
  const Elements decoder = l.matrixAt(weights, latentsOf(prefixes) * d);
  decodeRows(decoder, latent, value, k, err, B, d, prefixes, add);
  residualRows(l, preBias, x, err, l.matrixAt(err16, G * B * d), nullptr, value, k, B, d, R, partial, bad, prefixes);
  gradRows(decoder, latent, grad, k, err, B, d, prefixes, bad);
}

static void residualSums(Launch& l) {
  const double* partial = l.next<double*>();
  const size_t blocks = l.u(), width = l.u();
  const bool dead = l.u() != 0;
  double* sums = l.array<double>(SUMS + (dead ? 0 : width - 4));
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(partial, blocks * width);
  l.expect(l.x == ceilDiv(width, 32) && l.width == 1024, "the grid is wrong");
  const auto all = [&](size_t column) {
    double sum = 0;
    for (size_t line = 0; line < blocks; line++) sum += partial[line * width + column];
    return sum;
  };
  if (!std::isfinite(all(0))) *bad |= 1;
  sums[dead ? AUX_ERR2 : ERR2] += all(0);
  if (dead) return;
  sums[X2] += all(1), sums[CENTRED2] += all(2), sums[ACTIVE] += all(3);
  for (size_t i = 4; i < width; i++) sums[SUMS + i - 4] += all(i);
}

static void tanhRows(Launch& l) {
  const float* value = l.next<float*>();
  const size_t k = l.u(), B = l.u();
  const double* hyper = l.array<double>(HYPERS);
  double* partial = l.array<double>(l.x);
  l.checkedArray(value, B * k);
  if (hyper[PENALTY] != PENALTY_TANH) return;
  std::fill(partial, partial + l.x, 0.0);
  for (size_t s = 0; s < B * k; s++) partial[s / k % l.x] += std::tanh(hyper[TANH_SCALE] * value[s]);
}

static void tanhTotal(Launch& l) {
  const double* partial = l.next<double*>();
  const size_t blocks = l.u();
  const double* hyper = l.array<double>(HYPERS);
  double* sums = l.array<double>(SUMS);
  l.checkedArray(partial, blocks);
  if (hyper[PENALTY] != PENALTY_TANH) return;
  for (size_t b = 0; b < blocks; b++) sums[TANH] += partial[b];
}

// ---- the dense dead branch ----

static void denseRows(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* list = l.next<uint32_t*>();
  const uint32_t* count = l.array<uint32_t>(1);
  const size_t cap = l.u(), d = l.u();
  const Elements to = l.matrix(cap * d);
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.x == cap && cap % 8 == 0, "the grid is wrong");
  rowThreads(l, d);
  l.checkedArray(list, *count);
  if (*count > cap) *bad |= 1;
  const Elements decoder = {l.compute, weights};
  for (size_t q = 0; q < cap; q++) {
    if (q < *count) l.matrixAt(static_cast<char*>(weights) + list[q] * d * decoder.bytes(), d);
    for (size_t i = 0; i < d; i++) to.set(q * d + i, q < *count ? decoder.get(list[q] * d + i) : 0);
  }
}

static void denseCodes(Launch& l) {
  const uint32_t* latent = l.next<uint32_t*>();
  const float* number = l.next<float*>();
  const size_t k = l.u();
  const uint32_t* slot = l.next<uint32_t*>();
  const size_t cap = l.u(), C = l.x;
  const Elements to = l.matrix(C * cap);
  l.checkedArray(latent, C * k), l.checkedArray(number, C * k);
  l.expect(l.width == 256 && l.shared >= cap * to.bytes(), "the launch is wrong");
  for (size_t e = 0; e < C * cap; e++) to.set(e, 0);
  for (size_t s = 0; s < C * k; s++) {
    if (latent[s] != NONE && *l.checkedArray(slot + latent[s], 1) < cap)
      to.set(s / k * cap + slot[latent[s]], number[s]);
  }
}

static void densePick(Launch& l) {
  const uint32_t* latent = l.next<uint32_t*>();
  const size_t C = l.u(), k = l.u();
  const uint32_t* slot = l.next<uint32_t*>();
  const size_t cap = l.u();
  const Elements from = l.matrix(C * cap);
  float* grad = l.array<float>(C * k);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(latent, C * k);
  l.expect(l.x == ceilDiv(C * k, 256) && l.width == 256, "the grid is wrong");
  for (size_t s = 0; s < C * k; s++) {
    grad[s] = latent[s] != NONE && slot[latent[s]] < cap ? from.get(s / k * cap + slot[latent[s]]) : 0;
    if (!std::isfinite(grad[s])) *bad |= 1;
  }
}

static void denseBias(Launch& l) {
  void* at = l.next<void*>();
  const size_t C = l.u(), cap = l.u();
  const bool first = l.u() != 0;
  double* partial = l.array<double>(32 * cap);
  const Elements gd = l.matrixAt(at, C * cap);
  l.expect(l.x == ceilDiv(cap, 256) && l.y == 32 && l.width == 256, "the grid is wrong");
  if (first) std::fill(partial, partial + 32 * cap, 0.0);
  for (size_t e = 0; e < C * cap; e++) partial[e / cap / ceilDiv(C, 32) * cap + e % cap] += gd.get(e);
}

static void denseCheck(Launch& l) {
  const float* encoder = l.next<float*>();
  const float* decoder = l.next<float*>();
  const double* partial = l.next<double*>();
  const size_t cap = l.u(), dIn = l.u(), dOut = l.u();
  const uint32_t* count = l.array<uint32_t>(1);
  const double* scales = l.array<double>(3);
  double* bias = l.array<double>(cap);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(encoder, cap * dIn), l.checkedArray(decoder, cap * dOut), l.checkedArray(partial, 32 * cap);
  l.expect(l.x == ceilDiv(cap, 8) && l.width == 256, "the grid is wrong");
  for (size_t q = 0; q < cap; q++) {
    bias[q] = 0;
    for (size_t part = 0; part < 32; part++) bias[q] += partial[part * cap + q];
    bool fits = std::fabs(scales[1] * bias[q]) < 1e18;
    for (size_t i = q * dIn; i < (q + 1) * dIn; i++) fits = fits && std::fabs(scales[1] * encoder[i]) < 1e18;
    for (size_t i = q * dOut; i < (q + 1) * dOut; i++) fits = fits && std::fabs(scales[1] * decoder[i]) < 1e18;
    if (!fits && q < *count) *bad |= 1;
  }
}

static void mergeCodes(Launch& l) {
  const float* all = l.next<float*>();
  const size_t shards = l.u(), shard = l.u(), B = l.u(), slots = l.u(), k = l.u();
  uint32_t* latent = l.array<uint32_t>(B * slots);
  float* value = l.array<float>(B * slots);
  uint32_t* fired = l.next<uint32_t*>();
  const double* hyper = l.next<double*>();
  l.checkedArray(all, shards * B * slots);
  l.expect(l.x == ceilDiv(B * slots, 256) && l.width == 256, "the grid is wrong");
  for (size_t at = 0; at < B * slots; at++) {
    const size_t row = at / slots * slots;
    size_t before = 0;
    for (size_t s = 0; s < shards; s++) {
      for (size_t i = 0; i < slots; i++) {
        const float other = all[s * B * slots + row + i], own = all[shard * B * slots + at];
        before += other > own || (other == own && (s < shard || (s == shard && row + i < at)));
      }
    }
    const size_t most = fired == nullptr ? k : std::min(k, static_cast<size_t>(hyper[ROW_K]));
    if (!(value[at] > 0) || before >= most) latent[at] = NONE, value[at] = 0;
    else if (fired != nullptr && value[at] > hyper[FIRED_ABOVE]) fired[latent[at]] = 1;
  }
}

const Works PATHS = {
    {"reconstruct_wide", reconstructWide},
    {"reconstruct_planes", reconstructWide},
    {"residual_planes", residualPlanes},
    {"tanh_rows", tanhRows},
    {"tanh_total", tanhTotal},
    {"merge_codes", mergeCodes},
    {"decode", decode},
    {"residual", residual},
    {"code_grad", codeGrad},
    {"reconstruct", reconstruct},
    {"residual_sums", residualSums},
    {"dense_rows", denseRows},
    {"dense_codes", denseCodes},
    {"dense_pick", densePick},
    {"dense_bias", denseBias},
    {"dense_check", denseCheck},
};

}  // namespace standin

// Decode, residual and codeGrad, pair by pair and over all dead latents, on the stand-in.

#include "kernels.h"

namespace standin {

// ---- decode, residual, codeGrad ----

static void decodeRows(const Elements& decoder, const uint32_t* latent, const float* value, size_t k, float* err,
                       size_t B, size_t d, size_t n) {
  std::fill(err, err + B * d, 0.0f);
  for (size_t s = 0; s < B * k; s++) {
    if (latent[s] >= n) continue;
    for (size_t i = 0; i < d; i++) err[s / k * d + i] += value[s] * decoder.get(latent[s] * d + i);
  }
}

static void residualRows(Launch& l, const float* preBias, const float* x, float* err, const Elements& err16,
                         const float* live, const float* value, size_t k, size_t B, size_t d, size_t R, double* partial,
                         uint32_t* bad) {
  l.expect(l.x == ceilDiv(B, R), "the grid is wrong");
  rowThreads(l, d);
  std::fill(partial, partial + l.x * (4 + 2 * d), 0.0);
  for (size_t b = 0; b < B; b++) {
    double* line = partial + b / R * (4 + 2 * d);
    for (size_t i = 0; i < d; i++) {
      const size_t e = b * d + i;
      err[e] += live != nullptr ? live[e] : preBias[i] - x[e];
      err16.set(e, err[e]);
      if (!std::isfinite(err16.get(e))) *bad |= 1;
      const double centred = static_cast<double>(x[e]) - preBias[i];
      line[0] += static_cast<double>(err[e]) * err[e];
      line[1] += static_cast<double>(x[e]) * x[e];
      line[2] += centred * centred;
      line[4 + i] += err[e];
      line[4 + d + i] += centred;
    }
    for (size_t s = b * k; s < (b + 1) * k; s++) line[3] += value[s] > 0;
  }
}

static void gradRows(const Elements& decoder, const uint32_t* latent, float* grad, size_t k, const float* err, size_t B,
                     size_t d, size_t n, uint32_t* bad) {
  for (size_t s = 0; s < B * k; s++) {
    float sum = 0;
    for (size_t i = 0; i < d && latent[s] < n; i++) sum += decoder.get(latent[s] * d + i) * err[s / k * d + i];
    grad[s] = sum;
    if (!std::isfinite(sum)) *bad |= 1;
  }
}

static void decode(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* latent = l.next<uint32_t*>();
  const float* value = l.next<float*>();
  const size_t k = l.u();
  float* err = l.next<float*>();
  const size_t B = l.u(), d = l.u(), n = l.u();
  l.expect(l.x == B && l.shared >= 8 * k, "the launch is wrong");
  rowThreads(l, d);
  l.checkedArray(latent, B * k), l.checkedArray(value, B * k), l.checkedArray(err, B * d);
  decodeRows(l.matrixAt(weights, n * d), latent, value, k, err, B, d, n);
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
  residualRows(l, preBias, x, err, l.matrixAt(err16, B * d), live, value, k, B, d, R, partial, bad);
}

static void codeGrad(Launch& l) {
  void* weights = l.next<void*>();
  const uint32_t* latent = l.next<uint32_t*>();
  float* grad = l.next<float*>();
  const size_t k = l.u();
  const float* err = l.next<float*>();
  const size_t B = l.u(), d = l.u(), n = l.u();
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.x == B && l.shared >= 4 * (d + k), "the launch is wrong");
  rowThreads(l, d);
  l.checkedArray(latent, B * k), l.checkedArray(grad, B * k), l.checkedArray(err, B * d);
  gradRows(l.matrixAt(weights, n * d), latent, grad, k, err, B, d, n, bad);
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
  decodeRows(decoder, latent, value, k, err, B, d, n);
  residualRows(l, preBias, x, err, l.matrixAt(err16, B * d), live, value, k, B, d, R, partial, bad);
  gradRows(decoder, latent, grad, k, err, B, d, n, bad);
}

static void residualSums(Launch& l) {
  const double* partial = l.next<double*>();
  const size_t blocks = l.u(), d = l.u(), width = 4 + 2 * d;
  const bool dead = l.u() != 0;
  double* sums = l.array<double>(SUMS + 2 * d);
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
  for (size_t i = 0; i < 2 * d; i++) sums[SUMS + i] += all(4 + i);
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
  const size_t cap = l.u(), d = l.u();
  const uint32_t* count = l.array<uint32_t>(1);
  const double* scales = l.array<double>(2);
  double* bias = l.array<double>(cap);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(encoder, cap * d), l.checkedArray(decoder, cap * d), l.checkedArray(partial, 32 * cap);
  l.expect(l.x == ceilDiv(cap, 8) && l.width == 256, "the grid is wrong");
  for (size_t q = 0; q < cap; q++) {
    bias[q] = 0;
    for (size_t part = 0; part < 32; part++) bias[q] += partial[part * cap + q];
    bool fits = std::fabs(scales[1] * bias[q]) < 1e18;
    for (size_t i = q * d; i < (q + 1) * d; i++)
      fits = fits && std::fabs(scales[1] * encoder[i]) < 1e18 && std::fabs(scales[1] * decoder[i]) < 1e18;
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

// ---- the cut of a batch ----

static const size_t SHIFT[] = {20, 10, 0}, BINS[] = {2048, 1024, 1024}, AT[] = {0, 2048, 3072};

/// What a pass has found: the bin of the cut, and how many of it are kept.
static void findBin(uint32_t* found, size_t pass, const double* hyper) {
  uint32_t need = pass == 0 ? static_cast<uint32_t>(hyper[KEPT]) : found[4096 + 2 * pass - 1], bin = 0, total = 0;
  for (size_t b = 0; b < BINS[pass]; b++) total += found[AT[pass] + b];
  need = std::min(need, total);
  for (size_t b = BINS[pass]; need > 0 && b-- > 0; need -= found[AT[pass] + b]) {
    bin = static_cast<uint32_t>(b);
    if (found[AT[pass] + b] >= need) break;
  }
  found[4096 + 2 * pass] = bin;
  found[4096 + 2 * pass + 1] = need;
}

static uint32_t bitsOf(const float* value, size_t at) {
  uint32_t bits;
  std::memcpy(&bits, value + at, 4);
  return bits;
}

static uint32_t cutOf(const uint32_t* found, size_t passes) {
  uint32_t bits = 0;
  for (size_t pass = 0; pass < passes; pass++) bits |= found[4096 + 2 * pass] << SHIFT[pass];
  return bits;
}

static void cutCount(Launch& l) {
  const float* value = l.next<float*>();
  const uint64_t count = l.next<uint64_t>();
  const double* hyper = l.array<double>(HYPERS);
  const size_t pass = l.u();
  uint32_t* found = l.array<uint32_t>(4096 + 6);
  l.checkedArray(value, count);
  l.expect(l.width == 256, "the launch is wrong");
  if (pass > 0) findBin(found, pass - 1, hyper);
  if (pass > 0 && found[4096 + 2 * pass - 1] == 0) return;
  const uint32_t cut = cutOf(found, pass);
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = bitsOf(value, i);
    if (bits == 0 || (pass > 0 && bits >> SHIFT[pass - 1] != cut >> SHIFT[pass - 1])) continue;
    found[AT[pass] + (bits >> SHIFT[pass] & (BINS[pass] - 1))]++;
  }
}

static void cutRows(Launch& l) {
  const float* value = l.next<float*>();
  const size_t B = l.u(), slots = l.u();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* found = l.array<uint32_t>(4096 + 6);
  uint32_t* above = l.array<uint32_t>(B);
  uint32_t* ties = l.array<uint32_t>(B);
  l.checkedArray(value, B * slots);
  l.expect(l.x == ceilDiv(B, 256) && l.width == 256, "the launch is wrong");
  findBin(found, 2, hyper);
  const uint32_t cut = cutOf(found, 3);
  for (size_t b = 0; b < B; b++) {
    above[b] = ties[b] = 0;
    for (size_t i = b * slots; i < (b + 1) * slots && found[4096 + 5] > 0; i++) {
      above[b] += bitsOf(value, i) > cut;
      ties[b] += bitsOf(value, i) == cut;
    }
  }
}

static void cutTotal(Launch& l) {
  const uint32_t* ties = l.next<uint32_t*>();
  const size_t B = l.u();
  uint32_t* total = l.array<uint32_t>(1);
  l.checkedArray(ties, B);
  *total = 0;
  for (size_t b = 0; b < B; b++) *total += ties[b];
}

static void cutApply(Launch& l) {
  uint32_t* latent = l.next<uint32_t*>();
  float* value = l.next<float*>();
  const size_t B = l.u(), slots = l.u(), n = l.u();
  const double* hyper = l.array<double>(HYPERS);
  const uint32_t* found = l.array<uint32_t>(4096 + 6);
  const uint32_t* above = l.array<uint32_t>(B);
  const uint32_t* ties = l.next<uint32_t*>();
  const size_t shards = l.u(), shard = l.u();
  const uint32_t* totals = l.next<uint32_t*>();
  const size_t earlier = l.u();
  uint32_t* fired = l.array<uint32_t>(n);
  uint32_t* bad = l.array<uint32_t>(1);
  float* cut = l.array<float>(1);
  l.checkedArray(latent, B * slots), l.checkedArray(value, B * slots), l.checkedArray(ties, shards * B);
  l.expect(l.x == ceilDiv(B, CUT_ROWS) && l.width == 256, "the launch is wrong");
  const uint32_t bits = cutOf(found, 3), need = found[4096 + 5];
  *cut = 0;
  if (need > 0) std::memcpy(cut, &bits, 4);
  uint32_t before = 0;
  for (size_t rank = 0; rank < earlier; rank++) before += totals[rank];
  for (size_t b = 0; b < B; b++) {
    size_t on = above[b];
    for (size_t s = 0; s < shards; s++) {
      const uint32_t equal = ties[s * B + b];
      if (s == shard && need > before) on += std::min(equal, need - before);
      before += equal;
    }
    if (on == slots && slots < n) *bad |= FULL;
    for (size_t i = 0; i < slots; i++) {
      if (i >= on) latent[b * slots + i] = NONE, value[b * slots + i] = 0;
      else if (value[b * slots + i] > hyper[FIRED_ABOVE]) fired[latent[b * slots + i]] = 1;
    }
  }
}

const Works PATHS = {
    {"cut_count", cutCount},
    {"cut_rows", cutRows},
    {"cut_total", cutTotal},
    {"cut_apply", cutApply},
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

// The kernels of src/engine/cuda/kernels as plain loops: what each takes and leaves, not how. Where a launch does not cover its work it is refused, for a card would
// leave a part of it undone.

#include "stand_in.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

namespace standin {

enum Hyper { LR, BETA1, BETA2, EPS, CLIP, EMA_DECAY, MSE_SCALE, AUX_COEF, ROWS, DEAD_AFTER, FIRED_ABOVE, HYPERS };
enum Sum { ERR2, AUX_ERR2, X2, CENTRED2, ACTIVE, DEAD, SUMS };
enum Counter { ADAM, EMA, SKIPPED };
constexpr uint32_t DEAD_PATH = 0x80000000u;

static size_t ceilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

static void rowThreads(Launch& l, size_t d) {
  const size_t wide = l.compute == 0 ? 4 : 8, groups = d % wide == 0 ? d / wide : d;
  l.expect(l.width == std::min<size_t>(256, 32 * ceilDiv(groups, 32)) && l.height == 1, "not T(d) threads");
}

// ---- load, encode ----

static void center(Launch& l) {
  const float* x = l.next<float*>();
  const float* preBias = l.next<float*>();
  void* to = l.next<void*>();
  uint32_t* bad = l.array<uint32_t>(1);
  const size_t B = l.u(), d = l.u();
  l.expect(l.x == ceilDiv(B, 8) && l.width == 256, "the grid is wrong");
  l.checkedArray(x, B * d), l.checkedArray(preBias, d);
  const Elements xc = l.matrixAt(to, B * d);
  for (size_t e = 0; e < B * d; e++) {
    xc.set(e, x[e] - preBias[e % d]);
    if (!std::isfinite(xc.get(e))) *bad = 1;
  }
}

static void deadCount(Launch& l) {
  const uint32_t* age = l.next<uint32_t*>();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* parts = l.array<uint32_t>(2 * l.x);
  const size_t n = l.u();
  l.checkedArray(age, n);
  l.expect(l.x == ceilDiv(n, 4096) && l.width == 1024, "the grid is wrong");
  std::fill(parts, parts + 2 * l.x, 0u);
  for (size_t j = 0; j < n; j++) {
    parts[j / 4096] += age[j] > hyper[DEAD_AFTER];
    parts[l.x + j / 4096] += age[j] > hyper[DEAD_AFTER] - 5 * hyper[ROWS];
  }
}

static void deadList(Launch& l) {
  const uint32_t* age = l.next<uint32_t*>();
  const double* hyper = l.array<double>(HYPERS);
  const uint32_t* parts = l.array<uint32_t>(2 * l.x);
  double* sums = l.array<double>(SUMS);
  uint32_t* list = l.next<uint32_t*>();
  uint32_t* slot = l.next<uint32_t*>();
  uint32_t* counts = l.array<uint32_t>(2);
  const size_t n = l.u();
  l.checkedArray(age, n), l.checkedArray(list, n), l.checkedArray(slot, n);
  l.expect(l.x == ceilDiv(n, 4096) && l.width == 1024, "the grid is wrong");
  uint32_t dead = 0;
  for (size_t j = 0; j < n; j++) {
    slot[j] = NONE;
    if (!(age[j] > hyper[DEAD_AFTER])) continue;
    slot[j] = dead;
    list[dead++] = static_cast<uint32_t>(j);
  }
  counts[0] = dead;
  counts[1] = 0;
  for (size_t b = 0; b < l.x; b++) counts[1] += parts[l.x + b];
  sums[DEAD] = dead;
}

static void loadBegin(Launch& l) {
  double* sums = l.next<double*>();
  uint32_t* fired = l.next<uint32_t*>();
  uint32_t* bad = l.array<uint32_t>(1);
  double* sq = l.array<double>(1);
  const size_t n = l.u(), d = l.u();
  l.expect(size_t{l.x} * l.width >= std::max(n, SUMS + 2 * d), "the grid is too small");
  l.checkedArray(sums, SUMS + 2 * d), l.checkedArray(fired, n);
  std::fill(sums, sums + SUMS + 2 * d, 0.0);
  std::fill(fired, fired + n, 0u);
  *bad = 0;
  *sq = 0;
}

static void loadRows(Launch& l) {
  const uint32_t format = l.u();
  void* raw = l.next<void*>();
  const size_t m = l.u();
  const uint32_t* rows = l.next<uint32_t*>();
  float* x = l.next<float*>();
  const size_t B = l.u(), d = l.u();
  uint32_t* bad = l.array<uint32_t>(1);
  const uint32_t normalization = l.u();
  const double factor = l.next<double>();
  uint32_t* fault = l.array<uint32_t>(2);
  l.expect(l.x == ceilDiv(B, 8) && l.width == 256, "the grid is wrong");
  l.checkedArray(rows, B), l.checkedArray(x, B * d);
  l.checkedArray(static_cast<char*>(raw), m * d * (format == 0 ? 4 : format == 1 ? 8 : 2));
  const Elements from = {format == 0 ? 0 : format == 2 ? 2 : 1, raw};
  for (size_t b = 0; b < B; b++) {
    if (rows[b] >= m) {
      fault[0] = 1, fault[1] = rows[b];
      continue;
    }
    float* to = x + b * d;
    for (size_t i = 0; i < d; i++) to[i] = format == 1 ? static_cast<float>(static_cast<double*>(raw)[rows[b] * d + i]) : from.get(rows[b] * d + i);
    double sum = 0, squares = 0, spread = 0;
    for (size_t i = 0; i < d; i++) sum += to[i], squares += static_cast<double>(to[i]) * to[i];
    const double mean = normalization >= 2 ? sum / d : 0;
    for (size_t i = 0; i < d; i++) spread += (to[i] - mean) * (to[i] - mean);
    double scale = factor;
    if (normalization == 2) scale = 1 / std::sqrt(spread);
    if (normalization == 3) scale = 1 / (std::sqrt(spread / (d - 1)) + 1e-5);
    if (normalization >= 2 && std::sqrt(spread) <= 1e-12 * std::sqrt(squares)) scale = 0;
    bool finite = std::isfinite(squares);
    for (size_t i = 0; i < d; i++) {
      if (normalization != 0 && finite) to[i] = static_cast<float>((to[i] - mean) * scale);
    }
    for (size_t i = 0; i < d; i++) finite = finite && std::isfinite(to[i]);
    if (!finite) *bad = 1;
  }
}

static void screenRows(Launch& l) {
  const uint32_t format = l.u();
  char* raw = l.next<char*>();
  const size_t first = l.u(), count = l.u(), d = l.u();
  uint8_t* flags = l.next<uint8_t*>();
  const size_t bytes = format == 0 ? 4 : format == 1 ? 8 : 2;
  l.expect(l.x == ceilDiv(count, 8) && l.width == 256, "the grid is wrong");
  l.checkedArray(raw, (first + count) * d * bytes), l.checkedArray(flags, first + count);
  for (size_t row = first; row < first + count; row++) {
    flags[row] = 0;
    for (size_t i = row * d; i < (row + 1) * d; i++) {
      const double value = format == 1 ? reinterpret_cast<double*>(raw)[i] : Elements{format == 0 ? 0 : format == 2 ? 2 : 1, raw}.get(i);
      if (!std::isfinite(value)) flags[row] = 1;
    }
  }
}

/// The top k of relu(z + bias) of one row among `latents`.
static void select(Launch& l, const Elements& z, size_t row, const float* bias, const std::vector<uint32_t>& latents, uint32_t* bad, uint32_t* latent, float* value,
                   float* grad, size_t k) {
  std::vector<std::pair<float, uint32_t>> on;
  for (const uint32_t j : latents) {
    const float v = z.get(row + j) + bias[j];
    if (!std::isfinite(v)) *bad = 1;
    if (v > 0) on.push_back({-v, j});
  }
  std::sort(on.begin(), on.end());
  for (size_t i = 0; i < k; i++) {
    latent[i] = i < on.size() ? on[i].second : NONE;
    value[i] = i < on.size() ? -on[i].first : 0;
    grad[i] = 0;
  }
  l.expect(l.shared >= 10 * 1024, "too little shared memory");
}

static void selectLive(Launch& l) {
  void* at = l.next<void*>();
  const float* bias = l.next<float*>();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* fired = l.next<uint32_t*>();
  uint32_t* bad = l.array<uint32_t>(1);
  uint32_t* latent = l.next<uint32_t*>();
  float* value = l.next<float*>();
  float* grad = l.next<float*>();
  const size_t n = l.u(), stride = l.u(), k = l.u(), capacity = l.u(), C = l.x;
  l.expect(l.width == 128 && stride % 8 == 0 && (capacity >= 4 * k || capacity == 4096) && l.shared == 10 * capacity, "the launch is wrong");
  l.checkedArray(bias, n), l.checkedArray(fired, n), l.checkedArray(latent, C * k), l.checkedArray(value, C * k), l.checkedArray(grad, C * k);
  const Elements z = l.matrixAt(at, C * stride);
  std::vector<uint32_t> all(n);
  for (size_t j = 0; j < n; j++) all[j] = static_cast<uint32_t>(j);
  for (size_t c = 0; c < C; c++) {
    select(l, z, c * stride, bias, all, bad, latent + c * k, value + c * k, grad + c * k, k);
    for (size_t i = c * k; i < (c + 1) * k; i++) {
      if (latent[i] != NONE && value[i] > hyper[FIRED_ABOVE]) fired[latent[i]] = 1;
    }
  }
}

static void selectDead(Launch& l) {
  void* at = l.next<void*>();
  const float* bias = l.next<float*>();
  const uint32_t* list = l.next<uint32_t*>();
  const uint32_t* counts = l.array<uint32_t>(2);
  uint32_t* bad = l.array<uint32_t>(1);
  uint32_t* latent = l.next<uint32_t*>();
  float* value = l.next<float*>();
  float* grad = l.next<float*>();
  const size_t stride = l.u(), k = l.u(), capacity = l.u(), C = l.x;
  l.expect(l.width == 256 && stride % 8 == 0 && (capacity >= 4 * k || capacity == 4096) && l.shared == 10 * capacity, "the launch is wrong");
  l.checkedArray(list, counts[0]), l.checkedArray(latent, C * k), l.checkedArray(value, C * k), l.checkedArray(grad, C * k);
  const Elements z = l.matrixAt(at, C * stride);
  const std::vector<uint32_t> dead(list, list + counts[0]);
  for (size_t c = 0; c < C; c++) select(l, z, c * stride, bias, dead, bad, latent + c * k, value + c * k, grad + c * k, k);
}

// ---- decode, residual, codeGrad ----

static void decodeRows(const Elements& decoder, const uint32_t* latent, const float* value, size_t k, float* err, size_t B, size_t d, size_t n) {
  std::fill(err, err + B * d, 0.0f);
  for (size_t s = 0; s < B * k; s++) {
    if (latent[s] >= n) continue;
    for (size_t i = 0; i < d; i++) err[s / k * d + i] += value[s] * decoder.get(latent[s] * d + i);
  }
}

static void residualRows(Launch& l, const float* preBias, const float* x, float* err, const Elements& err16, const float* live, const float* value, size_t k, size_t B,
                         size_t d, size_t R, double* partial, uint32_t* bad) {
  l.expect(l.x == ceilDiv(B, R), "the grid is wrong");
  rowThreads(l, d);
  std::fill(partial, partial + l.x * (4 + 2 * d), 0.0);
  for (size_t b = 0; b < B; b++) {
    double* line = partial + b / R * (4 + 2 * d);
    for (size_t i = 0; i < d; i++) {
      const size_t e = b * d + i;
      err[e] += live != nullptr ? live[e] : preBias[i] - x[e];
      err16.set(e, err[e]);
      if (!std::isfinite(err16.get(e))) *bad = 1;
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

static void gradRows(const Elements& decoder, const uint32_t* latent, float* grad, size_t k, const float* err, size_t B, size_t d, size_t n, uint32_t* bad) {
  for (size_t s = 0; s < B * k; s++) {
    float sum = 0;
    for (size_t i = 0; i < d && latent[s] < n; i++) sum += decoder.get(latent[s] * d + i) * err[s / k * d + i];
    grad[s] = sum;
    if (!std::isfinite(sum)) *bad = 1;
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
  if (!std::isfinite(all(0))) *bad = 1;
  sums[dead ? AUX_ERR2 : ERR2] += all(0);
  if (dead) return;
  sums[X2] += all(1), sums[CENTRED2] += all(2), sums[ACTIVE] += all(3);
  for (size_t i = 0; i < 2 * d; i++) sums[SUMS + i] += all(4 + i);
}

// ---- paramGrad ----

struct Entry {
  uint32_t row;
  float value, grad;
  uint32_t unused;
};

struct Gradients {
  uint64_t n, d, chunk, cap;
  uint32_t *start, *pieceAt;
  Entry* entries;
  float* pieceRows;
  void *xc16, *liveErr16, *deadErr16;
  uint32_t* deadSlot;
  float *deadEncoder, *deadDecoder;
  double* scales;
  float *formedEncoder, *formedDecoder;
};
struct Totals {
  double grad, grads, values;
};

static void listCount(Launch& l) {
  const uint32_t* live = l.next<uint32_t*>();
  const size_t k = l.u();
  const uint32_t* dead = l.next<uint32_t*>();
  const size_t auxk = l.u(), B = l.u(), rowsPerPart = l.u(), P = l.u(), n = l.u(), width = l.u();
  uint32_t* counts = l.array<uint32_t>(l.y * n);
  l.checkedArray(live, B * k);
  if (dead != nullptr) l.checkedArray(dead, B * auxk);
  l.expect(l.y == (dead != nullptr ? 2 * P : P) && size_t{l.x} * width >= n && P * rowsPerPart >= B && rowsPerPart <= 65535, "the grid is wrong");
  l.expect(width % 2 == 0 && l.shared >= 2 * width && l.width == 256, "the launch is wrong");
  std::fill(counts, counts + l.y * n, 0u);
  for (size_t s = 0; s < B * k; s++) if (live[s] != NONE) counts[s / k / rowsPerPart * n + live[s]]++;
  for (size_t s = 0; dead != nullptr && s < B * auxk; s++) if (dead[s] != NONE) counts[(P + s / auxk / rowsPerPart) * n + dead[s]]++;
}

static void listPrefix(Launch& l) {
  uint32_t* counts = l.next<uint32_t*>();
  const size_t parts = l.u(), n = l.u();
  uint32_t* totals = l.array<uint32_t>(n);
  l.checkedArray(counts, parts * n);
  l.expect(l.x == ceilDiv(n, 32) && l.width == 32 && l.height == 8, "the grid is wrong");
  for (size_t j = 0; j < n; j++) {
    totals[j] = 0;
    for (size_t p = 0; p < parts; p++) {
      const uint32_t own = counts[p * n + j];
      counts[p * n + j] = totals[j];
      totals[j] += own;
    }
  }
}

static void listScan(Launch& l) {
  const uint32_t* totals = l.next<uint32_t*>();
  const size_t n = l.u(), d = l.u(), chunk = l.u();
  const double* hyper = l.array<double>(HYPERS);
  const double* sums = l.array<double>(SUMS + 2 * d);
  uint32_t* start = l.array<uint32_t>(n + 1);
  uint32_t* pieceAt = l.array<uint32_t>(n);
  uint32_t* pieceOf = l.next<uint32_t*>();
  uint32_t* pieceCount = l.array<uint32_t>(1);
  double* scales = l.array<double>(2);
  l.checkedArray(totals, n);
  l.expect(l.x == 1 && l.width == 1024, "the grid is wrong");
  *pieceCount = 0;
  start[0] = 0;
  for (size_t j = 0; j < n; j++) {
    start[j + 1] = start[j] + totals[j];
    pieceAt[j] = NONE;
    if (totals[j] <= chunk) continue;
    pieceAt[j] = *pieceCount;
    for (size_t p = 0; p < ceilDiv(totals[j], chunk); p++) *l.checkedArray(pieceOf + (*pieceCount)++, 1) = static_cast<uint32_t>(j);
  }
  const double rows = hyper[ROWS];
  double variation = sums[ERR2];
  for (size_t i = 0; i < d; i++) variation -= sums[SUMS + i] * sums[SUMS + i] / rows;
  scales[0] = 2 * hyper[MSE_SCALE] / (rows * static_cast<double>(d));
  scales[1] = sums[DEAD] == 0 || variation <= 1e-12 * sums[X2] ? 0 : 2 * hyper[AUX_COEF] / variation;
}

static void listFill(Launch& l) {
  const uint32_t* latents[2];
  const float *values[2], *grads[2];
  size_t ks[2];
  for (int path = 0; path < 2; path++) {
    latents[path] = l.next<uint32_t*>(), values[path] = l.next<float*>(), grads[path] = l.next<float*>();
    ks[path] = l.u();
  }
  const size_t B = l.u(), rowsPerPart = l.u(), P = l.u(), n = l.u(), width = l.u();
  uint32_t* counts = l.array<uint32_t>(l.y * n);
  const uint32_t* start = l.array<uint32_t>(n + 1);
  const double* scales = l.array<double>(2);
  Entry* entries = l.array<Entry>(start[n]);
  l.expect(l.y == (latents[1] != nullptr ? 2 * P : P) && size_t{l.x} * width >= n && l.shared >= 2 * width + 8192, "the launch is wrong");
  std::vector<uint32_t> at(counts, counts + l.y * n);
  for (int path = 0; path < 2; path++) {
    if (latents[path] == nullptr) continue;
    l.checkedArray(latents[path], B * ks[path]), l.checkedArray(values[path], B * ks[path]), l.checkedArray(grads[path], B * ks[path]);
    for (size_t s = 0; s < B * ks[path]; s++) {
      const uint32_t j = latents[path][s], row = static_cast<uint32_t>(s / ks[path]);
      if (j == NONE) continue;
      const size_t part = path * P + row / rowsPerPart;
      entries[start[j] + at[part * n + j]++] = {row | (path == 1 ? DEAD_PATH : 0), static_cast<float>(scales[path] * values[path][s]),
                                                static_cast<float>(scales[path] * grads[path][s]), 0};
    }
  }
}

/// The rows of a latent's entries [first, last).
static void form(Launch& l, const Gradients& g, size_t first, size_t last, float* encoder, float* decoder) {
  const Elements x = {l.compute, g.xc16}, live = {l.compute, g.liveErr16}, dead = {l.compute, g.deadErr16};
  std::fill(encoder, encoder + g.d, 0.0f);
  std::fill(decoder, decoder + g.d, 0.0f);
  for (size_t e = first; e < last; e++) {
    const Entry& entry = g.entries[e];
    const size_t row = (entry.row & ~DEAD_PATH) * g.d;
    const Elements& err = (entry.row & DEAD_PATH) != 0 ? dead : live;
    l.expect(owned(static_cast<char*>(err.at) + row * err.bytes(), g.d * err.bytes()), "a row of err is not there");
    for (size_t i = 0; i < g.d; i++) {
      encoder[i] += entry.grad * x.get(row + i);
      decoder[i] += entry.value * err.get(row + i);
    }
  }
}

static void rowsOf(Launch& l, const Gradients& g, size_t j, float* encoder, float* decoder) {
  const uint32_t first = g.start[j], last = g.start[j + 1];
  if (last - first <= g.chunk) {
    form(l, g, first, last, encoder, decoder);
  } else {
    for (size_t i = 0; i < g.d; i++) {
      encoder[i] = decoder[i] = 0;
      for (size_t p = g.pieceAt[j]; p < g.pieceAt[j] + ceilDiv(last - first, g.chunk); p++) {
        encoder[i] += g.pieceRows[2 * p * g.d + i];
        decoder[i] += g.pieceRows[(2 * p + 1) * g.d + i];
      }
    }
  }
  if (g.deadSlot == nullptr || g.deadSlot[j] >= g.cap) return;
  for (size_t i = 0; i < g.d; i++) {
    encoder[i] += static_cast<float>(g.scales[1]) * l.checkedArray(g.deadEncoder, g.cap * g.d)[g.deadSlot[j] * g.d + i];
    decoder[i] += static_cast<float>(g.scales[1]) * l.checkedArray(g.deadDecoder, g.cap * g.d)[g.deadSlot[j] * g.d + i];
  }
}

static Totals totalsOf(const Gradients& g, size_t first, size_t last) {
  Totals t = {};
  for (size_t e = first; e < last; e++) t.grad += g.entries[e].grad, t.grads += std::fabs(g.entries[e].grad), t.values += std::fabs(g.entries[e].value);
  return t;
}

static Gradients gradients(Launch& l) {
  const Gradients g = l.next<Gradients>();
  l.checkedArray(g.start, g.n + 1), l.checkedArray(g.pieceAt, g.n), l.checkedArray(g.scales, 2), l.checkedArray(g.entries, g.start[g.n]);
  return g;
}

static void listLong(Launch& l) {
  const Gradients g = gradients(l);
  const uint32_t* pieceOf = l.next<uint32_t*>();
  const uint32_t* pieceCount = l.array<uint32_t>(1);
  Totals* totals = l.next<Totals*>();
  rowThreads(l, g.d);
  l.checkedArray(pieceOf, *pieceCount), l.checkedArray(totals, *pieceCount), l.checkedArray(g.pieceRows, *pieceCount * 2 * g.d);
  for (size_t p = 0; p < *pieceCount; p++) {
    const size_t j = pieceOf[p], first = g.start[j] + (p - g.pieceAt[j]) * g.chunk, last = std::min<size_t>(g.start[j + 1], first + g.chunk);
    form(l, g, first, last, g.pieceRows + 2 * p * g.d, g.pieceRows + (2 * p + 1) * g.d);
    totals[p] = totalsOf(g, first, last);
  }
}

static void listBias(Launch& l) {
  const Gradients g = gradients(l);
  const Elements encoder = l.matrix(g.n * g.d);
  const double* sums = l.array<double>(SUMS);
  l.next<void*>();
  const double* deadBias = l.next<double*>();
  float* latentBias = l.array<float>(g.n);
  double* partial = l.array<double>(l.x * g.d);
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.x == ceilDiv(g.n, 32) && l.width == 256, "the grid is wrong");
  std::fill(partial, partial + l.x * g.d, 0.0);
  const double input = std::max(std::sqrt(sums[CENTRED2]), 1.0), err = std::sqrt(std::max(sums[ERR2], sums[AUX_ERR2]));
  for (size_t j = 0; j < g.n; j++) {
    const Totals t = totalsOf(g, g.start[j], g.start[j + 1]);
    if (!(t.grads * input < 1e18 && t.values * err < 1e18)) *bad = 1;
    double sum = t.grad;
    if (g.deadSlot != nullptr && g.deadSlot[j] < g.cap) sum += g.scales[1] * l.checkedArray(deadBias, g.cap)[g.deadSlot[j]];
    latentBias[j] = static_cast<float>(sum);
    for (size_t i = 0; i < g.d && sum != 0; i++) partial[j / 32 * g.d + i] += sum * encoder.get(j * g.d + i);
  }
}

static void listPrebias(Launch& l) {
  const double* partial = l.next<double*>();
  const size_t blocks = l.u(), d = l.u();
  const double* sums = l.array<double>(SUMS + 2 * d);
  const double* scales = l.array<double>(2);
  float* preBias = l.array<float>(d);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(partial, blocks * d);
  l.expect(l.x == ceilDiv(d, 32) && l.width == 1024, "the grid is wrong");
  for (size_t i = 0; i < d; i++) {
    double through = 0;
    for (size_t b = 0; b < blocks; b++) through += partial[b * d + i];
    const double gradient = scales[0] * sums[SUMS + i] - through;
    if (!(std::fabs(gradient) < 1e18)) *bad = 1;
    preBias[i] = static_cast<float>(gradient);
  }
}

static void persistent(Launch& l, const Gradients& g, size_t more) {
  rowThreads(l, g.d);
  l.expect(l.x <= 2 * g.n && l.shared >= 3072 + more, "the launch is wrong");
}

static void gradientRows(Launch& l) {
  const Gradients g = gradients(l);
  persistent(l, g, 0);
  l.checkedArray(g.formedEncoder, g.n * g.d), l.checkedArray(g.formedDecoder, g.n * g.d);
  for (size_t j = 0; j < g.n; j++) rowsOf(l, g, j, g.formedEncoder + j * g.d, g.formedDecoder + j * g.d);
}

// ---- the dense dead path ----

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
  if (*count > cap) *bad = 1;
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
    if (latent[s] != NONE && *l.checkedArray(slot + latent[s], 1) < cap) to.set(s / k * cap + slot[latent[s]], number[s]);
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
    if (!std::isfinite(grad[s])) *bad = 1;
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
    for (size_t i = q * d; i < (q + 1) * d; i++) fits = fits && std::fabs(scales[1] * encoder[i]) < 1e18 && std::fabs(scales[1] * decoder[i]) < 1e18;
    if (!fits && q < *count) *bad = 1;
  }
}

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
  double* squares = l.array<double>(2 * g.n);
  const uint32_t* bad = l.array<uint32_t>(1);
  persistent(l, g, 4 * g.d);
  if (*bad != 0) return;
  l.checkedArray(g.formedEncoder, g.n * g.d), l.checkedArray(g.formedDecoder, g.n * g.d);
  std::vector<float> projected(g.d);
  for (size_t j = 0; j < g.n; j++) {
    float *e = g.formedEncoder + j * g.d, *w = g.formedDecoder + j * g.d;
    if (keep != 2) rowsOf(l, g, j, e, w);
    const float along = static_cast<float>(dot(decoder + j * g.d, w, g.d));
    for (size_t i = 0; i < g.d; i++) projected[i] = w[i] - along * decoder[j * g.d + i];
    squares[j] = dot(e, e, g.d);
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
  l.checkedArray(squares, 2 * n), l.checkedArray(latentBias, n), l.checkedArray(preBias, d);
  if (*bad != 0) return;
  *sq = dot(latentBias, latentBias, n) + dot(preBias, preBias, d);
  for (size_t j = 0; j < 2 * n; j++) *sq += squares[j];
  if (!std::isfinite(*sq)) *bad = 1;
}

struct Numbers {
  float factor, beta1, beta2, rest1, rest2, rate, root, eps, emaRest;
  uint32_t go, t, averages;
  double rows;
};
struct Weights {
  float *encoder, *latentBias, *decoder, *preBias;
};

static void updateBegin(Launch& l) {
  const double* hyper = l.array<double>(HYPERS);
  const double* sq = l.array<double>(1);
  const uint32_t* bad = l.array<uint32_t>(1);
  double* counters = l.array<double>(3);
  const bool hasEma = l.u() != 0;
  Numbers* numbers = l.array<Numbers>(1);
  Numbers o = {};
  if (*bad != 0) {
    counters[SKIPPED]++;
    *numbers = o;
    return;
  }
  const double t = ++counters[ADAM], clip = hyper[CLIP];
  const auto f = [](double x) { return static_cast<float>(x); };
  o.factor = f(clip > 0 ? clip / std::max(std::sqrt(*sq), clip) : 1.0);
  o.beta1 = f(hyper[BETA1]), o.beta2 = f(hyper[BETA2]), o.rest1 = f(1 - hyper[BETA1]), o.rest2 = f(1 - hyper[BETA2]);
  o.rate = f(hyper[LR] / (1 - std::pow(hyper[BETA1], t))), o.root = f(1 / std::sqrt(1 - std::pow(hyper[BETA2], t)));
  o.eps = f(hyper[EPS]), o.emaRest = f(1 - hyper[EMA_DECAY]);
  o.go = 1, o.t = static_cast<uint32_t>(t), o.averages = hasEma && hyper[EMA_DECAY] > 0, o.rows = hyper[ROWS];
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
  l.checkedArray(w.encoder, n * d), l.checkedArray(w.decoder, n * d), l.checkedArray(w.latentBias, n), l.checkedArray(w.preBias, d);
}

static void updateRows(Launch& l) {
  const Gradients g = gradients(l);
  const bool formed = l.u() != 0;
  const Weights p = l.next<Weights>(), m = l.next<Weights>(), v = l.next<Weights>(), ema = l.next<Weights>();
  const size_t d = g.d;
  const Elements encoder16 = l.matrix(g.n * d), decoder16 = l.matrix(g.n * d);
  const Numbers o = *l.array<Numbers>(1);
  const size_t wide = l.compute == 0 ? 4 : 8;
  persistent(l, g, d % wide == 0 && d <= l.width * wide ? 24 * wide * l.width : 4 * d);
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
    float* row = p.decoder + j * d;
    const float along = static_cast<float>(dot(row, w.data(), d));
    for (size_t i = 0; i < d; i++) {
      const size_t at = j * d + i;
      adam(o, p.encoder[at], m.encoder[at], v.encoder[at], e[i], o.averages ? ema.encoder + at : nullptr);
      adam(o, row[i], m.decoder[at], v.decoder[at], w[i] - along * row[i], nullptr);
    }
    double length = std::sqrt(dot(row, row, d));
    if (length < 1e-12) {
      for (size_t i = 0; i < d; i++) {
        const uint32_t drawn = fmix32(fmix32(fmix32(static_cast<uint32_t>(j) ^ 0x9e3779b9u) + o.t) + static_cast<uint32_t>(i));
        row[i] = static_cast<float>(drawn / 2147483648.0 - 1);
        m.decoder[j * d + i] = v.decoder[j * d + i] = 0;
      }
      length = std::max(std::sqrt(dot(row, row, d)), 1e-12);
    }
    for (size_t i = 0; i < d; i++) {
      row[i] = static_cast<float>(row[i] / length);
      if (o.averages) ema.decoder[j * d + i] += o.emaRest * (row[i] - ema.decoder[j * d + i]);
      encoder16.set(j * d + i, p.encoder[j * d + i]);
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
    adam(o, p.latentBias[j], m.latentBias[j], v.latentBias[j], latentBias[j], o.averages ? ema.latentBias + j : nullptr);
    age[j] = fired[j] != 0 ? 0 : static_cast<uint32_t>(std::min(age[j] + o.rows, 4294967295.0));
  }
  for (size_t i = 0; i < d; i++) adam(o, p.preBias[i], m.preBias[i], v.preBias[i], preBias[i], o.averages ? ema.preBias + i : nullptr);
}

Work workOf(const char* name) {
  static const std::map<std::string, Work> all = {
      {"center", center},           {"dead_count", deadCount},      {"dead_list", deadList},         {"load_begin", loadBegin},       {"load_rows", loadRows},           {"screen_rows", screenRows},
      {"select_live", selectLive},  {"select_dead", selectDead},    {"decode", decode},              {"residual", residual},          {"code_grad", codeGrad},
      {"reconstruct", reconstruct}, {"residual_sums", residualSums}, {"list_count", listCount},      {"list_prefix", listPrefix},     {"list_scan", listScan},
      {"list_fill", listFill},      {"list_long", listLong},        {"list_bias", listBias},         {"list_prebias", listPrebias},   {"gradient_rows", gradientRows},
      {"dense_rows", denseRows},    {"dense_codes", denseCodes},    {"dense_pick", densePick},       {"dense_bias", denseBias},       {"dense_check", denseCheck},
      {"norm_rows", normRows},      {"norm_sum", normSum},          {"update_begin", updateBegin},   {"update_rows", updateRows},     {"update_small", updateSmall},
  };
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second;
}

}  // namespace standin

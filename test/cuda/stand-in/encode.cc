// Load, encode, on the stand-in.

#include "kernels.h"

namespace standin {

// ---- load, encode ----

static void center(Launch& l) {
  const float* x = l.next<float*>();
  const float* preBias = l.next<float*>();
  void* to = l.next<void*>();
  uint32_t* bad = l.array<uint32_t>(1);
  float* largest = l.next<float*>();
  const size_t B = l.u(), d = l.u();
  l.expect(l.x == ceilDiv(B, 8) && l.width == 256, "the grid is wrong");
  l.checkedArray(x, B * d), l.checkedArray(preBias, d);
  for (size_t e = 0; largest != nullptr && e < B * d; e++) *largest = std::max(*largest, std::fabs(x[e]));
  const Elements xc = l.matrixAt(to, B * d);
  for (size_t e = 0; e < B * d; e++) {
    xc.set(e, x[e] - preBias[e % d]);
    if (!std::isfinite(xc.get(e))) *bad |= 1;
  }
}

static void inputColumns(Launch& l) {
  const float* x = l.next<float*>();
  const double* hyper = l.array<double>(HYPERS);
  const size_t B = l.u(), d = l.u();
  double* partial = l.array<double>(COLUMN_PARTS * d);
  l.checkedArray(x, B * d);
  l.expect(l.x == ceilDiv(d, 32) && l.y == COLUMN_PARTS && l.width == 256, "the grid is wrong");
  if (hyper[DEAD_PENALTY] == 0) return;
  std::fill(partial, partial + COLUMN_PARTS * d, 0.0);
  for (size_t e = 0; e < B * d; e++) partial[e / d % COLUMN_PARTS * d + e % d] += x[e];
}

static void inputTotal(Launch& l) {
  const double* partial = l.next<double*>();
  const double* hyper = l.array<double>(HYPERS);
  const size_t d = l.u();
  double* columns = l.array<double>(d);
  l.checkedArray(partial, COLUMN_PARTS * d);
  l.expect(l.x == ceilDiv(d, 256) && l.width == 256, "the grid is wrong");
  if (hyper[DEAD_PENALTY] == 0) return;
  std::fill(columns, columns + d, 0.0);
  for (size_t e = 0; e < COLUMN_PARTS * d; e++) columns[e % d] += partial[e];
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
  const size_t length = l.u();
  uint32_t* fired = l.next<uint32_t*>();
  const size_t n = l.u();
  uint32_t* bad = l.array<uint32_t>(1);
  double* sq = l.array<double>(1);
  float* cut = l.array<float>(1);
  double* active = l.array<double>(1);
  l.expect(size_t{l.x} * l.width >= std::max(n, length), "the grid is too small");
  l.checkedArray(sums, length), l.checkedArray(fired, n);
  if ((*bad & FULL) != 0) return;
  std::fill(sums, sums + length, 0.0);
  std::fill(fired, fired + n, 0u);
  *bad = 0;
  *sq = 0;
  *cut = 0;
  *active = 0;
}

static void loadRows(Launch& l) {
  const uint32_t format = l.u();
  void* raw = l.next<void*>();
  const size_t m = l.u(), width = l.u(), column = l.u();
  const uint32_t* rows = l.next<uint32_t*>();
  float* x = l.next<float*>();
  const size_t B = l.u(), d = l.u();
  uint32_t* bad = l.array<uint32_t>(1);
  const uint32_t normalization = l.u();
  const double factor = l.next<double>();
  uint32_t* fault = l.array<uint32_t>(2);
  l.expect(l.x == ceilDiv(B, 8) && l.width == 256, "the grid is wrong");
  l.checkedArray(rows, B), l.checkedArray(x, B * d);
  l.checkedArray(static_cast<char*>(raw), m * width * (format == 0 ? 4 : format == 1 ? 8 : 2));
  l.expect(column + d <= width, "there are no such columns");
  if ((*bad & FULL) != 0) return;
  const Elements from = {format == 0 ? 0 : format == 2 ? 2 : 1, raw};
  for (size_t b = 0; b < B; b++) {
    if (rows[b] >= m) {
      fault[0] = 1, fault[1] = rows[b];
      continue;
    }
    float* to = x + b * d;
    for (size_t i = 0; i < d; i++) {
      const size_t e = rows[b] * width + column + i;
      to[i] = format == 1 ? static_cast<float>(static_cast<double*>(raw)[e]) : from.get(e);
    }
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
    if (!finite) *bad |= 1;
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
      const double value = format == 1 ? reinterpret_cast<double*>(raw)[i]
                                       : Elements{format == 0   ? 0
                                                  : format == 2 ? 2
                                                                : 1,
                                                  raw}
                                             .get(i);
      if (!std::isfinite(value)) flags[row] = 1;
    }
  }
}

/// The top `most` of relu(z + bias) of one row among `latents`, in k slots.
static void select(Launch& l, const Elements& z, size_t row, const float* bias, const std::vector<uint32_t>& latents,
                   uint32_t* bad, uint32_t* latent, float* value, float* grad, size_t k, size_t most) {
  std::vector<std::pair<float, uint32_t>> on;
  for (const uint32_t j : latents) {
    const float v = z.get(row + j) + bias[j];
    if (!std::isfinite(v)) *bad |= 1;
    if (v > 0) on.push_back({-v, j});
  }
  std::partial_sort(on.begin(), on.begin() + static_cast<std::ptrdiff_t>(std::min(most, on.size())), on.end());
  for (size_t i = 0; i < k; i++) {
    const bool is = i < std::min(most, on.size());
    latent[i] = is ? on[i].second : NONE;
    value[i] = is ? -on[i].first : 0;
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
  const size_t n = l.u(), stride = l.u(), k = l.u(), annealed = l.u(), capacity = l.u(), C = l.x;
  l.expect(l.width == 128 && stride % 8 == 0 && (capacity >= 4 * k || (capacity >= 4096 && capacity >= 2 * k)) &&
               l.shared == 10 * capacity,
           "the launch is wrong");
  const size_t most = annealed != 0 ? std::min(k, static_cast<size_t>(hyper[ROW_K])) : k;
  l.checkedArray(bias, n), l.checkedArray(fired, n), l.checkedArray(latent, C * k), l.checkedArray(value, C * k),
      l.checkedArray(grad, C * k);
  const Elements z = l.matrixAt(at, C * stride);
  std::vector<uint32_t> all(n);
  for (size_t j = 0; j < n; j++) all[j] = static_cast<uint32_t>(j);
  for (size_t c = 0; c < C; c++) {
    select(l, z, c * stride, bias, all, bad, latent + c * k, value + c * k, grad + c * k, k, most);
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
  l.expect(l.width == 256 && stride % 8 == 0 && (capacity >= 4 * k || capacity == 4096) && l.shared == 10 * capacity,
           "the launch is wrong");
  l.checkedArray(list, counts[0]), l.checkedArray(latent, C * k), l.checkedArray(value, C * k),
      l.checkedArray(grad, C * k);
  const Elements z = l.matrixAt(at, C * stride);
  const std::vector<uint32_t> dead(list, list + counts[0]);
  for (size_t c = 0; c < C; c++)
    select(l, z, c * stride, bias, dead, bad, latent + c * k, value + c * k, grad + c * k, k, k);
}

void putCodes(const Selected& to, size_t row, const std::vector<std::pair<uint32_t, float>>& codes, uint32_t* bad) {
  if (codes.size() > to.capacity) *bad |= FULL;
  for (size_t slot = 0; slot < to.capacity; slot++) {
    const size_t at = row * to.capacity + slot;
    to.latent[at] = slot < codes.size() ? codes[slot].first : NONE;
    to.value[at] = slot < codes.size() ? codes[slot].second : 0;
    to.grad[at] = 0;
  }
}

/// Those of a row that are on, as `on` says.
template <class On>
static std::vector<std::pair<uint32_t, float>> thoseOn(const std::vector<float>& pre, const On& on) {
  std::vector<std::pair<uint32_t, float>> codes;
  for (size_t j = 0; j < pre.size(); j++)
    if (on(j)) codes.push_back({static_cast<uint32_t>(j), pre[j]});
  return codes;
}

static void selectThreshold(Launch& l) {
  void* at = l.next<void*>();
  const float* bias = l.next<float*>();
  const float* threshold = l.next<float*>();
  const size_t thresholds = l.u();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* fired = l.next<uint32_t*>();
  uint32_t* bad = l.array<uint32_t>(1);
  const size_t n = l.u(), stride = l.u(), C = l.u();
  const Selected live = l.next<Selected>(), band = l.next<Selected>();
  uint32_t* counts = l.array<uint32_t>(C);
  l.expect(l.x == ceilDiv(C, THRESHOLD_ROWS) && l.width == 256 && stride % 8 == 0, "the launch is wrong");
  l.checkedArray(bias, n), l.checkedArray(threshold, thresholds), l.checkedArray(fired, n);
  l.expect(thresholds == 1 || thresholds == n, "thresholds are missing");
  for (const Selected& codes : {live, band}) {
    if (codes.latent == nullptr) continue;
    l.checkedArray(codes.latent, C * codes.capacity), l.checkedArray(codes.value, C * codes.capacity),
        l.checkedArray(codes.grad, C * codes.capacity);
  }
  const Elements z = l.matrixAt(at, C * stride);
  std::vector<float> pre(n);
  for (size_t c = 0; c < C; c++) {
    for (size_t j = 0; j < n; j++) {
      pre[j] = z.get(c * stride + j) + bias[j];
      if (!std::isfinite(pre[j])) *bad |= 1;
    }
    const auto of = [&](size_t j) { return threshold[thresholds == 1 ? 0 : j]; };
    if (live.latent != nullptr) {
      const auto on = [&](size_t j) { return pre[j] > 0 && pre[j] > of(j); };
      const auto codes = thoseOn(pre, on);
      putCodes(live, c, codes, bad);
      counts[c] = static_cast<uint32_t>(codes.size());
      for (size_t j = 0; j < n; j++)
        if (on(j) && pre[j] > hyper[FIRED_ABOVE]) fired[j] = 1;
    }
    if (band.latent == nullptr) continue;
    const auto near = [&](size_t j) { return std::fabs(pre[j] - of(j)) < hyper[BANDWIDTH] / 2; };
    putCodes(band, c, thoseOn(pre, near), bad);
  }
}

static void selectTotal(Launch& l) {
  const uint32_t* counts = l.next<uint32_t*>();
  const size_t B = l.u();
  double* active = l.array<double>(1);
  l.checkedArray(counts, B);
  l.expect(l.x == 1 && l.width == 1024, "the grid is wrong");
  for (size_t b = 0; b < B; b++) *active += counts[b];
}

const Works ENCODE = {
    {"input_columns", inputColumns},
    {"input_total", inputTotal},
    {"select_threshold", selectThreshold},
    {"select_total", selectTotal},
    {"center", center},
    {"dead_count", deadCount},
    {"dead_list", deadList},
    {"load_begin", loadBegin},
    {"load_rows", loadRows},
    {"screen_rows", screenRows},
    {"select_live", selectLive},
    {"select_dead", selectDead},
};

}  // namespace standin

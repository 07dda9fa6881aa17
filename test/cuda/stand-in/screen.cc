// The screen of encode, on the stand-in: values are those of float32 for all latents, and each must
// be between the ends that the screen gives it.

#include "kernels.h"

namespace standin {

/// Numbers that are common to all latents: screen.cu, ScreenCommon.
constexpr size_t USUAL = 2, HEAVY = 4, COMMON = HEAVY + 1 + MOST_HEAVY;

struct Pair {
  float x, y;
};

static double scaleTo(double norm, int to) {
  if (!(norm > 0)) return 1;
  int exponent;
  const double part = std::frexp(norm, &exponent);
  return std::ldexp(1.0, to - exponent + (part == 0.5 ? 1 : 0));
}

static float up(double x) {
  const float near = static_cast<float>(x);
  return near < x ? std::nextafter(near, INFINITY) : near;
}

static double normOf(const float* row, size_t d) {
  double sum = 0;
  for (size_t i = 0; i < d; i++) sum += static_cast<double>(row[i]) * row[i];
  return std::sqrt(sum);
}

/// -> row times scale in f16; the norm of what rounding took.
static double round(const float* row, size_t d, double scale, const Elements& to, size_t at) {
  double lost = 0;
  for (size_t i = 0; i < d; i++) {
    to.set(at + i, static_cast<float>(row[i] * scale));
    const double error = row[i] * scale - to.get(at + i);
    lost += error * error;
  }
  return std::sqrt(lost) / scale;
}

static void screenNorms(Launch& l) {
  const float* encoder = l.next<float*>();
  const size_t n = l.u(), d = l.u();
  float* norm = l.array<float>(n);
  uint32_t* common = l.array<uint32_t>(COMMON);
  l.checkedArray(encoder, n * d);
  l.expect(l.x == ceilDiv(n, 8) && l.width == 256 && common[0] == 0 && common[1] == 0, "the launch is wrong");
  float largest = 0;
  for (size_t j = 0; j < n; j++) largest = std::max(largest, norm[j] = up(normOf(encoder + j * d, d)));
  std::memcpy(common, &largest, 4);
}

static void screenEncoder(Launch& l) {
  const float* encoder = l.next<float*>();
  const size_t n = l.u(), d = l.u();
  void* at = l.next<void*>();
  float* weight = l.array<float>(n);
  float* common = l.array<float>(2);
  l.checkedArray(encoder, n * d);
  const Elements to = {2, at};
  to.check(l.name, n * d);
  l.expect(l.x == ceilDiv(n, 8) && l.width == 256, "the grid is wrong");
  for (size_t j = 0; j < n; j++) {
    const double lost = round(encoder + j * d, d, scaleTo(common[0], 8), to, j * d);
    weight[j] = std::max(weight[j], common[0] / 1024);
    if (weight[j] > 0) common[1] = std::max(common[1], up(lost / weight[j]));
  }
}

static void screenCommon(Launch& l) {
  const float* weight = l.next<float*>();
  const float* bias = l.next<float*>();
  const size_t n = l.u();
  uint32_t* common = l.array<uint32_t>(COMMON);
  l.checkedArray(weight, n), l.checkedArray(bias, n);
  l.expect(l.x == 1 && l.width == 1024, "the launch is wrong");
  std::vector<float> sorted(weight, weight + n);
  std::sort(sorted.rbegin(), sorted.rend());
  // The heaviest, but for those that are as heavy as the next.
  const float usual = n > MOST_HEAVY ? sorted[MOST_HEAVY] : -1;
  common[HEAVY] = 0;
  for (size_t j = 0; j < n; j++)
    if (weight[j] > usual) common[HEAVY + 1 + common[HEAVY]++] = static_cast<uint32_t>(j);
  const float above = std::nextafter(std::max(usual, 0.0f), INFINITY);
  std::memcpy(common + USUAL, &above, 4);
}

static void screenColumns(Launch& l) {
  const float* bias = l.next<float*>();
  const float* weight = l.next<float*>();
  l.array<uint32_t>(COMMON);
  const float* threshold = l.next<float*>();
  const size_t thresholds = l.u();
  const double* hyper = l.array<double>(HYPERS);
  const bool isLive = l.u() != 0, isBand = l.u() != 0;
  const size_t n = l.u(), width = l.u();
  Pair* columns = l.array<Pair>(width);
  l.array<float>(width);
  float* limit = l.next<float*>();
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(bias, n), l.checkedArray(weight, n);
  l.expect(l.x == ceilDiv(width, 256) && l.width == 256 && width % 8 == 0 && width >= n, "the launch is wrong");
  if (threshold != nullptr) {
    l.expect((thresholds == 1 || thresholds == n) && (isLive || isBand), "thresholds are missing");
    l.checkedArray(threshold, thresholds), l.checkedArray(limit, width);
  }
  for (size_t j = 0; j < width; j++) {
    columns[j] = j < n ? Pair{bias[j], weight[j]} : Pair{-1, 0};
    if (!std::isfinite(columns[j].x)) *bad |= 1;
    if (threshold == nullptr) continue;
    const float of = j < n ? threshold[thresholds == 1 ? 0 : j] : 0;
    limit[j] = INFINITY;
    if (j < n && isLive) limit[j] = std::max(of, 0.0f);
    if (j < n && isBand) limit[j] = std::min(limit[j], of - static_cast<float>(hyper[BANDWIDTH]));
  }
}

static void screenInputs(Launch& l) {
  const float* xc = l.next<float*>();
  const size_t B = l.u(), d = l.u();
  const float* common = l.array<float>(2);
  void* at = l.next<void*>();
  Pair* ends = l.array<Pair>(B);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(xc, B * d);
  const Elements to = {2, at};
  to.check(l.name, B * d);
  l.expect(l.x == ceilDiv(B, 8) && l.width == 256, "the grid is wrong");
  for (size_t b = 0; b < B; b++) {
    const double length = normOf(xc + b * d, d), scale = scaleTo(length, 7);
    if (!std::isfinite(length) || !std::isfinite(common[0])) {
      *bad |= 1;
      ends[b] = {0, 0};
      continue;
    }
    const double lost = round(xc + b * d, d, scale, to, b * d);
    const double apart = lost + common[1] * (length + lost) + (2.0 * d + 32) / 8388608 * length;
    ends[b] = {static_cast<float>(1 / (scale * scaleTo(common[0], 8))), up(apart * (1 + 1e-3))};
  }
}

/// What the kernels that select take of a chunk; the values of a row in f32.
struct Screened {
  const uint16_t* z;
  size_t ldz, n, d;
  const Pair *columns, *ends;
  const float *xc, *encoder, *bias;

  void check(Launch& l, size_t C) const {
    l.checkedArray(z, C * ldz), l.checkedArray(columns, ldz), l.checkedArray(ends, C), l.checkedArray(xc, C * d);
    l.checkedArray(encoder, n * d), l.checkedArray(bias, n);
    l.expect(ldz % 8 == 0 && ldz >= n, "rows of z do not begin on 16 bytes");
  }
  float high(size_t c, size_t j) const { return between(c, j, 1); }
  float between(size_t c, size_t j, float side) const {
    const Elements at = {2, const_cast<uint16_t*>(z)};
    const float scaled = at.get(c * ldz + j) * ends[c].x;
    const float apart = ends[c].y * columns[j].y + std::fabs(scaled) * (1.0f / 2048 + 1.0f / 262144) +
                        std::fabs(columns[j].x) / 1048576;
    return scaled + columns[j].x + side * apart;
  }
  float exact(size_t c, size_t j) const {
    float sum = 0;
    for (size_t i = 0; i < d; i++) sum = std::fma(encoder[j * d + i], xc[c * d + i], sum);
    return sum + bias[j];
  }
};

static size_t slotsOf(Launch& l, size_t k, size_t annealed, const double* hyper, size_t capacity, size_t room) {
  l.expect(l.width == 128 && (capacity >= 4 * k || (capacity >= 4096 && capacity >= 2 * k)) && room <= capacity / 2,
           "the launch is wrong");
  return annealed != 0 ? std::min(k, static_cast<size_t>(hyper[ROW_K])) : k;
}

/// -> candidates by their ends, in any order.
static void screenHighest(Launch& l) {
  Screened s{};
  s.z = l.next<uint16_t*>();
  s.ldz = l.u();
  s.columns = l.next<Pair*>();
  l.array<float>(s.ldz);
  s.ends = l.next<Pair*>();
  l.array<uint32_t>(COMMON);
  s.n = l.u();
  const double* hyper = l.array<double>(HYPERS);
  const size_t k = l.u(), annealed = l.u(), capacity = l.u(), C = l.x;
  uint32_t* found = l.next<uint32_t*>();
  const size_t room = l.u(), wanted = std::max<size_t>(1, slotsOf(l, k, annealed, hyper, capacity, room));
  uint32_t* counts = l.array<uint32_t>(C);
  l.checkedArray(found, C * room), l.checkedArray(s.z, C * s.ldz), l.checkedArray(s.columns, s.ldz);
  l.checkedArray(s.ends, C);
  l.expect(l.shared == 10 * capacity && s.ldz % 8 == 0 && s.ldz >= s.n, "the launch is wrong");
  for (size_t c = 0; c < C; c++) {
    std::vector<float> lows;
    for (size_t j = 0; j < s.n; j++) lows.push_back(s.between(c, j, -1));
    std::sort(lows.rbegin(), lows.rend());
    const float bound = std::max(0.0f, lows[std::min(wanted, s.n) - 1]);
    size_t count = 0;
    for (size_t j = 0; j < s.n; j++) {
      if (!(s.high(c, j) > 0 && s.high(c, j) >= bound)) continue;
      if (count < room) found[c * room + count] = static_cast<uint32_t>(j);
      count++;
    }
    counts[c] = count > room ? NONE : static_cast<uint32_t>(count);
  }
}

static void scoreHighest(Launch& l) {
  Screened s{};
  s.z = l.next<uint16_t*>();
  s.ldz = l.u();
  s.columns = l.next<Pair*>();
  s.ends = l.next<Pair*>();
  const uint32_t* found = l.next<uint32_t*>();
  const size_t room = l.u();
  const uint32_t* counts = l.array<uint32_t>(l.x);
  s.xc = l.next<float*>();
  s.encoder = l.next<float*>();
  s.bias = l.next<float*>();
  s.n = l.u();
  s.d = l.u();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* fired = l.array<uint32_t>(s.n);
  uint32_t* latent = l.next<uint32_t*>();
  float* value = l.next<float*>();
  float* grad = l.next<float*>();
  const size_t k = l.u(), annealed = l.u(), capacity = l.u(), C = l.x;
  const size_t most = slotsOf(l, k, annealed, hyper, capacity, room);
  l.expect(l.shared == 8 * capacity, "the launch is wrong");
  s.check(l, C);
  l.checkedArray(found, C * room);
  l.checkedArray(latent, C * k), l.checkedArray(value, C * k), l.checkedArray(grad, C * k);
  for (size_t c = 0; c < C; c++) {
    std::vector<std::pair<float, uint32_t>> on;
    for (size_t j = 0; j < s.n; j++) {
      const float v = s.exact(c, j);
      l.expect(!std::isfinite(v) || (s.between(c, j, -1) <= v && v <= s.high(c, j)), "a value is not between its ends");
      const uint32_t* list = found + c * room;
      const bool isFound = counts[c] == NONE || std::find(list, list + counts[c], j) != list + counts[c];
      if (v > 0 && isFound) on.push_back({-v, static_cast<uint32_t>(j)});
    }
    std::sort(on.begin(), on.end());
    for (size_t i = 0; i < k; i++) {
      const bool is = i < std::min(most, on.size());
      latent[c * k + i] = is ? on[i].second : NONE;
      value[c * k + i] = is ? -on[i].first : 0;
      grad[c * k + i] = 0;
      if (is && value[c * k + i] > hyper[FIRED_ABOVE]) fired[on[i].second] = 1;
    }
  }
}

static void screenThreshold(Launch& l) {
  Screened s{};
  s.z = l.next<uint16_t*>();
  s.ldz = l.u();
  s.columns = l.next<Pair*>();
  s.ends = l.next<Pair*>();
  const float* limit = l.next<float*>();
  s.n = l.u();
  const size_t C = l.u();
  uint32_t* found = l.next<uint32_t*>();
  const size_t room = l.u();
  uint32_t* counts = l.array<uint32_t>(C);
  uint32_t* bad = l.array<uint32_t>(1);
  l.checkedArray(found, C * room), l.checkedArray(limit, s.ldz), l.checkedArray(s.z, C * s.ldz);
  l.checkedArray(s.columns, s.ldz), l.checkedArray(s.ends, C);
  l.expect(l.x == ceilDiv(C, THRESHOLD_ROWS) && l.width == 256, "the grid is wrong");
  for (size_t c = 0; c < C; c++) {
    counts[c] = 0;
    for (size_t j = 0; j < s.n; j++) {
      if (!(s.high(c, j) >= limit[j])) continue;
      if (counts[c] < room) found[c * room + counts[c]] = static_cast<uint32_t>(j);
      counts[c]++;
    }
    if (counts[c] > room) *bad |= FULL;
  }
}

static void scoreThreshold(Launch& l) {
  Screened s{};
  const uint32_t* found = l.next<uint32_t*>();
  const size_t room = l.u(), C = l.x;
  s.xc = l.next<float*>();
  s.encoder = l.next<float*>();
  s.bias = l.next<float*>();
  s.d = l.u();
  const float* threshold = l.next<float*>();
  const size_t thresholds = l.u();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* fired = l.next<uint32_t*>();
  const Selected live = l.next<Selected>(), band = l.next<Selected>();
  uint32_t* counts = l.array<uint32_t>(C);
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.width == 128, "the grid is wrong");
  l.checkedArray(s.xc, C * s.d), l.checkedArray(found, C * room);
  for (const Selected& codes : {live, band}) {
    if (codes.latent == nullptr) continue;
    l.checkedArray(codes.latent, C * codes.capacity), l.checkedArray(codes.value, C * codes.capacity),
        l.checkedArray(codes.grad, C * codes.capacity);
  }
  for (size_t c = 0; c < C; c++) {
    std::vector<std::pair<uint32_t, float>> isLive, isBand;
    for (size_t i = c * room; i < c * room + std::min<size_t>(room, counts[c]); i++) {
      const uint32_t j = found[i];
      const float v = s.exact(c, j), of = threshold[thresholds == 1 ? 0 : j];
      if (v > 0 && v > of) isLive.push_back({j, v});
      if (std::fabs(v - of) < hyper[BANDWIDTH] / 2) isBand.push_back({j, v});
    }
    if (live.latent != nullptr) {
      putCodes(live, c, isLive, bad);
      counts[c] = static_cast<uint32_t>(isLive.size());
      for (const auto& [j, v] : isLive)
        if (v > hyper[FIRED_ABOVE]) fired[j] = 1;
    }
    if (band.latent != nullptr) putCodes(band, c, isBand, bad);
  }
}

const Works SCREEN = {
    {"screen_norms", screenNorms},         {"screen_encoder", screenEncoder}, {"screen_common", screenCommon},
    {"screen_columns", screenColumns},     {"screen_inputs", screenInputs},   {"screen_highest", screenHighest},
    {"score_highest", scoreHighest},       {"screen_threshold", screenThreshold},
    {"score_threshold", scoreThreshold},
};

}  // namespace standin

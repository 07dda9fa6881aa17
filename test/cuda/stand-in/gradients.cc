// ParamGrad, on the stand-in.

#include "kernels.h"

namespace standin {

// ---- paramGrad ----

static void listCount(Launch& l) {
  const uint32_t* live = l.next<uint32_t*>();
  const size_t k = l.u();
  const uint32_t* dead = l.next<uint32_t*>();
  const size_t auxk = l.u(), B = l.u(), rowsPerPart = l.u(), P = l.u(), n = l.u(), width = l.u();
  const Share listed = l.next<Share>();
  uint32_t* counts = l.array<uint32_t>(l.y * n);
  l.checkedArray(live, B * k);
  if (dead != nullptr) l.checkedArray(dead, B * auxk);
  l.expect(
      l.y == (dead != nullptr ? 2 * P : P) && size_t{l.x} * width >= n && P * rowsPerPart >= B && rowsPerPart <= 65535,
      "the grid is wrong");
  l.expect(width % 2 == 0 && l.shared >= 2 * width && l.width == 1024, "the launch is wrong");
  std::fill(counts, counts + l.y * n, 0u);
  for (size_t s = 0; s < B * k; s++)
    if (live[s] != NONE && has(listed, live[s])) counts[s / k / rowsPerPart * n + live[s]]++;
  for (size_t s = 0; dead != nullptr && s < B * auxk; s++)
    if (dead[s] != NONE && has(listed, dead[s])) counts[(P + s / auxk / rowsPerPart) * n + dead[s]]++;
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
  const double* wideSums = l.next<double*>();
  uint32_t* start = l.array<uint32_t>(n + 1);
  uint32_t* pieceAt = l.array<uint32_t>(n);
  uint32_t* pieceOf = l.next<uint32_t*>();
  uint32_t* pieceCount = l.array<uint32_t>(1);
  double* scales = l.array<double>(4);
  l.checkedArray(totals, n);
  l.expect(l.x == 1 && l.width == 1024, "the grid is wrong");
  *pieceCount = 0;
  start[0] = 0;
  for (size_t j = 0; j < n; j++) {
    start[j + 1] = start[j] + totals[j];
    pieceAt[j] = NONE;
    if (totals[j] <= chunk) continue;
    pieceAt[j] = *pieceCount;
    for (size_t p = 0; p < ceilDiv(totals[j], chunk); p++)
      *l.checkedArray(pieceOf + (*pieceCount)++, 1) = static_cast<uint32_t>(j);
  }
  const double rows = hyper[ROWS];
  double variation = sums[ERR2];
  for (size_t i = 0; i < d; i++) variation -= sums[SUMS + i] * sums[SUMS + i] / rows;
  scales[0] = 2 * hyper[MSE_SCALE] / (rows * static_cast<double>(d));
  scales[2] = hyper[DEAD_PENALTY] / rows;
  scales[3] = hyper[DEAD_AFTER];
  if (wideSums != nullptr) l.checkedArray(wideSums, SUMS + 2 * d);
  const bool off = sums[DEAD] == 0 || variation <= 1e-12 * sums[X2];
  scales[1] = wideSums != nullptr ? hyper[WIDE_COEF] * scales[0] : off ? 0 : 2 * hyper[AUX_COEF] / variation;
}

static double penaltySlope(const double* hyper, const float* sparsity, double f) {
  if (hyper[PENALTY] != PENALTY_TANH) return 0;
  const double bent = std::tanh(hyper[TANH_SCALE] * f);
  return hyper[SPARSITY] * *sparsity * hyper[TANH_SCALE] / hyper[ROWS] * (1 - bent * bent);
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
  const Share listed = l.next<Share>();
  uint32_t* counts = l.array<uint32_t>(l.y * n);
  const uint32_t* start = l.array<uint32_t>(n + 1);
  const double* scales = l.array<double>(4);
  const Prefixes prefixes = l.next<Prefixes>();
  const size_t rowsEach = l.u();
  const double* hyper = l.array<double>(HYPERS);
  const float* sparsity = l.next<float*>();
  const uint32_t* age = l.next<uint32_t*>();
  const bool band = l.u() != 0;
  Entry* entries = l.array<Entry>(start[n]);
  l.expect(l.y == (latents[1] != nullptr ? 2 * P : P) && size_t{l.x} * width >= n && l.shared >= 2 * width + 8192 &&
               l.width == 1024,
           "the launch is wrong");
  std::vector<uint32_t> at(counts, counts + l.y * n);
  for (int path = 0; path < 2; path++) {
    if (latents[path] == nullptr) continue;
    l.checkedArray(latents[path], B * ks[path]), l.checkedArray(values[path], B * ks[path]),
        l.checkedArray(grads[path], B * ks[path]);
    for (size_t s = 0; s < B * ks[path]; s++) {
      const uint32_t j = latents[path][s], row = static_cast<uint32_t>(s / ks[path]);
      if (j == NONE || !has(listed, j)) continue;
      const size_t part = path * P + row / rowsPerPart;
      double inner = scales[path] * grads[path][s];
      if (sparsity != nullptr && path == 0) {
        inner += penaltySlope(hyper, sparsity, values[path][s]);
        if (age != nullptr && age[j] > scales[3]) inner += scales[2];
      }
      const size_t errRow =
          path == 1 ? row : (row / rowsEach * prefixes.count + planeOf(prefixes, j)) * rowsEach + row % rowsEach;
      const uint32_t dead = path == 1 ? DEAD_PATH : 0;
      const double factor = band ? values[path][s] : scales[path] * values[path][s];
      entries[start[j] + at[part * n + j]++] = {row | dead, static_cast<float>(factor), static_cast<float>(inner),
                                                static_cast<uint32_t>(errRow) | dead};
    }
  }
}

static bool isPenalized(const Gradients& g, size_t j) { return g.age != nullptr && g.age[j] > g.scales[3]; }

/// The rows of a latent's entries [first, last).
static void form(Launch& l, const Gradients& g, size_t first, size_t last, float* encoder, float* decoder) {
  const auto of = [&](const void* at) { return Elements{l.compute, const_cast<void*>(at)}; };
  const Elements x = of(g.xc16), live = of(g.liveErr16), dead = of(g.deadErr16);
  std::fill(encoder, encoder + g.dIn, 0.0f);
  std::fill(decoder, decoder + g.dOut, 0.0f);
  for (size_t e = first; e < last; e++) {
    const Entry& entry = g.entries[e];
    const size_t row = (entry.row & ~DEAD_PATH) * g.dIn, errRow = (entry.unused & ~DEAD_PATH) * g.dOut;
    const Elements& err = (entry.unused & DEAD_PATH) != 0 ? dead : live;
    l.expect(owned(static_cast<char*>(err.at) + errRow * err.bytes(), g.dOut * err.bytes()),
             "a row of err is not there");
    for (size_t i = 0; i < g.dIn; i++) encoder[i] += entry.grad * x.get(row + i);
    for (size_t i = 0; i < g.dOut; i++) decoder[i] += entry.value * err.get(errRow + i);
  }
}

void rowsOf(Launch& l, const Gradients& g, size_t j, float* encoder, float* decoder) {
  const uint32_t first = g.start[j], last = g.start[j + 1];
  if (last - first <= g.chunk) {
    form(l, g, first, last, encoder, decoder);
  } else {
    const auto pieces = [&](float* to, size_t side, size_t d) {
      for (size_t i = 0; i < d; i++) {
        to[i] = 0;
        for (size_t p = g.pieceAt[j]; p < g.pieceAt[j] + ceilDiv(last - first, g.chunk); p++)
          to[i] += g.pieceRows[(2 * p + side) * std::max(g.dIn, g.dOut) + i];
      }
    };
    pieces(encoder, 0, g.dIn);
    pieces(decoder, 1, g.dOut);
  }
  if (isPenalized(g, j)) {
    for (size_t i = 0; i < g.dIn; i++) encoder[i] -= static_cast<float>(g.scales[2] * g.deadColumns[i]);
  }
  if (g.deadSlot == nullptr || g.deadSlot[j] >= g.cap) return;
  const auto add = [&](float* to, const float* rows, size_t d) {
    l.checkedArray(rows, g.cap * d);
    for (size_t i = 0; i < d; i++) to[i] += static_cast<float>(g.scales[1]) * rows[g.deadSlot[j] * d + i];
  };
  add(encoder, g.deadEncoder, g.dIn);
  add(decoder, g.deadDecoder, g.dOut);
}

static Totals totalsOf(const Gradients& g, size_t first, size_t last) {
  Totals t = {};
  for (size_t e = first; e < last; e++)
    t.grad += g.entries[e].grad, t.grads += std::fabs(g.entries[e].grad), t.values += std::fabs(g.entries[e].value);
  return t;
}

Gradients gradients(Launch& l) {
  const Gradients g = l.next<Gradients>();
  l.checkedArray(g.start, g.n + 1), l.checkedArray(g.pieceAt, g.n), l.checkedArray(g.scales, 4),
      l.checkedArray(g.entries, g.start[g.n]);
  return g;
}

static void listLong(Launch& l) {
  const Gradients g = gradients(l);
  const uint32_t* pieceOf = l.next<uint32_t*>();
  const uint32_t* pieceCount = l.array<uint32_t>(1);
  Totals* totals = l.next<Totals*>();
  const size_t widest = std::max(g.dIn, g.dOut);
  gradientThreads(l, widest);
  l.checkedArray(pieceOf, *pieceCount), l.checkedArray(totals, *pieceCount),
      l.checkedArray(g.pieceRows, *pieceCount * 2 * widest);
  for (size_t p = 0; p < *pieceCount; p++) {
    const size_t j = pieceOf[p], first = g.start[j] + (p - g.pieceAt[j]) * g.chunk,
                 last = std::min<size_t>(g.start[j + 1], first + g.chunk);
    form(l, g, first, last, g.pieceRows + 2 * p * widest, g.pieceRows + (2 * p + 1) * widest);
    totals[p] = totalsOf(g, first, last);
  }
}

static void listBias(Launch& l) {
  const Gradients g = gradients(l);
  const Elements encoder = l.matrix(g.n * g.dIn);
  const double* sums = l.array<double>(SUMS);
  const double* wideSums = l.next<double*>();
  l.next<void*>();
  const double* deadBias = l.next<double*>();
  float* latentBias = l.array<float>(g.n);
  double* partial = l.next<double*>();
  uint32_t* bad = l.array<uint32_t>(1);
  const Share counted = l.next<Share>();
  const float* largest = l.next<float*>();
  const Prefixes prefixes = l.next<Prefixes>();
  const bool deadRows = l.u() != 0;
  const double* hyper = l.array<double>(HYPERS);
  if (partial != nullptr) l.checkedArray(partial, l.x * g.dIn);
  l.expect(l.x == ceilDiv(g.n, 32) && l.width == 256, "the grid is wrong");
  if (partial != nullptr) std::fill(partial, partial + l.x * g.dIn, 0.0);
  const double input = std::max(largest != nullptr ? *largest : std::sqrt(sums[CENTRED2]), 1.0);
  double err = std::sqrt(std::max(sums[ERR2], wideSums != nullptr ? wideSums[ERR2] : sums[AUX_ERR2]));
  for (size_t h = 0; h + 1 < prefixes.count; h++) err += prefixes.weights[h] * std::sqrt(sums[SUMS + 3 * g.dOut + h]);
  for (size_t j = 0; j < g.n; j++) {
    latentBias[j] = 0;
    if (!has(counted, j)) continue;
    const Totals t = totalsOf(g, g.start[j], g.start[j + 1]);
    const double dead = deadRows && isPenalized(g, j) ? g.scales[2] * hyper[ROWS] : 0;
    if (!((t.grads + dead) * input < 1e18 && t.values * err < 1e18)) *bad |= 1;
    double sum = t.grad;
    if (g.deadSlot != nullptr && g.deadSlot[j] < g.cap)
      sum += g.scales[1] * l.checkedArray(deadBias, g.cap)[g.deadSlot[j]];
    sum -= dead;
    latentBias[j] = static_cast<float>(sum);
    for (size_t i = 0; partial != nullptr && i < g.dIn && sum != 0; i++)
      partial[j / 32 * g.dIn + i] += sum * encoder.get(j * g.dIn + i);
  }
}

static void listPrebias(Launch& l) {
  const double* partial = l.next<double*>();
  const size_t blocks = l.u(), d = l.u();
  const double* sums = l.array<double>(d);
  const double* wide = l.next<double*>();
  const double* scales = l.array<double>(4);
  float* preBias = l.array<float>(d);
  uint32_t* bad = l.array<uint32_t>(1);
  const bool counts = l.u() != 0;
  if (blocks > 0) l.checkedArray(partial, blocks * d);
  l.expect(l.x == ceilDiv(d, 32) && l.width == 1024, "the grid is wrong");
  for (size_t i = 0; i < d; i++) {
    double through = 0;
    for (size_t b = 0; b < blocks; b++) through += partial[b * d + i];
    double gradient = (counts ? scales[0] * sums[i] : 0) - through;
    if (counts && wide != nullptr) gradient += scales[1] * l.checkedArray(wide, d)[i];
    if (!(std::fabs(gradient) < 1e18)) *bad |= 1;
    preBias[i] = static_cast<float>(gradient);
  }
}

void persistent(Launch& l, const Gradients& g, size_t more) {
  gradientThreads(l, std::max(g.dIn, g.dOut));
  l.expect(g.from < g.to && g.to <= 2 * g.n && l.x <= g.to - g.from && *l.checkedArray(g.taken, 1) == 0 &&
               l.shared >= 3072 + more,
           "the launch is wrong");
}

static void gradientRows(Launch& l) {
  const Gradients g = gradients(l);
  persistent(l, g, 0);
  l.checkedArray(g.formedEncoder, g.n * g.dIn), l.checkedArray(g.formedDecoder, g.n * g.dOut);
  std::vector<float> encoder(g.dIn), decoder(g.dOut);
  for (size_t j = 0; j < g.n; j++) {
    rowsOf(l, g, j, encoder.data(), decoder.data());
    if (g.from <= j && j < g.to) std::copy(encoder.begin(), encoder.end(), g.formedEncoder + j * g.dIn);
    if (g.from <= g.n + j && g.n + j < g.to) std::copy(decoder.begin(), decoder.end(), g.formedDecoder + j * g.dOut);
  }
}

static void thresholdGradient(Launch& l) {
  const Gradients g = gradients(l);
  const uint32_t* start = l.array<uint32_t>(g.n + 1);
  const Entry* entries = l.array<Entry>(start[g.n]);
  const float* threshold = l.array<float>(g.n);
  const float* sparsity = l.array<float>(2);
  const double* hyper = l.array<double>(HYPERS);
  const double active = *l.array<double>(1);
  const Share counted = l.next<Share>();
  const bool deadRows = l.u() != 0;
  float* gradient = l.array<float>(g.n);
  uint32_t* bad = l.array<uint32_t>(1);
  l.expect(l.x == ceilDiv(g.n, 8) && l.width == 256, "the launch is wrong");
  const double coefficient = hyper[SPARSITY] * *sparsity, rows = hyper[ROWS], target = hyper[TARGET_L0];
  const double count = hyper[PENALTY] == PENALTY_STEP ? coefficient / rows
                       : hyper[PENALTY] == PENALTY_QUADRATIC
                           ? 2 * coefficient * (active / rows / target - 1) / (target * rows)
                           : 0;
  for (size_t j = 0; j < g.n; j++) {
    double all = 0;
    for (size_t e = start[j]; e < start[j + 1]; e++) {
      const double z = entries[e].value, own = threshold[j];
      const double slope = entries[e].grad + penaltySlope(hyper, sparsity, z > own && z > 0 ? z : 0);
      all -= (own * slope + count) / hyper[BANDWIDTH];
    }
    if (isPenalized(g, j) && has(counted, j)) {
      if (deadRows) all += g.scales[2] * rows;
      for (size_t e = g.start[j]; e < g.start[j + 1]; e++)
        if ((g.entries[e].row & DEAD_PATH) == 0) all -= g.scales[2];
    }
    if (!(std::fabs(all) < 1e18)) *bad |= 1;
    gradient[j] = static_cast<float>(all);
  }
}

const Works GRADIENTS = {
    {"threshold_gradient", thresholdGradient},
    {"list_count", listCount},
    {"list_prefix", listPrefix},
    {"list_scan", listScan},
    {"list_fill", listFill},
    {"list_long", listLong},
    {"list_bias", listBias},
    {"list_prebias", listPrebias},
    {"gradient_rows", gradientRows},
};

}  // namespace standin

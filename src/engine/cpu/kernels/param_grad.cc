// paramGrad: inverts the codes (see gradients.h) and sums what is small: the gradients of both
// biases.

#ifndef SAETTA_PATH
#include "gradients.h"

#include <algorithm>
#include <cmath>

namespace saetta {

Gradients::Gradients(size_t n, size_t d, size_t capacity, Params g)
    : n(n),
      d(d),
      g(g),
      capacity(capacity),
      longRows(nullptr),
      longCapacity(0),
      liveScale(0),
      deadScale(0),
      x(nullptr),
      liveErr(nullptr),
      deadErr(nullptr),
      preBias(nullptr) {
  start = static_cast<uint64_t*>(allocate((n + 1) * sizeof(uint64_t)));
  middle = static_cast<uint64_t*>(allocate(n * sizeof(uint64_t)));
  longAt = static_cast<uint32_t*>(allocate(n * sizeof(uint32_t)));
  entries = static_cast<Entry*>(allocate((capacity + ENTRIES_AHEAD) * sizeof(Entry)));
}

Gradients::~Gradients() {
  for (void* address : {static_cast<void*>(start), static_cast<void*>(middle), static_cast<void*>(longAt),
                        static_cast<void*>(entries), static_cast<void*>(longRows)}) {
    release(address);
  }
}

/// 2 mseScale / (rows d), and 2 auxCoef over the variation of the auxiliary target; 0 when nothing
/// is dead or it hardly varies.
struct Scales {
  double live, dead;
};

static Scales scalesOf(const Step& t, size_t d) {
  const double rows = t.hyper[ROWS];
  double variation = t.sums[ERR2];
  for (size_t i = 0; i < d; i++) variation -= t.sums[SUMS + i] * t.sums[SUMS + i] / rows;
  const bool off = t.sums[DEAD] == 0 || variation <= LEAST_VARIATION * t.sums[X2];
  return {2 * t.hyper[MSE_SCALE] / (rows * static_cast<double>(d)), off ? 0 : 2 * t.hyper[AUX_COEF] / variation};
}

}  // namespace saetta

#define SAETTA_FILE "param_grad.cc"
#include "each_path.h"

extern "C" {

/// Null when there is no room.
saetta::Gradients* saetta_gradients(const saetta::NewGradients* a) {
  using namespace saetta;
  Gradients* g = new Gradients(a->n, a->d, a->capacity, a->g);
  if (g->start != nullptr && g->middle != nullptr && g->longAt != nullptr && g->entries != nullptr) return g;
  delete g;
  return nullptr;
}

/// After everything submitted.
void saetta_gradients_release(saetta::Stream* stream, saetta::Gradients* g) {
  stream->submit([g](saetta::Stream&) { delete g; }, true);
}

void saetta_param_grad(saetta::Stream* stream, const saetta::ParamGrad* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, paramGrad, a); });
}

}  // extern "C"

#else

#include "dense.h"
#include "rows.h"

/// Counts how often latent j is on in each of a few blocks of rows, then writes the lists: wherever
/// the borders of the blocks are, the same ones.
static void invert(Stream& s, const ParamGrad& a, const Scales& scale, bool dead) {
  Gradients& g = *a.g;
  constexpr size_t MOST_BLOCKS = 8;
  const size_t n = g.n, blocks = std::min<size_t>(s.threads, MOST_BLOCKS), rows = ceilDiv(a.B, blocks);
  const size_t columns = dead ? 2 * blocks : blocks;
  // [columns][n]: the live blocks, then the dead; first how many, then where in the list.
  uint32_t* counts = s.scratch<uint32_t>(0, columns * n);
  const auto eachSlot = [&](size_t column, const auto& visit) {
    const Codes& z = column < blocks ? a.live : a.dead;
    const size_t block = column % blocks;
    for (size_t b = block * rows; b < std::min(a.B, (block + 1) * rows); b++) {
      for (size_t slot = b * z.k; slot < (b + 1) * z.k; slot++) {
        const size_t j = z.latent[slot];
        if (j < n) visit(b, j, z.value[slot], z.grad[slot]);
      }
    }
  };
  s.parallel(columns, [&](size_t column, unsigned) {
    uint32_t* count = counts + column * n;
    std::fill(count, count + n, 0u);
    eachSlot(column, [&](size_t, size_t j, float, float) { count[j]++; });
  });
  uint64_t total = 0;
  for (size_t j = 0; j < n; j++) {
    g.start[j] = total;
    uint32_t length = 0;
    for (size_t column = 0; column < columns; column++) {
      if (column == blocks) g.middle[j] = total + length;
      const uint32_t here = counts[column * n + j];
      counts[column * n + j] = length;
      length += here;
    }
    total += length;
    if (!dead) g.middle[j] = total;
  }
  g.start[n] = total;
  if (total > g.capacity) throw std::length_error("paramGrad: more rows than the gradients were made for");
  s.parallel(columns, [&](size_t column, unsigned) {
    uint32_t* at = counts + column * n;
    const double factor = column < blocks ? scale.live : scale.dead;
    eachSlot(column, [&](size_t b, size_t j, float value, float grad) {
      g.entries[g.start[j] + at[j]++] = {static_cast<uint32_t>(b), static_cast<float>(factor * value),
                                         static_cast<float>(factor * grad)};
    });
  });
}

/// The rows of latents that the dense way takes, and of every list longer than a chunk. A chunk is
/// at least 256 entries and at most a 1024th of all, so there are at most 2048 of them.
static void formLong(Stream& s, const ParamGrad& a, const Scales& scale, const Dense& dense) {
  Gradients& g = *a.g;
  const uint64_t chunk = std::max<uint64_t>(256, ceilDiv(g.start[g.n], 1024));
  struct Piece {
    size_t latent;
    uint64_t first, last;
  };
  std::vector<Piece> pieces;
  std::vector<size_t> firstPiece;
  for (size_t j = 0; j < g.n; j++) {
    g.longAt[j] = dense.count > 0 ? dense.place[j] : NONE;
    if (g.longAt[j] != NONE) continue;
    if (g.start[j + 1] - g.start[j] <= chunk) continue;
    g.longAt[j] = static_cast<uint32_t>(dense.count + pieces.size());
    firstPiece.push_back(pieces.size());
    for (uint64_t first = g.start[j]; first < g.start[j + 1]; first += chunk)
      pieces.push_back({j, first, std::min(first + chunk, g.start[j + 1])});
  }
  const size_t needed = (dense.count + pieces.size()) * 2 * g.d;
  if (needed > g.longCapacity) {
    release(g.longRows);
    g.longCapacity = 0;
    g.longRows = static_cast<float*>(allocate(needed * sizeof(float)));
    if (g.longRows == nullptr)
      throw std::runtime_error("paramGrad: no room for " + std::to_string(needed * sizeof(float)) +
                               " bytes of working memory");
    g.longCapacity = needed;
  }
  if (dense.count > 0) {
    gradientsDense(s, dense, a.dead, g.x, g.preBias, g.deadErr, a.B, g.d, g.n, static_cast<float>(scale.dead),
                   g.longRows);
    float* buffers = s.scratch<float>(2, s.threads * 2 * g.d);
    s.parallel(dense.count, [&](size_t i, unsigned thread) {
      const size_t j = dense.latents[i];
      if (g.start[j] == g.middle[j]) return;
      float *live = buffers + thread * 2 * g.d, *rows = g.longRows + i * 2 * g.d;
      formRows(g, j, g.start[j], g.middle[j], live, live + g.d);
      for (size_t c = 0; c < 2 * g.d; c++) rows[c] += live[c];
    });
  }
  float* longRows = g.longRows + dense.count * 2 * g.d;
  s.parallel(pieces.size(), [&](size_t i, unsigned) {
    float* rows = longRows + i * 2 * g.d;
    formRows(g, pieces[i].latent, pieces[i].first, pieces[i].last, rows, rows + g.d);
  });
  s.parallel(firstPiece.size(), [&](size_t i, unsigned) {
    const size_t first = firstPiece[i], last = i + 1 < firstPiece.size() ? firstPiece[i + 1] : pieces.size();
    float* sum = longRows + first * 2 * g.d;
    for (size_t piece = first + 1; piece < last; piece++) {
      const float* rows = longRows + piece * 2 * g.d;
      for (size_t c = 0; c < 2 * g.d; c++) sum[c] += rows[c];
    }
  });
}

/// A row of the encoder and what it is multiplied by.
struct Weighted {
  const float* row;
  double weight;
};

/// sums [d] += a.weight a.row + b.weight b.row.
static void addWeighted(const Weighted& a, const Weighted& b, double* __restrict sums, size_t d) {
  const float *__restrict x = a.row, *__restrict y = b.row;
  for (size_t i = 0; i < d; i++) sums[i] += a.weight * x[i] + b.weight * y[i];
}

/// Summed in float64, a list in its order: latentBias = sum of g. preBias = live factor * column
/// sums of err - sum_j latentBias_j encoder[j]. No weight may change in a step that is not finite,
/// and rows are formed only as weights change: a bound on every element is checked here instead,
/// the sum of absolute factors times the norm of all that they may stand before.
static void biases(Stream& s, const ParamGrad& a, const Scales& scale) {
  Gradients& g = *a.g;
  const size_t d = g.d, block = std::max<size_t>(64, ceilDiv(g.n, 128)), blocks = ceilDiv(g.n, block);
  double* partial = s.scratch<double>(1, blocks * d);
  const double largestInput = std::sqrt(a.t.sums[CENTRED2]),
               largestErr = std::sqrt(std::max(a.t.sums[ERR2], a.t.sums[AUX_ERR2]));
  s.parallel(blocks, [&](size_t tile, unsigned) {
    double* sums = partial + tile * d;
    std::fill(sums, sums + d, 0.0);
    // Latents that are on wait for one more, so that the sums are gone through half as often.
    Weighted waiting = {nullptr, 0};
    for (size_t j = tile * block; j < std::min(g.n, (tile + 1) * block); j++) {
      double sum = 0, grads = 0, values = 0;
      for (uint64_t e = g.start[j]; e < g.start[j + 1]; e++) {
        sum += g.entries[e].grad;
        grads += std::fabs(g.entries[e].grad);
        values += std::fabs(g.entries[e].value);
      }
      const bool fits =
          grads * std::max(largestInput, 1.0) < LARGEST_GRADIENT && values * largestErr < LARGEST_GRADIENT;
      if (!fits) markBad(a.t);
      g.g.latentBias[j] = static_cast<float>(sum);
      if (sum == 0) continue;
      const Weighted here = {a.p.encoder + j * d, sum};
      for (size_t byte = 0; byte < d * sizeof(float); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(here.row) + byte, 0, 2);
      if (waiting.row == nullptr) {
        waiting = here;
        continue;
      }
      addWeighted(waiting, here, sums, d);
      waiting.row = nullptr;
    }
    if (waiting.row != nullptr) addWeighted(waiting, {waiting.row, 0}, sums, d);
  });
  for (size_t tile = 1; tile < blocks; tile++) {
    for (size_t i = 0; i < d; i++) partial[i] += partial[tile * d + i];
  }
  for (size_t i = 0; i < d; i++) {
    const double gradient = (a.countsErr != 0 ? scale.live * a.t.sums[SUMS + i] : 0) - partial[i];
    if (!(std::fabs(gradient) < LARGEST_GRADIENT)) markBad(a.t);
    g.g.preBias[i] = static_cast<float>(gradient);
  }
}

static void paramGrad(Stream& s, const ParamGrad& a) {
  Gradients& g = *a.g;
  g.x = a.x;
  g.liveErr = a.liveErr;
  g.deadErr = a.deadErr;
  g.preBias = a.p.preBias;
  const Scales scale = scalesOf(a.t, g.d);
  g.liveScale = scale.live;
  g.deadScale = scale.dead;
  const bool dead = a.deadErr != nullptr && scale.dead != 0;
  invert(s, a, scale, dead);
  formLong(s, a, scale, dead ? denseLatents(s, a.dead, a.B, g.n, g.d) : Dense{});
  biases(s, a, scale);
  if (g.g.encoder == nullptr) return;
  s.parallel(ceilDiv(g.n, LATENTS_A_TILE), [&](size_t tile, unsigned) {
    for (size_t j = tile * LATENTS_A_TILE; j < std::min(g.n, (tile + 1) * LATENTS_A_TILE); j++) {
      float *encoder = g.g.encoder + j * g.d, *decoder = g.g.decoder + j * g.d;
      if (g.longAt[j] == NONE) {
        formRows(g, j, g.start[j], g.start[j + 1], encoder, decoder);
      } else {
        const float* rows = g.longRows + g.longAt[j] * 2 * g.d;
        std::copy(rows, rows + g.d, encoder);
        std::copy(rows + g.d, rows + 2 * g.d, decoder);
      }
    }
  });
}

#endif

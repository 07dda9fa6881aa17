// paramGrad: inverts the codes (see gradients.h) and sums what is small: the gradients of both
// biases and of the thresholds; and the skip connection's, which is a product.

#ifndef SAETTA_PATH
#include "gradients.h"

#include <algorithm>
#include <cmath>

namespace saetta {

Gradients::Gradients(size_t n, size_t dIn, size_t dOut, size_t capacity, Params g)
    : n(n),
      dIn(dIn),
      dOut(dOut),
      g(g),
      capacity(capacity),
      longRows(nullptr),
      longCapacity(0),
      liveScale(0),
      deadScale(0),
      x(nullptr),
      minus(nullptr),
      deadErr(nullptr),
      live{},
      plain(true),
      age(nullptr),
      deadAfter(0) {
  start = static_cast<uint64_t*>(allocate((n + 1) * sizeof(uint64_t)));
  middle = static_cast<uint64_t*>(allocate(n * sizeof(uint64_t)));
  longAt = static_cast<uint32_t*>(allocate(n * sizeof(uint32_t)));
  entries = static_cast<Entry*>(allocate((capacity + ENTRIES_AHEAD) * sizeof(Entry)));
  deadRow = static_cast<float*>(allocate(dIn * sizeof(float)));
}

Gradients::~Gradients() {
  for (void* address : {static_cast<void*>(start), static_cast<void*>(middle), static_cast<void*>(longAt),
                        static_cast<void*>(entries), static_cast<void*>(longRows), static_cast<void*>(deadRow)}) {
    release(address);
  }
}

/// 2 mseScale / (rows d); of the second branch wideCoef times that, or 2 auxCoef over the variation
/// of the auxiliary target: 0 when nothing is dead or it hardly varies.
struct Scales {
  double live, dead;
};

static Scales scalesOf(const Step& t, size_t d, bool isWide) {
  const double live = 2 * t.hyper[MSE_SCALE] / (t.hyper[ROWS] * static_cast<double>(d));
  if (isWide) return {live, t.hyper[WIDE_COEF] * live};
  const double rows = t.hyper[ROWS];
  double variation = t.sums[ERR2];
  for (size_t i = 0; i < d; i++) variation -= t.sums[SUMS + i] * t.sums[SUMS + i] / rows;
  const bool off = t.sums[DEAD] == 0 || variation <= LEAST_VARIATION * t.sums[X2];
  return {live, off ? 0 : 2 * t.hyper[AUX_COEF] / variation};
}

/// The sparsity loss, taken apart by what it adds: see sae/math/sparsity.ts. All 0 where there is
/// none.
struct SparsityLoss {
  /// Of tanh(scale f): to the gradient of a live value f, slope (1 - tanh(scale f)^2).
  double slope = 0, scale = 0;
  /// To that of the count of active latents, of one row.
  double count = 0;
  double bandwidth = 1;
  /// Of the pre-activation loss: to the gradient of a dead latent that is off.
  double dead = 0;

  explicit SparsityLoss(const ParamGrad& a) {
    if (a.p.sparsity == nullptr) return;
    const double* hyper = a.t.hyper;
    const double coefficient = hyper[SPARSITY] * a.p.sparsity[0], rows = hyper[ROWS], target = hyper[TARGET_L0];
    bandwidth = hyper[BANDWIDTH];
    dead = hyper[DEAD_PENALTY] > 0 ? hyper[DEAD_PENALTY] / rows : 0;
    if (hyper[PENALTY] == PENALTY_STEP) {
      count = coefficient / rows;
    } else if (hyper[PENALTY] == PENALTY_TANH) {
      scale = hyper[TANH_SCALE];
      slope = coefficient * scale / rows;
    } else if (hyper[PENALTY] == PENALTY_QUADRATIC) {
      count = 2 * coefficient * (*a.t.active / rows / target - 1) / (target * rows);
    }
  }

  double slopeOf(double f) const {
    if (slope == 0) return 0;
    const double tanh = std::tanh(scale * f);
    return slope * (1 - tanh * tanh);
  }
};

}  // namespace saetta

#define SAETTA_FILE "param_grad.cc"
#include "each_path.h"

extern "C" {

/// Null when there is no room.
saetta::Gradients* saetta_gradients(const saetta::NewGradients* a) {
  using namespace saetta;
  Gradients* g = new Gradients(a->n, a->dIn, a->dOut, a->capacity, a->g);
  if (g->start != nullptr && g->middle != nullptr && g->longAt != nullptr && g->entries != nullptr &&
      g->deadRow != nullptr)
    return g;
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
static void invert(Stream& s, const ParamGrad& a, const Scales& scale, const SparsityLoss& loss, bool dead) {
  Gradients& g = *a.g;
  constexpr size_t MOST_BLOCKS = 8;
  const size_t n = g.n, blocks = std::min<size_t>(s.threads, MOST_BLOCKS), rows = ceilDiv(a.live.B, blocks);
  const size_t columns = dead ? 2 * blocks : blocks;
  // [columns][n]: the live blocks, then the dead; first how many, then where in the list.
  uint32_t* counts = s.scratch<uint32_t>(0, columns * n);
  const auto eachSlot = [&](size_t column, const auto& visit) {
    const Codes& z = column < blocks ? a.live.z : a.dead.z;
    const size_t block = column % blocks;
    for (size_t b = block * rows; b < std::min(a.live.B, (block + 1) * rows); b++) {
      for (size_t slot = b * z.k; slot < (b + 1) * z.k && z.latent[slot] != NONE; slot++)
        visit(b, z.latent[slot], z.value[slot], z.grad[slot]);
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
    const bool penalised = column < blocks && !g.plain;
    eachSlot(column, [&](size_t b, size_t j, float value, float grad) {
      double slope = factor * grad;
      if (penalised) slope += loss.slopeOf(value) + (g.isPenalised(j) ? loss.dead : 0);
      g.entries[g.start[j] + at[j]++] = {static_cast<uint32_t>(b), static_cast<float>(factor * value),
                                         static_cast<float>(slope)};
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
  const size_t needed = (dense.count + pieces.size()) * g.width();
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
    gradientsDense(s, dense, a.dead, g.x, g.dIn, g.minus, static_cast<float>(scale.dead), g.longRows);
    float* buffers = s.scratch<float>(2, s.threads * g.width());
    s.parallel(dense.count, [&](size_t i, unsigned thread) {
      const size_t j = dense.latents[i];
      if (g.start[j] == g.middle[j]) return;
      float *live = buffers + thread * g.width(), *rows = g.longRows + i * g.width();
      formRows(g, j, g.start[j], g.middle[j], live, live + g.dIn);
      for (size_t c = 0; c < g.width(); c++) rows[c] += live[c];
    });
  }
  float* longRows = g.longRows + dense.count * g.width();
  s.parallel(pieces.size(), [&](size_t i, unsigned) {
    float* rows = longRows + i * g.width();
    formRows(g, pieces[i].latent, pieces[i].first, pieces[i].last, rows, rows + g.dIn);
  });
  s.parallel(firstPiece.size(), [&](size_t i, unsigned) {
    const size_t first = firstPiece[i], last = i + 1 < firstPiece.size() ? firstPiece[i + 1] : pieces.size();
    float* sum = longRows + first * g.width();
    for (size_t piece = first + 1; piece < last; piece++) {
      const float* rows = longRows + piece * g.width();
      for (size_t c = 0; c < g.width(); c++) sum[c] += rows[c];
    }
  });
  for (size_t j = 0; g.age != nullptr && j < g.n; j++)
    if (g.longAt[j] != NONE) addDeadRow(g, j, g.longRows + g.longAt[j] * g.width());
}

/// The batch's own sums, which an autoencoder has from residual: of the inputs by columns, and of
/// their squares.
struct Inputs {
  double* columns;
  double squares;
};

static Inputs inputsOf(Stream& s, const ParamGrad& a) {
  const size_t d = a.g->dIn, B = a.live.B, rows = std::max<size_t>(64, ceilDiv(B, 64)), blocks = ceilDiv(B, rows);
  double* sums = s.scratch<double>(3, blocks * (d + 1));
  s.parallel(blocks, [&](size_t block, unsigned) {
    double* own = sums + block * (d + 1);
    std::fill(own, own + d + 1, 0.0);
    for (size_t b = block * rows; b < std::min(B, (block + 1) * rows); b++) {
      const float* x = a.x + b * d;
      for (size_t i = 0; i < d; i++) own[i] += x[i];
      own[d] += dot(x, x, d);
    }
  });
  for (size_t block = 1; block < blocks; block++)
    for (size_t i = 0; i <= d; i++) sums[i] += sums[block * (d + 1) + i];
  return {sums, sums[d]};
}

/// What the pre-activation loss takes out of the gradients of each dead latent, for the rows that
/// count here: from the encoder's, `deadRow`; from the bias's, the result.
static double deadPart(const ParamGrad& a, const SparsityLoss& loss, const double* columns, double rows) {
  Gradients& g = *a.g;
  double largest = loss.dead * rows;
  for (size_t i = 0; i < g.dIn; i++) {
    g.deadRow[i] = static_cast<float>(loss.dead * columns[i]);
    largest = std::max(largest, std::fabs(loss.dead * columns[i]));
  }
  if (!(largest < LARGEST_GRADIENT)) markBad(a.t);
  return loss.dead * rows;
}

/// -> threshold gradient: of the band's codes, thresholdGradients of sae/math.ts. Fixed blocks of
/// rows are summed each on its own, then the blocks in order.
static void thresholds(Stream& s, const ParamGrad& a, const Scales& scale, const SparsityLoss& loss, double deadPart) {
  constexpr size_t BLOCKS = 8;
  Gradients& g = *a.g;
  const size_t n = g.n, B = a.live.B, rows = ceilDiv(B, BLOCKS);
  double* sums = s.scratch<double>(4, BLOCKS * n);
  s.parallel(BLOCKS, [&](size_t block, unsigned) {
    double* own = sums + block * n;
    std::fill(own, own + n, 0.0);
    const Codes& z = a.band;
    for (size_t b = block * rows; b < std::min(B, (block + 1) * rows); b++) {
      for (size_t slot = b * z.k; slot < (b + 1) * z.k && z.latent[slot] != NONE; slot++) {
        const size_t j = z.latent[slot];
        const double theta = a.p.threshold[j], value = z.value[slot];
        const double slope = scale.live * z.grad[slot] + loss.slopeOf(value > std::max(theta, 0.0) ? value : 0);
        own[j] -= (theta * slope + loss.count) / loss.bandwidth;
      }
    }
  });
  s.parallel(ceilDiv(n, LATENTS_A_TILE), [&](size_t tile, unsigned) {
    for (size_t j = tile * LATENTS_A_TILE; j < std::min(n, (tile + 1) * LATENTS_A_TILE); j++) {
      double sum = 0;
      for (size_t block = 0; block < BLOCKS; block++) sum += sums[block * n + j];
      if (g.isPenalised(j)) sum += deadPart - loss.dead * static_cast<double>(g.middle[j] - g.start[j]);
      if (!(std::fabs(sum) < LARGEST_GRADIENT)) markBad(a.t);
      g.g.threshold[j] = static_cast<float>(sum);
    }
  });
}

/// -> skip gradient [dOut,dIn] = live factor * err plane 0, turned, times x; so many rows of the
/// batch at a time, in order.
static void skipGradient(Stream& s, const ParamGrad& a, const Scales& scale) {
  Gradients& g = *a.g;
  const size_t dIn = g.dIn, dOut = g.dOut, B = a.live.B, piece = std::min(B, DENSE_PIECE);
  const size_t panels = ceilDiv(dIn, DENSE_COLUMNS), strips = ceilDiv(dOut, LATENTS_A_TILE);
  float* inputs = s.scratch<float>(DENSE_X, panels * DENSE_COLUMNS * piece);
  const float factor = static_cast<float>(scale.live);
  for (size_t first = 0; first < B; first += piece) {
    const size_t count = std::min(piece, B - first);
    packPanels(s, count, dIn, [&](size_t r) { return a.x + (first + r) * dIn; }, nullptr, inputs);
    s.parallel(panels * strips, [&](size_t tile, unsigned) {
      const size_t panel = tile / strips, o = tile % strips * LATENTS_A_TILE, c = panel * DENSE_COLUMNS;
      const size_t columns = std::min(DENSE_COLUMNS, dIn - c);
      multiplyRows(std::min(LATENTS_A_TILE, dOut - o), a.live.err + first * dOut + o, 1, dOut, inputs + c * count,
                   count, [&](size_t r, const float* product) {
                     float* to = g.g.skip + (o + r) * dIn + c;
                     for (size_t i = 0; i < columns; i++)
                       to[i] = first == 0 ? factor * product[i] : to[i] + factor * product[i];
                   });
    });
  }
  s.parallel(dOut, [&](size_t o, unsigned) {
    bool fits = true;
    for (size_t i = 0; i < dIn; i++) fits &= std::fabs(g.g.skip[o * dIn + i]) < static_cast<float>(LARGEST_GRADIENT);
    if (!fits) markBad(a.t);
  });
}

/// The length that no row of a plane of live err is above.
static double largestErr(const ParamGrad& a) {
  const size_t d = a.g->dOut, count = a.live.prefixes.count;
  double length = std::sqrt(a.t.sums[ERR2]);
  for (size_t g = 0; g + 1 < count; g++)
    length += std::fabs(a.live.prefixes.weights[g]) * std::sqrt(a.t.sums[SUMS + 3 * d + g]);
  return std::max(length, std::sqrt(a.wideSums != nullptr ? a.wideSums[ERR2] : a.t.sums[AUX_ERR2]));
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
/// sums of err plane 0 - sum_j latentBias_j encoder[j], where b_dec is subtracted from the input.
/// No weight may change in a step that is not finite, and rows are formed only as weights change: a
/// bound on every element is checked here instead, the sum of absolute factors times the norm of
/// all that they may stand before. `inputSquares`: of x - minus.
static void biases(Stream& s, const ParamGrad& a, const Scales& scale, double inputSquares, double deadPart) {
  Gradients& g = *a.g;
  // 0 where no gradient of b_dec comes through the input.
  const size_t d = g.minus == nullptr ? 0 : g.dIn;
  const size_t block = std::max<size_t>(64, ceilDiv(g.n, 128)), blocks = ceilDiv(g.n, block);
  double* partial = s.scratch<double>(1, blocks * d);
  const double inputNorm = std::sqrt(inputSquares), errNorm = largestErr(a);
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
          grads * std::max(inputNorm, 1.0) < LARGEST_GRADIENT && values * errNorm < LARGEST_GRADIENT;
      if (!fits) markBad(a.t);
      if (g.isPenalised(j)) sum -= deadPart;
      g.g.latentBias[j] = static_cast<float>(sum);
      if (sum == 0 || d == 0) continue;
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
  const double* planeColumns = a.t.sums + SUMS + (a.live.prefixes.count > 1 ? 2 * g.dOut : 0);
  for (size_t i = 0; i < g.dOut; i++) {
    double gradient = d == 0 ? 0 : -partial[i];
    if (a.countsErr != 0) gradient += scale.live * planeColumns[i];
    if (a.countsErr != 0 && a.wideSums != nullptr) gradient += scale.dead * a.wideSums[SUMS + i];
    if (!(std::fabs(gradient) < LARGEST_GRADIENT)) markBad(a.t);
    g.g.preBias[i] = static_cast<float>(gradient);
  }
}

static void paramGrad(Stream& s, const ParamGrad& a) {
  Gradients& g = *a.g;
  const SparsityLoss loss(a);
  const Scales scale = scalesOf(a.t, g.dOut, a.wideSums != nullptr);
  g.x = a.x;
  g.minus = a.untied != 0 ? nullptr : a.p.preBias;
  g.live = a.live;
  g.deadErr = a.dead.err;
  g.liveScale = scale.live;
  g.deadScale = scale.dead;
  g.plain = loss.slope == 0 && loss.dead == 0;
  g.age = loss.dead == 0 ? nullptr : a.age;
  g.deadAfter = a.t.hyper[DEAD_AFTER];
  // Without b_dec in the input each replica counts its own rows.
  Inputs inputs = {nullptr, a.t.sums[CENTRED2]};
  if (a.untied != 0) inputs = inputsOf(s, a);
  const double rows = a.untied != 0 ? static_cast<double>(a.live.B) : a.countsRows != 0 ? a.t.hyper[ROWS] : 0;
  double off = 0;
  if (g.age != nullptr) {
    double* columns = inputs.columns;
    if (a.untied == 0) {
      columns = s.scratch<double>(5, g.dIn);
      for (size_t i = 0; i < g.dIn; i++) columns[i] = a.countsRows != 0 ? a.t.sums[SUMS + g.dOut + i] : 0;
    }
    off = deadPart(a, loss, columns, rows);
  }
  const bool dead = a.dead.err != nullptr && scale.dead != 0;
  invert(s, a, scale, loss, dead);
  formLong(s, a, scale, dead ? denseLatents(s, a.dead) : Dense{});
  biases(s, a, scale, inputs.squares, off);
  if (g.g.threshold != nullptr) thresholds(s, a, scale, loss, off);
  if (g.g.skip != nullptr) skipGradient(s, a, scale);
  if (g.g.encoder == nullptr) return;
  s.parallel(ceilDiv(g.n, LATENTS_A_TILE), [&](size_t tile, unsigned) {
    for (size_t j = tile * LATENTS_A_TILE; j < std::min(g.n, (tile + 1) * LATENTS_A_TILE); j++) {
      float *encoder = g.g.encoder + j * g.dIn, *decoder = g.g.decoder + j * g.dOut;
      if (g.longAt[j] == NONE) {
        formRows(g, j, g.start[j], g.start[j + 1], encoder, decoder);
        addDeadRow(g, j, encoder);
      } else {
        const float* sums = g.longRows + g.longAt[j] * g.width();
        std::copy(sums, sums + g.dIn, encoder);
        std::copy(sums + g.dIn, sums + g.width(), decoder);
      }
    }
  });
}

#endif

// norm: the squared norm of the whole gradient, decoder rows projected, in float64: each latent on
// its own, then the latents in order.
//
// |g - (w . g) w|^2 = |g|^2 - (w . g)^2 for a unit row w, and w . g is known from the codes, so the
// decoder is not read. It is where the gradient is dense, which may be the sum of several
// replicas', whose codes are not here, and where a sparsity loss has added to the codes' gradients.

#ifndef SAETTA_PATH
#include "gradients.h"

#include <algorithm>

#define SAETTA_FILE "norm.cc"
#include "each_path.h"

extern "C" void saetta_norm(saetta::Stream* stream, const saetta::Norm* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, norm, a); });
}

#else

#include "rows.h"

/// w . g of the decoder's row of latent j, without reading w: the sum of value (w . err), and w .
/// err is the gradient of the value. Both are scaled in entries.
static double alongOf(const Gradients& g, size_t j) {
  const auto sum = [&](uint64_t first, uint64_t last) {
    double products = 0;
    for (uint64_t e = first; e < last; e++) products += static_cast<double>(g.entries[e].value) * g.entries[e].grad;
    return products;
  };
  const double live = sum(g.start[j], g.middle[j]), dead = sum(g.middle[j], g.start[j + 1]);
  return (live == 0 ? 0 : live / g.liveScale) + (dead == 0 ? 0 : dead / g.deadScale);
}

static void norm(Stream& s, const Norm& a) {
  const Gradients& g = *a.g;
  const bool projects = a.t.hyper[UNIT_ROWS] != 0;
  double* squares = s.scratch<double>(0, g.n);
  float* buffers = s.scratch<float>(1, s.threads * g.width());
  const auto along = [&](size_t j, const float* decoder) {
    if (!projects) return 0.0;
    return g.g.encoder != nullptr || !g.plain ? dot(a.decoder + j * g.dOut, decoder, g.dOut) : alongOf(g, j);
  };
  s.parallel(ceilDiv(g.n, LATENTS_A_TILE), [&](size_t tile, unsigned thread) {
    for (size_t j = tile * LATENTS_A_TILE; j < std::min(g.n, (tile + 1) * LATENTS_A_TILE); j++) {
      const Rows rows = rowsOf(g, j, buffers + thread * g.width());
      squares[j] = static_cast<double>(g.g.latentBias[j]) * g.g.latentBias[j];
      if (g.g.threshold != nullptr) squares[j] += static_cast<double>(g.g.threshold[j]) * g.g.threshold[j];
      if (rows.encoder == nullptr) continue;
      double both = dot(rows.encoder, rows.encoder, g.dIn);
      if (rows.decoder != nullptr) {
        const double length = along(j, rows.decoder);
        both += std::max(0.0, dot(rows.decoder, rows.decoder, g.dOut) - length * length);
      }
      squares[j] += both;
    }
  });
  double sum = 0;
  if (a.countsShared != 0) {
    sum = dot(g.g.preBias, g.g.preBias, g.dOut);
    for (size_t o = 0; g.g.skip != nullptr && o < g.dOut; o++) {
      const float* row = g.g.skip + o * g.dIn;
      sum += dot(row, row, g.dIn);
    }
  }
  for (size_t j = 0; j < g.n; j++) sum += squares[j];
  *a.t.sq = sum;
  if (!std::isfinite(sum)) markBad(a.t);
}

#endif

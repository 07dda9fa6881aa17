// norm: the squared norm of the whole gradient, decoder rows projected, in float64: each latent on
// its own, then the latents in order.
//
// |g - (w . g) w|^2 = |g|^2 - (w . g)^2 for a unit row w, and w . g is known from the codes, so the
// decoder is not read; unless the gradient is dense: then it may be the sum of several replicas',
// whose codes are not here.

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
  const size_t d = g.d;
  double* squares = s.scratch<double>(0, g.n);
  float* buffers = s.scratch<float>(1, s.threads * 2 * d);
  s.parallel(ceilDiv(g.n, LATENTS_A_TILE), [&](size_t tile, unsigned thread) {
    for (size_t j = tile * LATENTS_A_TILE; j < std::min(g.n, (tile + 1) * LATENTS_A_TILE); j++) {
      const Rows rows = rowsOf(g, j, buffers + thread * 2 * d);
      squares[j] = static_cast<double>(g.g.latentBias[j]) * g.g.latentBias[j];
      if (rows.encoder == nullptr) continue;
      const double along = g.g.encoder != nullptr ? dot(a.decoder + j * d, rows.decoder, d) : alongOf(g, j);
      squares[j] +=
          dot(rows.encoder, rows.encoder, d) + std::max(0.0, dot(rows.decoder, rows.decoder, d) - along * along);
    }
  });
  double sum = a.countsPreBias != 0 ? dot(g.g.preBias, g.g.preBias, d) : 0;
  for (size_t j = 0; j < g.n; j++) sum += squares[j];
  *a.t.sq = sum;
  if (!std::isfinite(sum)) markBad(a.t);
}

#endif

// norm: the squared norm of the whole gradient, decoder rows projected, in float64: each latent on its own, then the latents in order.

#ifndef SAETTA_PATH
#include "gradients.h"

#include <algorithm>

namespace saetta {

struct Norm {
  const float* decoder;
  const Gradients* g;
  Step t;
};

}  // namespace saetta

#define SAETTA_FILE "norm.cc"
#include "each_path.h"

extern "C" void saetta_norm(saetta::Stream* stream, const float* decoder, const saetta::Gradients* g, double* hyper, double* sums, uint32_t* fired,
                            uint32_t* bad, double* sq) {
  using namespace saetta;
  const Norm a = {decoder, g, {hyper, sums, fired, bad, sq}};
  stream->submit([a](Stream& s) { SAETTA_RUN(s, norm, a); });
}

#else

#include "rows.h"

static void norm(Stream& s, const Norm& a) {
  const Gradients& g = *a.g;
  const size_t d = g.d;
  double* squares = s.scratch<double>(0, g.n);
  float* buffers = s.scratch<float>(1, s.threads * 2 * d);
  s.parallel(ceilDiv(g.n, LATENTS_A_TILE), [&](size_t tile, unsigned thread) {
    float* buffer = buffers + thread * 2 * d;
    for (size_t j = tile * LATENTS_A_TILE; j < std::min(g.n, (tile + 1) * LATENTS_A_TILE); j++) {
      const Rows rows = rowsOf(g, j, buffer);
      squares[j] = static_cast<double>(g.g.latentBias[j]) * g.g.latentBias[j];
      if (rows.encoder == nullptr) continue;
      squares[j] += dot(rows.encoder, rows.encoder, d);
      const float* w = a.decoder + j * d;
      const float along = static_cast<float>(dot(w, rows.decoder, d));
      float* __restrict projected = buffer + d;
      for (size_t i = 0; i < d; i++) projected[i] = rows.decoder[i] - along * w[i];
      squares[j] += dot(projected, projected, d);
    }
  });
  double sum = dot(g.g.preBias, g.g.preBias, d);
  for (size_t j = 0; j < g.n; j++) sum += squares[j];
  *a.t.sq = sum;
  if (!std::isfinite(sum)) markBad(a.t);
}

#endif

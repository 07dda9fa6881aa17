// codeGrad: the gradient of each value that is on, decoder[latent] . err.

#ifndef SAETTA_PATH
#include "saetta.h"

namespace saetta {

struct CodeGrad {
  const float* decoder;
  Codes z;
  const float* err;
  size_t B, d, n;
  Step t;
};

}  // namespace saetta

#define SAETTA_FILE "code_grad.cc"
#include "each_path.h"

extern "C" void saetta_code_grad(saetta::Stream* stream, const float* decoder, uint32_t* latent, float* value, float* grad, uint64_t k, const float* err,
                                 uint64_t B, uint64_t d, uint64_t n, double* hyper, double* sums, uint32_t* fired, uint32_t* bad, double* sq) {
  using namespace saetta;
  const CodeGrad a = {decoder, {latent, value, grad, k}, err, B, d, n, {hyper, sums, fired, bad, sq}};
  stream->submit([a](Stream& s) { SAETTA_RUN(s, codeGrad, a); });
}

#else

static float dotOfRow(const float* a, const float* b, size_t d) {
  Vec sums[4] = {};
  size_t i = 0;
  for (; i + 4 * W <= d; i += 4 * W) {
    for (int u = 0; u < 4; u++) sums[u] += load<Vec>(a + i + u * W) * load<Vec>(b + i + u * W);
  }
  for (; i + W <= d; i += W) sums[0] += load<Vec>(a + i) * load<Vec>(b + i);
  float sum = 0;
  for (; i < d; i++) sum += a[i] * b[i];
  return sum + total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static void codeGrad(Stream& s, const CodeGrad& a) {
  constexpr size_t ROWS = 8;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned) {
    float nan = 0;
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      for (size_t slot = b * a.z.k; slot < (b + 1) * a.z.k; slot++) {
        const size_t j = a.z.latent[slot];
        const float grad = j < a.n ? dotOfRow(a.decoder + j * a.d, a.err + b * a.d, a.d) : 0.0f;
        a.z.grad[slot] = grad;
        nan += grad * 0.0f;
      }
    }
    if (std::isnan(nan)) markBad(a.t);
  });
}

#endif

// codeGrad: the gradient of each value that is on, decoder[latent] . err.

#ifndef SAETTA_PATH
#include "branch.h"

#define SAETTA_FILE "code_grad.cc"
#include "each_path.h"

extern "C" void saetta_code_grad(saetta::Stream* stream, const saetta::CodeGrad* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, codeGrad, a); });
}

#else

#include "dense.h"
#include "reconstruct.h"

static void codeGrad(Stream& s, const CodeGrad& args) {
  const Branch& a = args.branch;
  Dense dense = denseLatents(s, a);
  if (dense.count > 0) {
    turnDecoder(s, dense, a.decoder, a.d);
    float* buffers = s.scratch<float>(DENSE_THREADS, s.threads * ROWS_A_TILE * dense.padded);
    s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned thread) {
      const size_t first = tile * ROWS_A_TILE, last = std::min(a.B, first + ROWS_A_TILE);
      if (std::isnan(codeGradDense(dense, a, first, last, buffers + thread * ROWS_A_TILE * dense.padded)))
        markBad(args.t);
    });
    return;
  }
  s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned) {
    float nan = 0;
    for (size_t b = tile * ROWS_A_TILE; b < std::min(a.B, (tile + 1) * ROWS_A_TILE); b++)
      nan += codeGradRow(a, b, usedOf(a.z, b), nullptr, 0);
    if (std::isnan(nan)) markBad(args.t);
  });
}

#endif

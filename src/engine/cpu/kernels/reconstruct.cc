// decode, residual and codeGrad of one branch in one pass over the rows: a row's part of the
// decoder (k rows of it) comes from memory once and is still in the L2 cache when its products with
// err are taken; the next row's is asked for meanwhile.

#ifndef SAETTA_PATH
#include "branch.h"

#define SAETTA_FILE "reconstruct.cc"
#include "each_path.h"

extern "C" void saetta_reconstruct(saetta::Stream* stream, const saetta::Reconstruct* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, reconstruct, a); });
}

#else

#include "dense.h"
#include "reconstruct.h"

static void reconstruct(Stream& s, const Reconstruct& a) {
  const Residual& r = a.residual;
  const Blocks blocks(s, r);
  Dense dense = denseLatents(s, a.z, r.B, a.n, r.d);
  if (dense.count > 0) {
    packDecoder(s, dense, a.decoder, r.d);
    turnDecoder(s, dense, a.decoder, r.d);
  }
  float* buffers = s.scratch<float>(DENSE_THREADS, s.threads * blocks.rows * dense.padded);
  s.parallel(blocks.count, [&](size_t block, unsigned thread) {
    double* sums = blocks.begin(block, r.d);
    const size_t first = block * blocks.rows, end = std::min(r.B, first + blocks.rows);
    float nan = 0;
    if (dense.count > 0) {
      float* buffer = buffers + thread * blocks.rows * dense.padded;
      decodeDense(dense, a.z, r.err, first, end, r.d, a.n, buffer);
      for (size_t b = first; b < end; b++) residualRow(r, b, sums);
      if (std::isnan(codeGradDense(dense, a.z, r.err, first, end, r.d, a.n, buffer))) markBad(r.t);
      return;
    }
    if (dense.nothing) {
      // As when AuxK is on and no latent is dead: what the loop below does with nothing but unused
      // slots.
      std::fill(r.err + first * r.d, r.err + end * r.d, 0.0f);
      std::fill(a.z.grad + first * a.z.k, a.z.grad + end * a.z.k, 0.0f);
      for (size_t b = first; b < end; b++) residualRow(r, b, sums);
      return;
    }
    for (size_t b = first; b < end; b++) {
      decodeRow(a.decoder, a.z, r.err, b, r.d, a.n);
      residualRow(r, b, sums);
      nan += codeGradRow(a.decoder, a.z, r.err, b, r.d, a.n, b + 1, end);
    }
    if (std::isnan(nan)) markBad(r.t);
  });
  addUp(r, blocks);
}

#endif

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
#include "skip.h"

static void reconstruct(Stream& s, const Reconstruct& args) {
  const Residual& r = args.residual;
  const Branch& a = r.branch;
  const bool add = args.decode.skip != nullptr;
  if (add) skipOutputs(s, args.decode);
  const Blocks blocks(s, r);
  Dense dense = denseLatents(s, a);
  if (dense.count > 0) {
    packDecoder(s, dense, a.decoder, a.d);
    turnDecoder(s, dense, a.decoder, a.d);
  }
  const PickBuffers picks(s, a);
  float* buffers = s.scratch<float>(DENSE_THREADS, s.threads * blocks.rows * dense.padded);
  s.parallel(blocks.count, [&](size_t block, unsigned thread) {
    double* sums = blocks.begin(block);
    const size_t first = block * blocks.rows, end = std::min(a.B, first + blocks.rows);
    float nan = 0;
    if (dense.count > 0) {
      float* buffer = buffers + thread * blocks.rows * dense.padded;
      decodeDense(dense, a, first, end, add, buffer);
      for (size_t b = first; b < end; b++) residualRow(r, blocks, b, usedOf(a.z, b), sums);
      if (std::isnan(codeGradDense(dense, a, first, end, buffer))) markBad(r.t);
      return;
    }
    size_t used = usedOf(a.z, first);
    for (size_t b = first; b < end; b++) {
      const size_t ahead = b + 1 < end ? usedOf(a.z, b + 1) : 0;
      decodeRow(a, b, used, add, picks, thread);
      residualRow(r, blocks, b, used, sums);
      nan += codeGradRow(a, b, used, a.z.latent + (b + 1) * a.z.k, ahead);
      used = ahead;
    }
    if (std::isnan(nan)) markBad(r.t);
  });
  addUp(r, blocks);
}

#endif

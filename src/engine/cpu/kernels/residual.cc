// residual: err becomes reconstruction minus target, and the sums that the losses are made of, in
// float64.

#ifndef SAETTA_PATH
#include "branch.h"

#define SAETTA_FILE "residual.cc"
#include "each_path.h"

extern "C" void saetta_residual(saetta::Stream* stream, const saetta::Residual* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, residual, a); });
}

#else

#include "reconstruct.h"

static void residual(Stream& s, const Residual& a) {
  const Blocks blocks(s, a);
  s.parallel(blocks.count, [&](size_t block, unsigned) {
    double* sums = blocks.begin(block);
    for (size_t b = block * blocks.rows; b < std::min(a.branch.B, (block + 1) * blocks.rows); b++)
      residualRow(a, blocks, b, usedOf(a.branch.z, b), sums);
  });
  addUp(a, blocks);
}

#endif

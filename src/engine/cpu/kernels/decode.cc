// decode: err = W z, a sum of the decoder rows that are on; with a skip connection, skip x more.

#ifndef SAETTA_PATH
#include "branch.h"

#define SAETTA_FILE "decode.cc"
#include "each_path.h"

extern "C" void saetta_decode(saetta::Stream* stream, const saetta::Decode* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { SAETTA_RUN(s, decode, a); });
}

#else

#include "dense.h"
#include "reconstruct.h"
#include "skip.h"

static void decode(Stream& s, const Decode& args) {
  const Branch& a = args.branch;
  const bool add = args.skip != nullptr;
  if (add) skipOutputs(s, args);
  Dense dense = denseLatents(s, a);
  if (dense.count > 0) {
    packDecoder(s, dense, a.decoder, a.d);
    float* buffers = s.scratch<float>(DENSE_THREADS, s.threads * ROWS_A_TILE * dense.padded);
    s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned thread) {
      const size_t first = tile * ROWS_A_TILE, last = std::min(a.B, first + ROWS_A_TILE);
      decodeDense(dense, a, first, last, add, buffers + thread * ROWS_A_TILE * dense.padded);
    });
    return;
  }
  const PickBuffers buffers(s, a);
  s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned thread) {
    for (size_t b = tile * ROWS_A_TILE; b < std::min(a.B, (tile + 1) * ROWS_A_TILE); b++)
      decodeRow(a, b, usedOf(a.z, b), add, buffers, thread);
  });
}

#endif

// decode: err = W z, a sum of the decoder rows that are on.

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

static void decode(Stream& s, const Decode& a) {
  Dense dense = denseLatents(s, a.z, a.B, a.n, a.d);
  if (dense.count > 0) {
    packDecoder(s, dense, a.decoder, a.d);
    float* buffers = s.scratch<float>(DENSE_THREADS, s.threads * ROWS_A_TILE * dense.padded);
    s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned thread) {
      const size_t first = tile * ROWS_A_TILE, last = std::min(a.B, first + ROWS_A_TILE);
      decodeDense(dense, a.z, a.err, first, last, a.d, a.n, buffers + thread * ROWS_A_TILE * dense.padded);
    });
    return;
  }
  s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned) {
    for (size_t b = tile * ROWS_A_TILE; b < std::min(a.B, (tile + 1) * ROWS_A_TILE); b++)
      decodeRow(a.decoder, a.z, a.err, b, a.d, a.n);
  });
}

#endif

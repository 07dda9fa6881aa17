// decode: err = W z, a sum of the decoder rows that are on.

#ifndef SAETTA_PATH
#include "path.h"

namespace saetta {

struct Decode {
  const float* decoder;
  Codes z;
  float* err;
  size_t B, d, n;
};

}  // namespace saetta

#define SAETTA_FILE "decode.cc"
#include "each_path.h"

extern "C" void saetta_decode(saetta::Stream* stream, const float* decoder, uint32_t* latent, float* value, float* grad, uint64_t k, float* err, uint64_t B,
                              uint64_t d, uint64_t n) {
  using namespace saetta;
  const Decode a = {decoder, {latent, value, grad, k}, err, B, d, n};
  stream->submit([a](Stream& s) { SAETTA_RUN(s, decode, a); });
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
    for (size_t b = tile * ROWS_A_TILE; b < std::min(a.B, (tile + 1) * ROWS_A_TILE); b++) decodeRow(a.decoder, a.z, a.err, b, a.d, a.n);
  });
}

#endif

// decode: err = W z, a sum of the decoder rows that are on.

#ifndef SAETTA_PATH
#include "saetta.h"

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

/// Columns [c, c + N lanes) of one row; unused slots have a latent that is not below n.
template <class T, int N>
static void decodeColumns(const Decode& a, size_t b, size_t c) {
  T sums[N] = {};
  for (size_t slot = b * a.z.k; slot < (b + 1) * a.z.k; slot++) {
    const size_t j = a.z.latent[slot];
    if (j >= a.n) continue;
    const float* w = a.decoder + j * a.d + c;
    const float value = a.z.value[slot];
    for (int u = 0; u < N; u++) sums[u] += load<T>(w + u * lanes<T>) * value;
  }
  for (int u = 0; u < N; u++) store(a.err + b * a.d + c + u * lanes<T>, sums[u]);
}

static void decode(Stream& s, const Decode& a) {
  constexpr size_t ROWS = 8;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      size_t c = 0;
      for (; c + 8 * W <= a.d; c += 8 * W) decodeColumns<Vec, 8>(a, b, c);
      for (; c + W <= a.d; c += W) decodeColumns<Vec, 1>(a, b, c);
      for (; c < a.d; c++) decodeColumns<float, 1>(a, b, c);
    }
  });
}

#endif

// residual: err becomes reconstruction minus target, and the sums that the losses are made of, in float64.
//
// Fixed blocks of rows are summed each on its own, then the blocks in order: the same bits for any number of threads.

#ifndef SAETTA_PATH
#include "saetta.h"

namespace saetta {

struct Residual {
  const float *preBias, *x;
  float* err;
  /// The live err when this is the dead path, else null.
  const float* live;
  const float* value;
  size_t k, B, d;
  Step t;
};

}  // namespace saetta

#define SAETTA_FILE "residual.cc"
#include "each_path.h"

extern "C" void saetta_residual(saetta::Stream* stream, const float* preBias, const float* x, float* err, const float* live, const float* value, uint64_t k,
                                uint64_t B, uint64_t d, double* hyper, double* sums, uint32_t* fired, uint32_t* bad, double* sq) {
  using namespace saetta;
  const Residual a = {preBias, x, err, live, value, k, B, d, {hyper, sums, fired, bad, sq}};
  stream->submit([a](Stream& s) { SAETTA_RUN(s, residual, a); });
}

#else

/// Partial sums of one block, an array of d for each.
enum Column { ERR_SQUARES, ERR_SUM, X_SQUARES, CENTRED_SQUARES, CENTRED_SUM, COLUMNS };

static void liveRow(const float* __restrict preBias, const float* __restrict x, float* __restrict err, double* __restrict sums, size_t d) {
  double* __restrict errSquares = sums + ERR_SQUARES * d;
  double* __restrict errSum = sums + ERR_SUM * d;
  double* __restrict xSquares = sums + X_SQUARES * d;
  double* __restrict centredSquares = sums + CENTRED_SQUARES * d;
  double* __restrict centredSum = sums + CENTRED_SUM * d;
  for (size_t i = 0; i < d; i++) {
    const float e = err[i] + (preBias[i] - x[i]);
    const double centred = static_cast<double>(x[i]) - preBias[i];
    err[i] = e;
    errSquares[i] += static_cast<double>(e) * e;
    errSum[i] += e;
    xSquares[i] += static_cast<double>(x[i]) * x[i];
    centredSquares[i] += centred * centred;
    centredSum[i] += centred;
  }
}

static void deadRow(const float* __restrict live, float* __restrict err, double* __restrict sums, size_t d) {
  for (size_t i = 0; i < d; i++) {
    err[i] += live[i];
    sums[i] += static_cast<double>(err[i]) * err[i];
  }
}

static void residual(Stream& s, const Residual& a) {
  const size_t d = a.d, columns = a.live != nullptr ? 1 : COLUMNS;
  const size_t rows = std::max<size_t>(64, ceilDiv(a.B, 256)), blocks = ceilDiv(a.B, rows);
  double* partial = s.scratch<double>(0, blocks * columns * d);
  s.parallel(blocks, [&](size_t block, unsigned) {
    double* sums = partial + block * columns * d;
    std::fill(sums, sums + columns * d, 0.0);
    for (size_t b = block * rows; b < std::min(a.B, (block + 1) * rows); b++) {
      if (a.live != nullptr) deadRow(a.live + b * d, a.err + b * d, sums, d);
      else liveRow(a.preBias, a.x + b * d, a.err + b * d, sums, d);
    }
  });
  for (size_t block = 1; block < blocks; block++) {
    for (size_t i = 0; i < columns * d; i++) partial[i] += partial[block * columns * d + i];
  }
  const auto all = [&](size_t column) {
    double sum = 0;
    for (size_t i = 0; i < d; i++) sum += partial[column * d + i];
    return sum;
  };
  const double squares = all(ERR_SQUARES);
  // Squares of floats cannot overflow in float64: the sum is finite exactly when every element is.
  if (!std::isfinite(squares)) markBad(a.t);
  if (a.live != nullptr) {
    a.t.sums[AUX_ERR2] += squares;
    return;
  }
  a.t.sums[ERR2] += squares;
  a.t.sums[X2] += all(X_SQUARES);
  a.t.sums[CENTRED2] += all(CENTRED_SQUARES);
  size_t active = 0;
  for (size_t slot = 0; slot < a.B * a.k; slot++) active += a.value[slot] > 0;
  a.t.sums[ACTIVE] += static_cast<double>(active);
  for (size_t i = 0; i < d; i++) {
    a.t.sums[SUMS + i] += partial[ERR_SUM * d + i];
    a.t.sums[SUMS + d + i] += partial[CENTRED_SUM * d + i];
  }
}

#endif

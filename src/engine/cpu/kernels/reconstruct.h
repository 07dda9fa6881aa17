// What decode, residual and codeGrad do to one row; included in the namespace of an instruction set
// by each of them, and by reconstruct.cc, which does all three at once: the same operations in the
// same order, so the same bits.

/// Columns [c, c + N lanes) of err = W z; unused slots have a latent that is not below n.
template <class T, int N>
static inline void decodeColumns(const float* decoder, const Codes& z, float* err, size_t b, size_t c, size_t d,
                                 size_t n) {
  T sums[N] = {};
  for (size_t slot = b * z.k; slot < (b + 1) * z.k; slot++) {
    const size_t j = z.latent[slot];
    if (j >= n) continue;
    const float* w = decoder + j * d + c;
    const float value = z.value[slot];
    for (int u = 0; u < N; u++) sums[u] += load<T>(w + u * lanes<T>) * value;
  }
  for (int u = 0; u < N; u++) store(err + b * d + c + u * lanes<T>, sums[u]);
}

[[maybe_unused]] static void decodeRow(const float* decoder, const Codes& z, float* err, size_t b, size_t d, size_t n) {
  constexpr int N = W == 16 ? 16 : 8;
  size_t c = 0;
  for (; c + N * W <= d; c += N * W) decodeColumns<Vec, N>(decoder, z, err, b, c, d, n);
  for (; c + 4 * W <= d; c += 4 * W) decodeColumns<Vec, 4>(decoder, z, err, b, c, d, n);
  for (; c + W <= d; c += W) decodeColumns<Vec, 1>(decoder, z, err, b, c, d, n);
  for (; c < d; c++) decodeColumns<float, 1>(decoder, z, err, b, c, d, n);
}

/// Partial sums of one block of rows, an array of d for each.
enum Column { ERR_SQUARES, ERR_SUM, X_SQUARES, CENTRED_SQUARES, CENTRED_SUM, COLUMNS };

static inline void liveRow(const float* __restrict preBias, const float* __restrict x, float* __restrict err,
                           double* __restrict sums, size_t d) {
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

static inline void deadRow(const float* __restrict live, float* __restrict err, double* __restrict sums, size_t d) {
  for (size_t i = 0; i < d; i++) {
    err[i] += live[i];
    sums[i] += static_cast<double>(err[i]) * err[i];
  }
}

/// Fixed blocks of rows are summed each on its own, then the blocks in order: the same bits for any
/// number of threads.
struct Blocks {
  size_t rows, count, columns;
  double* partial;

  Blocks(Stream& s, const Residual& a)
      : rows(std::max<size_t>(32, ceilDiv(a.B, 256))),
        count(ceilDiv(a.B, rows)),
        columns(a.live != nullptr ? 1 : static_cast<size_t>(COLUMNS)),
        partial(s.scratch<double>(0, count * columns * a.d)) {}

  double* begin(size_t block, size_t d) const {
    double* sums = partial + block * columns * d;
    std::fill(sums, sums + columns * d, 0.0);
    return sums;
  }
};

[[maybe_unused]] static void residualRow(const Residual& a, size_t b, double* sums) {
  if (a.live != nullptr) deadRow(a.live + b * a.d, a.err + b * a.d, sums, a.d);
  else liveRow(a.preBias, a.x + b * a.d, a.err + b * a.d, sums, a.d);
}

/// What the blocks have found, added to the sums of the step.
[[maybe_unused]] static void addUp(const Residual& a, const Blocks& blocks) {
  const size_t d = a.d;
  double* partial = blocks.partial;
  for (size_t block = 1; block < blocks.count; block++) {
    for (size_t i = 0; i < blocks.columns * d; i++) partial[i] += partial[block * blocks.columns * d + i];
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

static inline float dotOfRow(const float* a, const float* b, size_t d) {
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

/// The gradient of every value of row b; NaN or 0, NaN when one is not finite. `ahead`: the row
/// whose part of the decoder is asked for meanwhile, or B.
[[maybe_unused]] static float codeGradRow(const float* decoder, const Codes& z, const float* err, size_t b, size_t d,
                                          size_t n, size_t ahead, size_t B) {
  float nan = 0;
  for (size_t i = 0; i < z.k; i++) {
    if (ahead < B && z.latent[ahead * z.k + i] < n) {
      const char* row = reinterpret_cast<const char*>(decoder + z.latent[ahead * z.k + i] * d);
      for (size_t byte = 0; byte < d * sizeof(float); byte += 64) __builtin_prefetch(row + byte, 0, 2);
    }
    const size_t j = z.latent[b * z.k + i];
    const float grad = j < n ? dotOfRow(decoder + j * d, err + b * d, d) : 0.0f;
    z.grad[b * z.k + i] = grad;
    nan += grad * 0.0f;
  }
  return nan;
}

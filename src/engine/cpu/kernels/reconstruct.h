// What decode, residual and codeGrad do to one row; included in the namespace of an instruction set
// by each of them, and by reconstruct.cc, which does all three at once: the same operations in the
// same order, so the same bits.

/// Scratch slots, apart from those of dense.h.
enum BranchScratch : size_t { PICKED_LATENTS = 30, PICKED_VALUES, SKIP_PANELS };

/// Codes of one row.
struct Picked {
  const uint32_t* latent;
  const float* value;
  size_t count;
};

/// Columns [c, c + N lanes) of err [d] = W z, or err + W z with `add`.
template <class T, int N>
static inline void decodeColumns(const float* decoder, const Picked& z, float* err, size_t c, size_t d, bool add) {
  T sums[N] = {};
  for (size_t slot = 0; slot < z.count; slot++) {
    const float* w = decoder + z.latent[slot] * d + c;
    const float value = z.value[slot];
    for (int u = 0; u < N; u++) sums[u] += load<T>(w + u * lanes<T>) * value;
  }
  if (add)
    for (int u = 0; u < N; u++) sums[u] += load<T>(err + c + u * lanes<T>);
  for (int u = 0; u < N; u++) store(err + c + u * lanes<T>, sums[u]);
}

static void decodePicked(const float* decoder, const Picked& z, float* err, size_t d, bool add) {
  constexpr int N = W == 16 ? 16 : 8;
  size_t c = 0;
  for (; c + N * W <= d; c += N * W) decodeColumns<Vec, N>(decoder, z, err, c, d, add);
  for (; c + 4 * W <= d; c += 4 * W) decodeColumns<Vec, 4>(decoder, z, err, c, d, add);
  for (; c + W <= d; c += W) decodeColumns<Vec, 1>(decoder, z, err, c, d, add);
  for (; c < d; c++) decodeColumns<float, 1>(decoder, z, err, c, d, add);
}

/// Where a thread puts the codes of one plane together.
struct PickBuffers {
  uint32_t* latent = nullptr;
  float* value = nullptr;

  PickBuffers(Stream& s, const Branch& a)
      : latent(a.prefixes.count > 1 ? s.scratch<uint32_t>(PICKED_LATENTS, s.threads * a.z.k) : nullptr),
        value(a.prefixes.count > 1 ? s.scratch<float>(PICKED_VALUES, s.threads * a.z.k) : nullptr) {}
};

/// Row b of err from its `used` codes: of each plane, the sum over the latents whose first prefix
/// it is. With `add`, plane 0 holds the skip connection's part already.
[[maybe_unused]] static void decodeRow(const Branch& a, size_t b, size_t used, bool add, const PickBuffers& buffers,
                                       unsigned thread) {
  const uint32_t* latent = a.z.latent + b * a.z.k;
  const float* value = a.z.value + b * a.z.k;
  if (a.prefixes.count <= 1) return decodePicked(a.decoder, {latent, value, used}, a.err + b * a.d, a.d, add);
  uint32_t* latents = buffers.latent + thread * a.z.k;
  float* values = buffers.value + thread * a.z.k;
  uint32_t from = 0;
  for (size_t plane = 0; plane < a.prefixes.count; plane++) {
    const bool last = plane + 1 == a.prefixes.count;
    const uint32_t end = last ? NONE : a.prefixes.ends[plane];
    size_t count = 0;
    for (size_t slot = 0; slot < used; slot++) {
      if (latent[slot] < from || latent[slot] >= end) continue;
      latents[count] = latent[slot];
      values[count++] = value[slot];
    }
    decodePicked(a.decoder, {latents, values, count}, a.err + (plane * a.B + b) * a.d, a.d, add && plane == 0);
    from = end;
  }
}

/// Partial sums of one block of rows, an array of d for each. Then follow numbers of their own: the
/// codes that are on, tanh of their values, and the squared residual of each prefix but the last.
enum Column { ERR_SQUARES, ERR_SUM, X_SQUARES, CENTRED_SQUARES, CENTRED_SUM, PLANE_SUM };
enum Extra { ACTIVE_CODES, TANH_SUM, PREFIX_SQUARES };

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

/// The planes of row b become as prefixResiduals of sae/math.ts has them; the last is a liveRow.
[[maybe_unused]] static void planesRow(const Residual& a, size_t b, double* __restrict sums, double* squares) {
  const size_t d = a.branch.d, last = a.branch.prefixes.count - 1;
  const auto plane = [&](size_t g) { return a.branch.err + (g * a.branch.B + b) * d; };
  const float *__restrict preBias = a.preBias, *__restrict target = a.target + b * d;
  for (size_t g = 0; g < last; g++) {
    float *__restrict here = plane(g), *__restrict next = plane(g + 1);
    for (size_t i = 0; i < d; i++) next[i] += here[i];
    for (size_t i = 0; i < d; i++) here[i] += preBias[i] - target[i];
    squares[g] += dot(plane(g), plane(g), d);
  }
  liveRow(preBias, target, plane(last), sums, d);
  for (size_t g = last; g-- > 0;) {
    float *__restrict here = plane(g), *__restrict next = plane(g + 1);
    const float weight = static_cast<float>(a.branch.prefixes.weights[g]);
    for (size_t i = 0; i < d; i++) here[i] = weight * here[i] + next[i];
  }
  const float* __restrict first = plane(0);
  double* __restrict planeSum = sums + PLANE_SUM * d;
  for (size_t i = 0; i < d; i++) planeSum[i] += first[i];
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
  /// `size`: numbers of a block.
  size_t rows, count, columns, size;
  double* partial;

  Blocks(Stream& s, const Residual& a)
      : rows(std::max<size_t>(32, ceilDiv(a.branch.B, 256))),
        count(ceilDiv(a.branch.B, rows)),
        columns(a.live != nullptr ? 1 : a.branch.prefixes.count > 1 ? PLANE_SUM + 1 : PLANE_SUM),
        size(columns * a.branch.d + PREFIX_SQUARES + a.branch.prefixes.count),
        partial(s.scratch<double>(0, count * size)) {}

  double* begin(size_t block) const {
    double* sums = partial + block * size;
    std::fill(sums, sums + size, 0.0);
    return sums;
  }
};

/// Row b with its `used` codes.
[[maybe_unused]] static void residualRow(const Residual& a, const Blocks& blocks, size_t b, size_t used, double* sums) {
  const size_t d = a.branch.d;
  if (a.live != nullptr) return deadRow(a.live + b * d, a.branch.err + b * d, sums, d);
  double* extra = sums + blocks.columns * d;
  if (a.branch.prefixes.count > 1) planesRow(a, b, sums, extra + PREFIX_SQUARES);
  else liveRow(a.preBias, a.target + b * d, a.branch.err + b * d, sums, d);
  extra[ACTIVE_CODES] += static_cast<double>(used);
  if (a.t.hyper[PENALTY] != PENALTY_TANH) return;
  const float* value = a.branch.z.value + b * a.branch.z.k;
  for (size_t slot = 0; slot < used; slot++) extra[TANH_SUM] += std::tanh(a.t.hyper[TANH_SCALE] * value[slot]);
}

/// What the blocks have found, added to the sums of the step.
[[maybe_unused]] static void addUp(const Residual& a, const Blocks& blocks) {
  const size_t d = a.branch.d, inner = a.branch.prefixes.count > 1 ? a.branch.prefixes.count - 1 : 0;
  double* partial = blocks.partial;
  for (size_t block = 1; block < blocks.count; block++) {
    for (size_t i = 0; i < blocks.size; i++) partial[i] += partial[block * blocks.size + i];
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
  const double* extra = partial + blocks.columns * d;
  a.t.sums[ERR2] += squares;
  a.t.sums[X2] += all(X_SQUARES);
  a.t.sums[CENTRED2] += all(CENTRED_SQUARES);
  a.t.sums[ACTIVE] += extra[ACTIVE_CODES];
  a.t.sums[TANH] += extra[TANH_SUM];
  for (size_t i = 0; i < d; i++) {
    a.t.sums[SUMS + i] += partial[ERR_SUM * d + i];
    a.t.sums[SUMS + d + i] += partial[CENTRED_SUM * d + i];
    if (inner > 0) a.t.sums[SUMS + 2 * d + i] += partial[PLANE_SUM * d + i];
  }
  // The other planes are sums of what is in them.
  if (inner > 0 && !std::isfinite(all(PLANE_SUM))) markBad(a.t);
  for (size_t g = 0; g < inner; g++) a.t.sums[SUMS + 3 * d + g] += extra[PREFIX_SQUARES + g];
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

/// The gradient of every value of row b; NaN or 0, NaN when one is not finite. Unused slots have
/// gradient 0 already. Rows of the decoder for the `aheadCount` latents of `ahead` are asked for
/// meanwhile.
[[maybe_unused]] static float codeGradRow(const Branch& a, size_t b, size_t used, const uint32_t* ahead,
                                          size_t aheadCount) {
  float nan = 0;
  const size_t d = a.d;
  for (size_t i = 0; i < std::max(used, aheadCount); i++) {
    if (i < aheadCount) {
      const char* row = reinterpret_cast<const char*>(a.decoder + ahead[i] * d);
      for (size_t byte = 0; byte < d * sizeof(float); byte += 64) __builtin_prefetch(row + byte, 0, 2);
    }
    if (i >= used) continue;
    const size_t j = a.z.latent[b * a.z.k + i];
    const float grad = dotOfRow(a.decoder + j * d, a.err + (planeOf(a.prefixes, j) * a.B + b) * d, d);
    a.z.grad[b * a.z.k + i] = grad;
    nan += grad * 0.0f;
  }
  return nan;
}

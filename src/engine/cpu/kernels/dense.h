// Codes in which few latents are on in many rows, as those of a few dead latents are, are
// multiplied as a dense matrix over just these latents: the same work in whole registers. Included
// in the namespace of an instruction set. Which way is taken depends on the codes alone, so every
// operation of a step takes the same. Only err of one plane is formed so.

#if SAETTA_WIDTH == 16
constexpr int DENSE_VECTORS = 3;
constexpr size_t DENSE_ROWS = 8;
#elif SAETTA_WIDTH == 8
constexpr int DENSE_VECTORS = 3;
constexpr size_t DENSE_ROWS = 4;
#else
constexpr int DENSE_VECTORS = 2;
constexpr size_t DENSE_ROWS = 4;
#endif
constexpr size_t DENSE_COLUMNS = DENSE_VECTORS * W;

/// Above this share of slots in use among (rows x latents that occur) the dense way was measured to
/// be the faster, for at most so many latents.
constexpr double DENSE_SHARE = 0.3;
constexpr size_t DENSE_LATENTS = 1024, DENSE_LEAST = size_t{1} << 14;
/// Rows of the batch that a sum over all rows takes at a time.
constexpr size_t DENSE_PIECE = 1024;

/// Scratch slots, apart from those of the operations.
enum DenseScratch : size_t {
  DENSE_LIST = 20,
  DENSE_PLACE,
  DENSE_DECODER,
  DENSE_TURNED,
  DENSE_THREADS,
  DENSE_Z,
  DENSE_G,
  DENSE_X,
  DENSE_ERR
};

/// The latents that occur, in order; none when the sparse way is taken.
struct Dense {
  size_t count = 0, padded = 0;
  const uint32_t* latents = nullptr;
  /// [n] where a latent is in `latents`.
  const uint32_t* place = nullptr;
  /// Rows of the decoder as [d / DENSE_COLUMNS][count][DENSE_COLUMNS], and turned as [count /
  /// DENSE_COLUMNS][d][DENSE_COLUMNS].
  const float *decoder = nullptr, *turned = nullptr;
};

static Dense denseLatents(Stream& s, const Branch& a) {
  Dense dense;
  if (a.prefixes.count > 1) return dense;
  const Codes& z = a.z;
  uint32_t* place = s.scratch<uint32_t>(DENSE_PLACE, a.n);
  uint32_t* latents = s.scratch<uint32_t>(DENSE_LIST, DENSE_LATENTS);
  std::fill(place, place + a.n, NONE);
  size_t count = 0, used = 0;
  for (size_t b = 0; b < a.B; b++) {
    for (size_t slot = b * z.k; slot < (b + 1) * z.k && z.latent[slot] != NONE; slot++) {
      const size_t j = z.latent[slot];
      used++;
      if (place[j] != NONE) continue;
      if (count == DENSE_LATENTS) return dense;
      place[j] = 0;
      latents[count++] = static_cast<uint32_t>(j);
    }
  }
  if (count * a.B * a.d < DENSE_LEAST ||
      static_cast<double>(used) < DENSE_SHARE * static_cast<double>(count) * static_cast<double>(a.B))
    return dense;
  std::sort(latents, latents + count);
  for (size_t i = 0; i < count; i++) place[latents[i]] = static_cast<uint32_t>(i);
  dense.count = count;
  dense.padded = ceilDiv(count, DENSE_COLUMNS) * DENSE_COLUMNS;
  dense.latents = latents;
  dense.place = place;
  return dense;
}

/// from [rows][d], less `minus`, as [d / DENSE_COLUMNS][rows][DENSE_COLUMNS]; `rowOf(r)` is where
/// row r is.
template <class F>
static void packPanels(Stream& s, size_t rows, size_t d, const F& rowOf, const float* minus, float* to) {
  const size_t panels = ceilDiv(d, DENSE_COLUMNS);
  s.parallel(panels, [&](size_t panel, unsigned) {
    const size_t first = panel * DENSE_COLUMNS, columns = std::min(DENSE_COLUMNS, d - first);
    for (size_t r = 0; r < rows; r++) {
      float* at = to + (panel * rows + r) * DENSE_COLUMNS;
      const float* row = rowOf(r) + first;
      for (size_t c = 0; c < columns; c++) at[c] = minus == nullptr ? row[c] : row[c] - minus[first + c];
      for (size_t c = columns; c < DENSE_COLUMNS; c++) at[c] = 0;
    }
  });
}

[[maybe_unused]] static void packDecoder(Stream& s, Dense& dense, const float* decoder, size_t d) {
  float* panels = s.scratch<float>(DENSE_DECODER, ceilDiv(d, DENSE_COLUMNS) * DENSE_COLUMNS * dense.count);
  packPanels(s, dense.count, d, [&](size_t r) { return decoder + dense.latents[r] * d; }, nullptr, panels);
  dense.decoder = panels;
}

/// `rows` rows of d, of which `rowOf(r)` is where row r is, turned: [rows / DENSE_COLUMNS][d]
/// [DENSE_COLUMNS], with zeros past the last.
template <class F>
static void turnPanels(Stream& s, size_t rows, size_t d, const F& rowOf, float* to) {
  s.parallel(ceilDiv(rows, DENSE_COLUMNS), [&](size_t panel, unsigned) {
    for (size_t c = 0; c < DENSE_COLUMNS; c++) {
      const size_t r = panel * DENSE_COLUMNS + c;
      const float* row = r < rows ? rowOf(r) : nullptr;
      for (size_t i = 0; i < d; i++) to[(panel * d + i) * DENSE_COLUMNS + c] = row == nullptr ? 0 : row[i];
    }
  });
}

[[maybe_unused]] static void turnDecoder(Stream& s, Dense& dense, const float* decoder, size_t d) {
  float* turned = s.scratch<float>(DENSE_TURNED, dense.padded * d);
  turnPanels(s, dense.count, d, [&](size_t r) { return decoder + dense.latents[r] * d; }, turned);
  dense.turned = turned;
}

/// out [R][DENSE_COLUMNS] = sum over k of a[r * rowStep + k * step] b[k][DENSE_COLUMNS], in the
/// order of k.
template <size_t R>
static inline void multiply(const float* a, size_t rowStep, size_t step, const float* b, size_t K, float* out) {
  Vec sums[R][DENSE_VECTORS] = {};
  for (size_t k = 0; k < K; k++, b += DENSE_COLUMNS, a += step) {
    Vec row[DENSE_VECTORS];
    for (int v = 0; v < DENSE_VECTORS; v++) row[v] = load<Vec>(b + v * W);
    for (size_t r = 0; r < R; r++) {
      const float element = a[r * rowStep];
      for (int v = 0; v < DENSE_VECTORS; v++) sums[r][v] += row[v] * element;
    }
  }
  for (size_t r = 0; r < R; r++) {
    for (int v = 0; v < DENSE_VECTORS; v++) store(out + r * DENSE_COLUMNS + v * W, sums[r][v]);
  }
}

/// use(r, product row) for `rows` rows, R at a time: the same operations for each element however
/// many rows go together.
template <class F>
static inline void multiplyRows(size_t rows, const float* a, size_t rowStep, size_t step, const float* b, size_t K,
                                const F& use) {
  float out[DENSE_ROWS * DENSE_COLUMNS] __attribute__((aligned(64)));
  size_t r = 0;
  for (; r + DENSE_ROWS <= rows; r += DENSE_ROWS) {
    multiply<DENSE_ROWS>(a + r * rowStep, rowStep, step, b, K, out);
    for (size_t i = 0; i < DENSE_ROWS; i++) use(r + i, out + i * DENSE_COLUMNS);
  }
  for (; r < rows; r++) {
    multiply<1>(a + r * rowStep, rowStep, step, b, K, out);
    use(r, out);
  }
}

/// The codes of rows [first, last) as a matrix [last - first][padded]; values or gradients, times a
/// factor.
static void spell(const Dense& dense, const Codes& z, const float* of, float factor, size_t first, size_t last,
                  float* to) {
  std::fill(to, to + (last - first) * dense.padded, 0.0f);
  for (size_t b = first; b < last; b++) {
    float* row = to + (b - first) * dense.padded;
    for (size_t slot = b * z.k; slot < (b + 1) * z.k && z.latent[slot] != NONE; slot++)
      row[dense.place[z.latent[slot]]] = factor * of[slot];
  }
}

/// err of rows [first, last) = W z, or err + W z with `add`; `buffer` [last - first][padded].
[[maybe_unused]] static void decodeDense(const Dense& dense, const Branch& a, size_t first, size_t last, bool add,
                                         float* buffer) {
  const size_t d = a.d;
  spell(dense, a.z, a.z.value, 1, first, last, buffer);
  for (size_t panel = 0; panel < ceilDiv(d, DENSE_COLUMNS); panel++) {
    const size_t c = panel * DENSE_COLUMNS, columns = std::min(DENSE_COLUMNS, d - c);
    multiplyRows(last - first, buffer, dense.padded, 1, dense.decoder + panel * dense.count * DENSE_COLUMNS,
                 dense.count, [&](size_t r, const float* product) {
                   float* to = a.err + (first + r) * d + c;
                   for (size_t i = 0; i < columns; i++) to[i] = add ? to[i] + product[i] : product[i];
                 });
  }
}

/// The gradients of the values of rows [first, last). NaN or 0, NaN when one is not finite.
[[maybe_unused]] static float codeGradDense(const Dense& dense, const Branch& a, size_t first, size_t last,
                                            float* buffer) {
  const Codes& z = a.z;
  const size_t d = a.d;
  for (size_t panel = 0; panel < dense.padded / DENSE_COLUMNS; panel++) {
    multiplyRows(last - first, a.err + first * d, d, 1, dense.turned + panel * d * DENSE_COLUMNS, d,
                 [&](size_t r, const float* product) {
                   std::copy(product, product + DENSE_COLUMNS, buffer + r * dense.padded + panel * DENSE_COLUMNS);
                 });
  }
  float nan = 0;
  for (size_t b = first; b < last; b++) {
    const float* row = buffer + (b - first) * dense.padded;
    for (size_t slot = b * z.k; slot < (b + 1) * z.k && z.latent[slot] != NONE; slot++) {
      const float grad = row[dense.place[z.latent[slot]]];
      z.grad[slot] = grad;
      nan += grad * 0.0f;
    }
  }
  return nan;
}

/// rows [count][dIn + dOut] of gradients: sums of g (x - minus), and of z err, over all rows of the
/// batch, so many at a time.
[[maybe_unused]] static void gradientsDense(Stream& s, const Dense& dense, const Branch& a, const float* x, size_t dIn,
                                            const float* minus, float factor, float* rows) {
  constexpr size_t SPELL = 64;
  const Codes& z = a.z;
  const size_t piece = std::min(a.B, DENSE_PIECE), dOut = a.d;
  const size_t panelsIn = ceilDiv(dIn, DENSE_COLUMNS), panelsOut = ceilDiv(dOut, DENSE_COLUMNS);
  float *values = s.scratch<float>(DENSE_Z, piece * dense.padded),
        *grads = s.scratch<float>(DENSE_G, piece * dense.padded);
  float *inputs = s.scratch<float>(DENSE_X, panelsIn * DENSE_COLUMNS * piece),
        *errors = s.scratch<float>(DENSE_ERR, panelsOut * DENSE_COLUMNS * piece);
  for (size_t first = 0; first < a.B; first += piece) {
    const size_t count = std::min(piece, a.B - first);
    s.parallel(ceilDiv(count, SPELL), [&](size_t tile, unsigned) {
      const size_t from = tile * SPELL, to = std::min(count, from + SPELL);
      spell(dense, z, z.value, factor, first + from, first + to, values + from * dense.padded);
      spell(dense, z, z.grad, factor, first + from, first + to, grads + from * dense.padded);
    });
    packPanels(s, count, dIn, [&](size_t r) { return x + (first + r) * dIn; }, minus, inputs);
    packPanels(s, count, dOut, [&](size_t r) { return a.err + (first + r) * dOut; }, nullptr, errors);
    s.parallel(panelsIn + panelsOut, [&](size_t tile, unsigned) {
      const bool input = tile < panelsIn;
      const size_t panel = input ? tile : tile - panelsIn, c = panel * DENSE_COLUMNS,
                   columns = std::min(DENSE_COLUMNS, (input ? dIn : dOut) - c);
      const float* from = (input ? inputs : errors) + panel * count * DENSE_COLUMNS;
      multiplyRows(dense.count, input ? grads : values, 1, dense.padded, from, count,
                   [&](size_t r, const float* product) {
                     float* to = rows + r * (dIn + dOut) + (input ? 0 : dIn) + c;
                     if (first == 0)
                       std::copy(product, product + columns, to);
                     else
                       for (size_t i = 0; i < columns; i++) to[i] += product[i];
                   });
    });
  }
}

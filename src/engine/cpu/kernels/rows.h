// Gradient rows of a latent; included in the namespace of an instruction set by the operations that
// need them.

/// Asks for N whole vectors of floats at p.
template <class T, int N>
static inline void fetch(const float* p) {
  if (lanes<T> == 1) return;
  for (size_t byte = 0; byte < N * sizeof(T); byte += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(p) + byte, 0, 2);
}

/// sums += entries [first, last): columns [c, c + N lanes) of from[row], less `minus` where there
/// is one, times the factor. What the entry ENTRIES_AHEAD later, of this list or another, will need
/// of `from` is asked for meanwhile.
template <class T, int N>
static inline void addEntries(T (&sums)[N], const Entry* first, const Entry* last, float Entry::*factor,
                              const float* from, const float* minus, size_t d, size_t c) {
  // In runs, so that rounding does not grow with the length of the list.
  constexpr ptrdiff_t RUN = 64;
  while (first < last) {
    const Entry* end = first + std::min(RUN, last - first);
    T run[N] = {};
    for (; first < end; first++) {
      const float f = first->*factor;
      const float* row = from + first->row * d + c;
      fetch<T, N>(from + first[ENTRIES_AHEAD].row * d + c);
      for (int u = 0; u < N; u++) {
        T element = load<T>(row + u * lanes<T>);
        if (minus != nullptr) element -= load<T>(minus + c + u * lanes<T>);
        run[u] += element * f;
      }
    }
    for (int u = 0; u < N; u++) sums[u] += run[u];
  }
}

template <class T, int N>
static inline void encoderColumns(const Gradients& g, uint64_t first, uint64_t last, float* row, size_t c) {
  T sums[N] = {};
  addEntries<T, N>(sums, g.entries + first, g.entries + last, &Entry::grad, g.x, g.minus, g.dIn, c);
  for (int u = 0; u < N; u++) store(row + c + u * lanes<T>, sums[u]);
}

/// `liveErr`: the plane that the latent reads.
template <class T, int N>
static inline void decoderColumns(const Gradients& g, uint64_t first, uint64_t middle, uint64_t last,
                                  const float* liveErr, float* row, size_t c) {
  T sums[N] = {};
  addEntries<T, N>(sums, g.entries + first, g.entries + middle, &Entry::value, liveErr, nullptr, g.dOut, c);
  addEntries<T, N>(sums, g.entries + middle, g.entries + last, &Entry::value, g.deadErr, nullptr, g.dOut, c);
  for (int u = 0; u < N; u++) store(row + c + u * lanes<T>, sums[u]);
}

/// The sums over entries [first, last) of the list of latent j.
static void formRows(const Gradients& g, size_t j, uint64_t first, uint64_t last, float* encoder, float* decoder) {
  const uint64_t middle = std::min(std::max(g.middle[j], first), last);
  const float* liveErr = g.live.err + planeOf(g.live.prefixes, j) * g.live.B * g.dOut;
  constexpr int N = W == 16 ? 8 : 4;
  size_t c = 0;
  for (; c + N * W <= g.dIn; c += N * W) encoderColumns<Vec, N>(g, first, last, encoder, c);
  for (; c + W <= g.dIn; c += W) encoderColumns<Vec, 1>(g, first, last, encoder, c);
  for (; c < g.dIn; c++) encoderColumns<float, 1>(g, first, last, encoder, c);
  c = 0;
  for (; c + N * W <= g.dOut; c += N * W) decoderColumns<Vec, N>(g, first, middle, last, liveErr, decoder, c);
  for (; c + W <= g.dOut; c += W) decoderColumns<Vec, 1>(g, first, middle, last, liveErr, decoder, c);
  for (; c < g.dOut; c++) decoderColumns<float, 1>(g, first, middle, last, liveErr, decoder, c);
}

/// The pre-activation loss of latent j, where it is dead, to its encoder's gradient.
[[maybe_unused]] static void addDeadRow(const Gradients& g, size_t j, float* encoder) {
  if (!g.isPenalised(j)) return;
  for (size_t i = 0; i < g.dIn; i++) encoder[i] -= g.deadRow[i];
}

struct Rows {
  /// Null where all are zeros.
  const float *encoder, *decoder;
};

/// The gradient rows of latent j: the dense ones, the sums of a long list, or formed now in
/// `buffer` [dIn + dOut].
[[maybe_unused]] static Rows rowsOf(const Gradients& g, size_t j, float* buffer) {
  if (g.g.encoder != nullptr) return {g.g.encoder + j * g.dIn, g.g.decoder + j * g.dOut};
  if (g.longAt[j] != NONE) {
    const float* rows = g.longRows + g.longAt[j] * g.width();
    return {rows, rows + g.dIn};
  }
  const bool on = g.start[j] != g.start[j + 1];
  if (!on && !g.isPenalised(j)) return {nullptr, nullptr};
  if (on) formRows(g, j, g.start[j], g.start[j + 1], buffer, buffer + g.dIn);
  else std::fill(buffer, buffer + g.dIn, 0.0f);
  addDeadRow(g, j, buffer);
  return {buffer, on ? buffer + g.dIn : nullptr};
}

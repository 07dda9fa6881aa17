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
static inline void formColumns(const Gradients& g, uint64_t first, uint64_t middle, uint64_t last, float* encoder,
                               float* decoder, size_t c) {
  T sums[N] = {};
  addEntries<T, N>(sums, g.entries + first, g.entries + last, &Entry::grad, g.x, g.preBias, g.d, c);
  for (int u = 0; u < N; u++) store(encoder + c + u * lanes<T>, sums[u]);
  T other[N] = {};
  addEntries<T, N>(other, g.entries + first, g.entries + middle, &Entry::value, g.liveErr, nullptr, g.d, c);
  addEntries<T, N>(other, g.entries + middle, g.entries + last, &Entry::value, g.deadErr, nullptr, g.d, c);
  for (int u = 0; u < N; u++) store(decoder + c + u * lanes<T>, other[u]);
}

/// The sums over entries [first, last) of the list of latent j.
static void formRows(const Gradients& g, size_t j, uint64_t first, uint64_t last, float* encoder, float* decoder) {
  const uint64_t middle = std::min(std::max(g.middle[j], first), last);
  constexpr int N = W == 16 ? 8 : 4;
  size_t c = 0;
  for (; c + N * W <= g.d; c += N * W) formColumns<Vec, N>(g, first, middle, last, encoder, decoder, c);
  for (; c + W <= g.d; c += W) formColumns<Vec, 1>(g, first, middle, last, encoder, decoder, c);
  for (; c < g.d; c++) formColumns<float, 1>(g, first, middle, last, encoder, decoder, c);
}

struct Rows {
  /// Null when the latent was not on: all zeros.
  const float *encoder, *decoder;
};

/// The gradient rows of latent j: the dense ones, the sums of a long list, or formed now in
/// `buffer` [2,d].
[[maybe_unused]] static Rows rowsOf(const Gradients& g, size_t j, float* buffer) {
  if (g.g.encoder != nullptr) return {g.g.encoder + j * g.d, g.g.decoder + j * g.d};
  if (g.start[j] == g.start[j + 1]) return {nullptr, nullptr};
  if (g.longAt[j] != NONE) {
    const float* rows = g.longRows + g.longAt[j] * 2 * g.d;
    return {rows, rows + g.d};
  }
  formRows(g, j, g.start[j], g.start[j + 1], buffer, buffer + g.d);
  return {buffer, buffer + g.d};
}

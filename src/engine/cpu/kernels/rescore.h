// Candidates of the screen in encode_bf16.cc, and how they are computed again in float32, with the
// operations of encode.cc in its order; included in its namespace.
//
// An encoder's row takes longer to come from memory than to be multiplied. Where a row of the batch
// has many candidates among few latents, as among the dead, the latents are taken in stretches that
// stay in the L2 cache, and all rows of the batch meet them there; elsewhere each row has its own
// from memory.

/// The candidates of each row: where their pre-activation is between. Both ends are the same
/// exactly when it is known.
struct Candidates {
  float *low, *high;
  uint32_t *latent, *counts;
  float* thresholds;
  size_t k, capacity;
};

static size_t capacityOf(size_t k) { return 3 * k + 64; }

/// What a thread needs to compute candidates again: two rows, and 8 bytes for each candidate of
/// one.
struct Workspace {
  float* centred[2];
  uint64_t* keys;
};

/// Up to 16 candidates of at most two rows.
struct Some {
  size_t count = 0;
  /// Rows of the encoder, and where in the lists of candidates each is.
  const float* w[16];
  size_t slot[16];
  /// Rows of x - preBias; `second`: whose candidates belong to the second of them.
  const float* x[2];
  __mmask16 second = 0;
};

/// columns[c] = element i + c of w[0] to w[15], c < 8.
static inline void transpose(const float* const* w, size_t i, __mmask8 mask, __m512 (&columns)[8]) {
  const auto half = [&](size_t l) {
    return mask == 0xff ? _mm256_loadu_ps(w[l] + i) : _mm256_maskz_loadu_ps(mask, w[l] + i);
  };
  __m512 r[8], t[8];
  // Two rows a register, so that what follows within its halves puts every latent where it belongs.
  for (int l = 0; l < 8; l++) {
    const size_t first = l < 4 ? l : l + 4;
    r[l] = _mm512_insertf32x8(_mm512_castps256_ps512(half(first)), half(first + 4), 1);
  }
  for (int l = 0; l < 8; l += 2) {
    t[l] = _mm512_unpacklo_ps(r[l], r[l + 1]);
    t[l + 1] = _mm512_unpackhi_ps(r[l], r[l + 1]);
  }
  for (int l = 0; l < 8; l += 4) {
    const __m512d a = _mm512_castps_pd(t[l]), b = _mm512_castps_pd(t[l + 1]), c = _mm512_castps_pd(t[l + 2]),
                  e = _mm512_castps_pd(t[l + 3]);
    r[l] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[l + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[l + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, e));
    r[l + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, e));
  }
  for (int c = 0; c < 4; c++) {
    columns[c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
    columns[4 + c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
  }
}

/// w[l] . x in the order of encode.cc: element after element, each with one fused multiply-add. All
/// w are there; TWO: some belong to the second row.
template <bool TWO>
static __m512 products(const Some& some, size_t d) {
  __m512 sums = _mm512_setzero_ps(), columns[8];
  const auto add = [&](size_t i, const __m512& column) {
    __m512 element = _mm512_set1_ps(some.x[0][i]);
    if (TWO) element = _mm512_mask_broadcastss_ps(element, some.second, _mm_load_ss(some.x[1] + i));
    sums = _mm512_fmadd_ps(column, element, sums);
  };
  size_t i = 0;
  for (; i + 8 <= d; i += 8) {
    transpose(some.w, i, 0xff, columns);
    for (size_t c = 0; c < 8; c++) add(i + c, columns[c]);
  }
  if (i < d) {
    transpose(some.w, i, static_cast<__mmask8>((1u << (d - i)) - 1), columns);
    for (size_t c = 0; i + c < d; c++) add(i + c, columns[c]);
  }
  return sums;
}

/// Computes them; none are left.
static void computeSome(const Encode& a, const Candidates& z, Some& some) {
  if (some.count == 0) return;
  for (size_t l = some.count; l < 16; l++) some.w[l] = some.w[0];
  float sums[16] __attribute__((aligned(64)));
  _mm512_store_ps(sums, some.second == 0 ? products<false>(some, a.d) : products<true>(some, a.d));
  for (size_t l = 0; l < some.count; l++) {
    const size_t slot = some.slot[l];
    z.low[slot] = z.high[slot] = sums[l] + a.p.latentBias[z.latent[slot]];
  }
  some.count = 0;
  some.second = 0;
}

static void centre(const Encode& a, size_t b, float* to) {
  for (size_t i = 0; i < a.d; i++) to[i] = a.x[b * a.d + i] - a.p.preBias[i];
}

/// Computes what is not yet known of a row's candidates.
static void makeExact(const Encode& a, const Candidates& z, size_t b, const Workspace& work) {
  const size_t first = b * z.capacity, end = first + z.counts[b];
  Some some;
  some.x[0] = work.centred[0];
  bool centred = false;
  for (size_t next = first;;) {
    for (; next < end && some.count < 16; next++) {
      if (z.low[next] == z.high[next]) continue;
      some.w[some.count] = a.p.encoder + z.latent[next] * a.d;
      some.slot[some.count++] = next;
    }
    if (some.count == 0) return;
    if (!centred) centre(a, b, work.centred[0]);
    centred = true;
    // The rows come from anywhere in the encoder: ask for the next sixteen while these are added
    // up.
    for (size_t ahead = next, asked = 0; ahead < end && asked < 16; ahead++) {
      if (z.low[ahead] == z.high[ahead]) continue;
      asked++;
      const char* row = reinterpret_cast<const char*>(a.p.encoder + z.latent[ahead] * a.d);
      for (size_t byte = 0; byte < a.d * sizeof(float); byte += 64) _mm_prefetch(row + byte, _MM_HINT_T1);
    }
    computeSome(a, z, some);
  }
}

/// Of row b the candidates among latents [j0, j1), as places in its list.
static size_t candidatesIn(const Candidates& z, size_t b, size_t j0, size_t j1, uint32_t* places) {
  const uint32_t* latent = z.latent + b * z.capacity;
  const size_t count = z.counts[b];
  const __m512i from = _mm512_set1_epi32(static_cast<int>(j0)), length = _mm512_set1_epi32(static_cast<int>(j1 - j0));
  __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  size_t found = 0;
  for (size_t i = 0; i < count; i += 16, place = _mm512_add_epi32(place, _mm512_set1_epi32(16))) {
    const __mmask16 there = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1u << (count - i)) - 1);
    const __m512i offset = _mm512_sub_epi32(_mm512_maskz_loadu_epi32(there, latent + i), from);
    const __mmask16 in = _mm512_mask_cmplt_epu32_mask(there, offset, length);
    const auto some = static_cast<unsigned>(__builtin_popcount(in));
    _mm512_mask_storeu_epi32(places + found, static_cast<__mmask16>((1u << some) - 1),
                             _mm512_maskz_compress_epi32(in, place));
    found += some;
  }
  return found;
}

/// Computes the candidates of rows [first, last) among latents [j0, j1). What is known already
/// comes out the same.
static void makeExactAmong(const Encode& a, const Candidates& z, size_t first, size_t last, size_t j0, size_t j1,
                           const Workspace& work) {
  auto* places = reinterpret_cast<uint32_t*>(work.keys);
  Some some;
  for (size_t b = first, buffer = 0; b < last; b++) {
    const size_t found = candidatesIn(z, b, j0, j1, places);
    if (found == 0) continue;
    float* x = work.centred[buffer ^= 1];
    centre(a, b, x);
    const bool alone = some.count == 0;
    some.x[alone ? 0 : 1] = x;
    for (size_t i = 0; i < found; i++) {
      const size_t slot = b * z.capacity + places[i];
      if (some.x[0] != x) some.second = static_cast<__mmask16>(some.second | 1u << some.count);
      some.w[some.count] = a.p.encoder + z.latent[slot] * a.d;
      some.slot[some.count++] = slot;
      if (some.count < 16) continue;
      computeSome(a, z, some);
      some.x[0] = x;
    }
    // The next row needs the buffer of the first.
    if (some.count > 0 && some.x[0] != x) computeSome(a, z, some);
  }
  computeSome(a, z, some);
}

/// A processor's L2 cache, in bytes.
static size_t cacheBytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return static_cast<size_t>(bytes);
#endif
  return size_t{1} << 20;
}

/// Computes the candidates of all rows among the dead latents, where that is quicker by stretches
/// of latents than by rows; `workOf(thread)`.
template <class F>
static void makeExactByLatent(Stream& s, const Encode& a, const Candidates& z, const uint8_t* isDead, const F& workOf) {
  // So many of a row in a stretch that registers are filled.
  constexpr size_t LEAST = 6;
  const size_t most = std::max<size_t>(1, cacheBytes() / 8 * 5 / (a.d * sizeof(float)));
  std::vector<size_t> borders = {0};
  size_t dead = 0;
  for (size_t j = 0; j < a.n; j++) {
    if (!isDead[j]) continue;
    if (dead > 0 && dead % most == 0) borders.push_back(j);
    dead++;
  }
  borders.push_back(a.n);
  const size_t stretches = borders.size() - 1;
  if (std::min(z.k, dead) < LEAST * stretches) return;
  // Tiles enough for all threads, so long that a latent's row is read for many.
  const size_t rows = std::max<size_t>(64, std::min(a.B, ceilDiv(a.B * stretches, 16 * s.threads)));
  const size_t parts = ceilDiv(a.B, rows);
  s.parallel(stretches * parts, [&](size_t tile, unsigned thread) {
    const size_t stretch = tile / parts, first = tile % parts * rows;
    makeExactAmong(a, z, first, std::min(a.B, first + rows), borders[stretch], borders[stretch + 1], workOf(thread));
  });
}

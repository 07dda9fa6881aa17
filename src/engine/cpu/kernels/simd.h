// Vectors of one instruction set; included inside its namespace by each_path.h. Kernels are
// templates over T: Vec for whole vectors, float for what is left of a row.

constexpr int W = SAETTA_WIDTH;
typedef float Vec __attribute__((vector_size(4 * W)));
typedef float VecInMemory __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef float HalfInMemory __attribute__((vector_size(2 * W), aligned(4), may_alias));
typedef double Wide __attribute__((vector_size(4 * W)));
typedef double WideInMemory __attribute__((vector_size(4 * W), aligned(8), may_alias));

template <class T>
constexpr int lanes = sizeof(T) / sizeof(float);

template <class T>
[[maybe_unused]] static inline T load(const float* p);
template <>
[[maybe_unused]] inline Vec load<Vec>(const float* p) {
  return *reinterpret_cast<const VecInMemory*>(p);
}
template <>
[[maybe_unused]] inline float load<float>(const float* p) {
  return *p;
}

[[maybe_unused]] static inline void store(float* p, Vec v) { *reinterpret_cast<VecInMemory*>(p) = v; }
[[maybe_unused]] static inline void store(float* p, float v) { *p = v; }

[[maybe_unused]] static inline float total(Vec v) {
  float sum = 0;
  for (int i = 0; i < W; i++) sum += v[i];
  return sum;
}

/// A bit for each lane in which a > b; NaN is above nothing.
[[maybe_unused]] static inline uint32_t above(Vec a, Vec b) {
#if SAETTA_WIDTH == 16
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GT_OQ);
#elif SAETTA_WIDTH == 8
  return static_cast<uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_GT_OQ)));
#elif defined(__SSE2__)
  return static_cast<uint32_t>(_mm_movemask_ps(_mm_cmpgt_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b))));
#else
  uint32_t bits = 0;
  for (int i = 0; i < W; i++) bits |= static_cast<uint32_t>(a[i] > b[i]) << i;
  return bits;
#endif
}

/// a . b over d elements, in float64, in an order that depends on d only.
[[maybe_unused]] static inline double dot(const float* a, const float* b, size_t d) {
  constexpr size_t H = W / 2;
  Wide sums[4] = {};
  size_t i = 0;
  for (; i + 4 * H <= d; i += 4 * H) {
    for (size_t u = 0; u < 4; u++) {
      const Wide x = __builtin_convertvector(*reinterpret_cast<const HalfInMemory*>(a + i + u * H), Wide);
      const Wide y = __builtin_convertvector(*reinterpret_cast<const HalfInMemory*>(b + i + u * H), Wide);
      sums[u] += x * y;
    }
  }
  double sum = 0;
  for (; i < d; i++) sum += static_cast<double>(a[i]) * b[i];
  const Wide all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (size_t l = 0; l < H; l++) sum += all[l];
  return sum;
}

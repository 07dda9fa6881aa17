// A row rounded to bfloat16; included in the namespace of an instruction set.

typedef uint32_t Bits __attribute__((vector_size(4 * W)));
typedef uint16_t HalfBits __attribute__((vector_size(2 * W)));
typedef uint16_t HalfBitsInMemory __attribute__((vector_size(2 * W), aligned(2), may_alias));

struct Rounding {
  /// Norms of the row or its copy, whichever is larger, and of their difference; never too small.
  float norm, error;
};

/// To the nearest, ties to even. What is not finite stays so: a NaN may become an infinity.
static inline uint32_t roundedBits(uint32_t bits) { return (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u; }

static Rounding roundingOf(double squares, double copySquares, double errorSquares) {
  // The sums themselves are rounded.
  constexpr double MARGIN = 1 + 1e-4;
  return {static_cast<float>(std::sqrt(std::max(squares, copySquares)) * MARGIN),
          static_cast<float>(std::sqrt(errorSquares) * MARGIN)};
}

/// Copies `row` [d] to tiles of TILE_INPUTS elements, TILE apart, and zeros to the end of the last.
[[maybe_unused]] static Rounding roundRow(const float* row, size_t d, uint16_t* to) {
  Vec squares = {}, copySquares = {}, errorSquares = {};
  size_t i = 0;
  for (; i + W <= d; i += W) {
    const Vec w = load<Vec>(row + i);
    const Bits bits = reinterpret_cast<Bits>(w);
    const Bits rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    const Vec copy = reinterpret_cast<Vec>(rounded), error = w - copy;
    uint16_t* at = to + i / TILE_INPUTS * TILE + i % TILE_INPUTS;
    *reinterpret_cast<HalfBitsInMemory*>(at) = __builtin_convertvector(rounded >> 16, HalfBits);
    squares += w * w;
    copySquares += copy * copy;
    errorSquares += error * error;
  }
  double all = total(squares), copies = total(copySquares), errors = total(errorSquares);
  for (; i < d; i++) {
    uint32_t bits;
    std::memcpy(&bits, row + i, 4);
    bits = roundedBits(bits);
    to[i / TILE_INPUTS * TILE + i % TILE_INPUTS] = static_cast<uint16_t>(bits >> 16);
    float copy;
    std::memcpy(&copy, &bits, 4);
    all += static_cast<double>(row[i]) * row[i];
    copies += static_cast<double>(copy) * copy;
    errors += static_cast<double>(row[i] - copy) * (row[i] - copy);
  }
  for (; i % TILE_INPUTS != 0; i++) to[i / TILE_INPUTS * TILE + i % TILE_INPUTS] = 0;
  // Squares may have been too small for a float.
  if (errors < 1e-28) {
    errors = all = copies = 0;
    for (i = 0; i < d; i++) {
      const uint32_t bits = static_cast<uint32_t>(to[i / TILE_INPUTS * TILE + i % TILE_INPUTS]) << 16;
      float copy;
      std::memcpy(&copy, &bits, 4);
      all += static_cast<double>(row[i]) * row[i];
      copies += static_cast<double>(copy) * copy;
      errors += (static_cast<double>(row[i]) - copy) * (static_cast<double>(row[i]) - copy);
    }
  }
  return roundingOf(all, copies, errors);
}

/// Row j of a copy. What adding up products in float32 may be off by, in both ways of doing it,
/// counts as an error of the row.
[[maybe_unused]] static void setRow(const HalfEncoder& half, size_t j, const float* row) {
  const Rounding rounding = roundRow(row, half.d, half.row(j));
  half.norms[j] = rounding.norm;
  half.errors[j] = rounding.error + rounding.norm * static_cast<float>((2 * half.d + 16) * 0x1p-24);
}

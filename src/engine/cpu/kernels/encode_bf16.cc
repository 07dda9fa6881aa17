// encode with the product in bfloat16, twice to many times the rate, and still the exact codes: the
// product is only a screen.
//
// A rounded pre-activation is off by at most e = |x - x~| |w| + |x~| |w - w~| + what adding up
// costs (Cauchy-Schwarz on both roundings; the norms are those of half.h). With T the k-th largest
// of the lower ends z - e seen so far, no latent whose upper end z + e is below T can be in the top
// k. All others of a row are kept, and at the end computed again in float32 with the operations of
// encode.cc in its order: the same codes, bit for bit. A row's list that fills up with what the
// bounds cannot tell apart is computed again early; nothing is ever dropped unseen.
//
// The encoder's copy and the rows are in tiles of 1 KiB as AMX takes them: 16 latents x 32 inputs,
// and 16 pairs of inputs x 16 rows.

#include "encode.h"
#include "half.h"

#if defined(__x86_64__) && __has_include(<avx512bf16intrin.h>)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#define SAETTA_BF16 1
#if __has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>)
#define SAETTA_AMX 1
#endif
#endif

#ifdef SAETTA_BF16

#if defined(__clang__)
#pragma clang attribute push(                                                                        \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi,bmi2"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi,bmi2")
#endif

namespace saetta {
namespace screen {

#define SAETTA_WIDTH 16
#include "simd.h"
#include "half_row.h"

/// Rows and latents of the largest call of a micro-kernel.
constexpr size_t PANEL = 16, MAX_PANELS = 3, MAX_LATENTS = 32;

/// The batch rounded, and what that has cost.
struct Rows {
  /// [B / 16][blocks][16 pairs][16 rows][2]
  uint16_t* tiles;
  /// As those of HalfEncoder, [B / 16 * 16].
  float *norms, *errors;
};

#include "rescore.h"

/// A key of a known candidate: higher value first, then the lower latent.
static uint64_t keyOf(float value, uint32_t latent) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint64_t{bits} << 32 | (NONE - latent);
}

/// The k-th largest of `count` floats, 0 when it is negative or there are fewer. Bit by bit from
/// the highest, by counting: positive floats are ordered as their bits are, and nothing here
/// branches on the data, which costs a sorting algorithm most of its time.
static float kthLargest(const float* of, size_t count, size_t k) {
  int32_t found = 0;
  if (count < k || k == 0) return 0;
  for (int bit = 30; bit >= 0; bit--) {
    const int32_t asked = found | int32_t{1} << bit;
    const __m512i least = _mm512_set1_epi32(asked);
    size_t above = 0;
    for (size_t i = 0; i < count; i += 16) {
      const __mmask16 mask = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1u << (count - i)) - 1);
      above += static_cast<size_t>(
          __builtin_popcount(_mm512_mask_cmpge_epi32_mask(mask, _mm512_maskz_loadu_epi32(mask, of + i), least)));
    }
    if (above >= k) found = asked;
  }
  float value;
  std::memcpy(&value, &found, 4);
  return value;
}

/// Raises the threshold to the k-th lower end and forgets what cannot be in the top k.
static void prune(const Candidates& z, size_t b) {
  float *low = z.low + b * z.capacity, *high = z.high + b * z.capacity;
  uint32_t* latent = z.latent + b * z.capacity;
  const size_t count = z.counts[b];
  z.thresholds[b] = std::max(z.thresholds[b], kthLargest(low, count, z.k));
  const __m512 threshold = _mm512_set1_ps(z.thresholds[b]);
  size_t kept = 0;
  for (size_t i = 0; i < count; i += 16) {
    const __mmask16 mask = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1u << (count - i)) - 1);
    const __m512 lows = _mm512_maskz_loadu_ps(mask, low + i), highs = _mm512_maskz_loadu_ps(mask, high + i);
    const __m512i latents = _mm512_maskz_loadu_epi32(mask, latent + i);
    // Equal ends stay: only the latents' numbers decide there. So does NaN, which is found later.
    const __mmask16 stay = _mm512_mask_cmp_ps_mask(mask, highs, threshold, _CMP_NLT_UQ);
    const auto some = static_cast<unsigned>(__builtin_popcount(stay));
    const __mmask16 to = static_cast<__mmask16>((1u << some) - 1);
    _mm512_mask_storeu_ps(low + kept, to, _mm512_maskz_compress_ps(stay, lows));
    _mm512_mask_storeu_ps(high + kept, to, _mm512_maskz_compress_ps(stay, highs));
    _mm512_mask_storeu_epi32(latent + kept, to, _mm512_maskz_compress_epi32(stay, latents));
    kept += some;
  }
  z.counts[b] = static_cast<uint32_t>(kept);
}

/// Leaves the exact top k of what the row has; `work.keys` holds them in order. Sets bad when a
/// value is not finite.
static void settle(const Encode& a, const Candidates& z, size_t b, const Workspace& work) {
  makeExact(a, z, b, work);
  float *low = z.low + b * z.capacity, *high = z.high + b * z.capacity;
  uint32_t* latent = z.latent + b * z.capacity;
  for (size_t i = 0; i < z.counts[b]; i++) {
    if (!std::isfinite(low[i])) markBad(a.t);
  }
  // There are fewer to be sorted now that both ends are the same.
  prune(z, b);
  size_t count = 0;
  for (size_t i = 0; i < z.counts[b]; i++) {
    if (low[i] > 0) work.keys[count++] = keyOf(low[i], latent[i]);
  }
  std::sort(work.keys, work.keys + count, std::greater<uint64_t>());
  count = std::min(count, z.k);
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = static_cast<uint32_t>(work.keys[i] >> 32);
    std::memcpy(low + i, &bits, 4);
    high[i] = low[i];
    latent[i] = NONE - static_cast<uint32_t>(work.keys[i]);
  }
  z.counts[b] = static_cast<uint32_t>(count);
  if (count == z.k && count > 0) z.thresholds[b] = std::max(z.thresholds[b], low[count - 1]);
}

static inline void add(const Encode& a, const Candidates& z, size_t b, float pre, float error, uint32_t latent,
                       const Workspace& work) {
  const size_t slot = b * z.capacity + z.counts[b]++;
  z.low[slot] = pre - error;
  z.high[slot] = pre + error;
  z.latent[slot] = latent;
  if (z.counts[b] < z.capacity) return;
  prune(z, b);
  // Hardly anything gone: the bounds do not tell these apart.
  if (z.counts[b] > z.capacity - z.capacity / 4) settle(a, z, b, work);
}

/// Pre-activations out [latents][stride] of rows [b, b + 16 V): candidates are kept.
static void screenOut(const Encode& a, const HalfEncoder& w, const Rows& rows, const float* out, size_t stride,
                      size_t j0, size_t latents, size_t b, int V, const Candidates& live, const Candidates* dead,
                      const uint8_t* isDead, const Workspace& work, Vec& nan) {
  for (int v = 0; v < V; v++) {
    const size_t first = b + v * PANEL;
    const Vec norms = load<Vec>(rows.norms + first), errors = load<Vec>(rows.errors + first);
    for (size_t l = 0; l < latents; l++) {
      const size_t j = j0 + l;
      const float bias = a.p.latentBias[j];
      const Vec pre = load<Vec>(out + l * stride + v * PANEL) + bias;
      // Rounding after the bias is added is up to its size too.
      const Vec error = errors * w.norms[j] + (norms * w.errors[j] + std::fabs(bias) * 0x1p-21f);
      const Vec end = pre + error;
      nan += pre * 0.0f;
      for (uint32_t bits = above(end, load<Vec>(live.thresholds + first)); bits != 0; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        add(a, live, first + lane, pre[lane], error[lane], static_cast<uint32_t>(j), work);
      }
      if (isDead == nullptr || !isDead[j]) continue;
      for (uint32_t bits = above(end, load<Vec>(dead->thresholds + first)); bits != 0; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        add(a, *dead, first + lane, pre[lane], error[lane], static_cast<uint32_t>(j), work);
      }
    }
  }
}

/// out [8][16 V] = 8 latents . V panels of rows, over all blocks of inputs; `w` points at the first
/// of them in its tile.
template <int V>
static void productOf8(const uint16_t* w, const uint16_t* x, size_t blocks, float* out) {
  constexpr int L = 8;
  __m512 sums[L][V];
  for (auto& latent : sums) {
    for (auto& sum : latent) sum = _mm512_setzero_ps();
  }
  for (size_t block = 0; block < blocks; block++, w += TILE, x += TILE) {
    for (size_t pair = 0; pair < TILE_INPUTS / 2; pair++) {
      __m512i columns[V];
      for (int v = 0; v < V; v++) columns[v] = _mm512_load_si512(x + v * blocks * TILE + pair * 2 * PANEL);
      for (int l = 0; l < L; l++) {
        int both;
        std::memcpy(&both, w + l * TILE_INPUTS + 2 * pair, 4);
        const __m512i element = _mm512_set1_epi32(both);
        for (int v = 0; v < V; v++) sums[l][v] = _mm512_dpbf16_ps(sums[l][v], (__m512bh)element, (__m512bh)columns[v]);
      }
    }
  }
  for (int l = 0; l < L; l++) {
    for (int v = 0; v < V; v++) _mm512_store_ps(out + (l * V + v) * PANEL, sums[l][v]);
  }
}

#ifdef SAETTA_AMX
#define SAETTA_AMX_TARGET \
  __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi,bmi2")))

/// All eight tile registers 16 rows of 64 bytes.
SAETTA_AMX_TARGET static void configureTiles() {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  _tile_loadconfig(&config);
}
SAETTA_AMX_TARGET static void releaseTiles() { _tile_release(); }

/// out [32][32] = two tiles of latents . two panels of rows.
SAETTA_AMX_TARGET static void productOf32(const uint16_t* w, const uint16_t* x, size_t blocks, float* out) {
  const uint16_t *w1 = w + blocks * TILE, *x1 = x + blocks * TILE;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t block = 0; block < blocks; block++) {
    const size_t at = block * TILE;
    _tile_loadd(4, w + at, 64);
    _tile_loadd(6, x + at, 64);
    _tile_loadd(7, x1 + at, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, w1 + at, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  constexpr size_t STRIDE = 2 * PANEL;
  _tile_stored(0, out, STRIDE * 4);
  _tile_stored(1, out + PANEL, STRIDE * 4);
  _tile_stored(2, out + PANEL * STRIDE, STRIDE * 4);
  _tile_stored(3, out + PANEL * STRIDE + PANEL, STRIDE * 4);
}
#else
static void configureTiles() {}
static void releaseTiles() {}
static void productOf32(const uint16_t*, const uint16_t*, size_t, float*) {}
#endif

/// The encoder's copy, made anew where something else than update has changed the encoder.
static HalfEncoder& freshCopy(Stream& s, const Encode& a) {
  HalfEncoder& w = s.halves.of(a.p.encoder, a.n, a.d);
  if (w.fresh) return w;
  constexpr size_t LATENTS = 64;
  s.parallel(ceilDiv(a.n, LATENTS), [&](size_t tile, unsigned) {
    for (size_t j = tile * LATENTS; j < std::min(a.n, (tile + 1) * LATENTS); j++) setRow(w, j, a.p.encoder + j * a.d);
  });
  w.fresh = true;
  return w;
}

/// Rows [first, first + 16) of x - preBias rounded into pairs; those past B as zeros, which never
/// have a candidate.
static void packPanel(const Encode& a, size_t panel, size_t blocks, const Rows& rows, float* centred, uint16_t* half) {
  uint16_t* tiles = rows.tiles + panel * blocks * TILE;
  for (size_t r = 0; r < PANEL; r++) {
    const size_t b = panel * PANEL + r;
    rows.norms[b] = rows.errors[b] = 0;
    if (b < a.B) {
      for (size_t i = 0; i < a.d; i++) centred[i] = a.x[b * a.d + i] - a.p.preBias[i];
      const Rounding rounding = roundRow(centred, a.d, half);
      rows.norms[b] = rounding.norm;
      rows.errors[b] = rounding.error;
    }
    for (size_t block = 0; block < blocks; block++) {
      for (size_t pair = 0; pair < TILE_INPUTS / 2; pair++) {
        uint32_t both = 0;
        if (b < a.B) std::memcpy(&both, half + block * TILE + 2 * pair, 4);
        std::memcpy(tiles + block * TILE + (pair * PANEL + r) * 2, &both, 4);
      }
    }
  }
}

/// A row has no candidate when k is 0.
static Candidates makeCandidates(Stream& s, size_t slot, size_t B, size_t padded, size_t k) {
  Candidates z;
  z.k = k;
  z.capacity = capacityOf(k);
  z.low = s.scratch<float>(slot, 2 * B * z.capacity);
  z.high = z.low + B * z.capacity;
  z.latent = s.scratch<uint32_t>(slot + 1, B * z.capacity);
  z.counts = s.scratch<uint32_t>(slot + 2, B);
  z.thresholds = s.scratch<float>(slot + 3, padded);
  std::fill(z.counts, z.counts + B, 0u);
  std::fill(z.thresholds, z.thresholds + B, k > 0 ? 0.0f : INFINITY);
  std::fill(z.thresholds + B, z.thresholds + padded, INFINITY);
  return z;
}

/// The codes of a row, from its candidates, which have been pruned.
static void finish(const Encode& a, const Candidates& z, size_t b, const Codes& to, const Step* firing,
                   const Workspace& work) {
  settle(a, z, b, work);
  const size_t first = b * z.capacity;
  for (size_t i = 0; i < to.k; i++) {
    if (i < z.counts[b]) writeCode(to, b * to.k + i, z.latent[first + i], z.low[first + i], firing);
    else writeCode(to, b * to.k + i, NONE, 0, nullptr);
  }
}

static void encodePiece(Stream& s, const Encode& a, const HalfEncoder& w, const uint8_t* isDead) {
  const bool amx = s.path == AMX;
  const size_t blocks = w.blocks, panels = ceilDiv(a.B, 2 * PANEL) * 2, padded = panels * PANEL;
  const size_t widest = std::max(capacityOf(a.live.k), capacityOf(a.dead.k));
  const size_t rowBytes = ceilDiv(a.d, 16) * 64,
               workBytes = 2 * rowBytes + ceilDiv(widest, 16) * 64 * 2 + blocks * TILE * 2;
  char* works = s.scratch<char>(ENCODE_REST, s.threads * workBytes);
  const auto workOf = [&](unsigned thread) {
    char* at = works + thread * workBytes;
    return Workspace{{reinterpret_cast<float*>(at), reinterpret_cast<float*>(at + rowBytes)},
                     reinterpret_cast<uint64_t*>(at + 2 * rowBytes)};
  };
  const auto halfOf = [&](unsigned thread) {
    return reinterpret_cast<uint16_t*>(works + (thread + 1) * workBytes - blocks * TILE * 2);
  };

  Rows rows;
  rows.tiles = s.scratch<uint16_t>(PACKED, panels * blocks * TILE);
  rows.norms = s.scratch<float>(ENCODE_REST + 1, padded);
  rows.errors = s.scratch<float>(ENCODE_REST + 2, padded);
  s.parallel(panels, [&](size_t panel, unsigned thread) {
    packPanel(a, panel, blocks, rows, workOf(thread).centred[0], halfOf(thread));
  });
  const Candidates live = makeCandidates(s, LIVE_SELECTION, a.B, padded, keptPerRow(a));
  const Candidates dead = isDead != nullptr ? makeCandidates(s, DEAD_SELECTION, a.B, padded, a.dead.k) : Candidates{};

  // Groups of panels of at most 640 KiB; tiles of under a millisecond, so that threads end
  // together.
  const size_t step = amx ? 2 : MAX_PANELS, latents = amx ? MAX_LATENTS : 8;
  const size_t most = std::max(step, (size_t{640} << 10) / (blocks * TILE * 2) / step * step);
  const size_t groupPanels = std::min(most, ceilDiv(ceilDiv(panels, 2 * s.threads), step) * step);
  const size_t groups = ceilDiv(panels, groupPanels);
  const size_t stretch =
      std::max<size_t>(MAX_LATENTS, std::min<size_t>(512, (size_t{1} << 19) / a.d) / MAX_LATENTS * MAX_LATENTS);
  const size_t stretches = ceilDiv(a.n, stretch);
  Turns turns(s, groups, stretches);

  const auto screenTile = [&](size_t group, size_t at, unsigned thread) {
    const size_t firstPanel = group * groupPanels, lastPanel = std::min(panels, firstPanel + groupPanels);
    const Workspace work = workOf(thread);
    float out[MAX_LATENTS * 2 * PANEL] __attribute__((aligned(64)));
    Vec nan = {};
    if (amx) configureTiles();
    const size_t end = std::min(a.n, (at + 1) * stretch);
    for (size_t j = at * stretch; j < end; j += latents) {
      const uint16_t* wTiles = w.row(j);
      for (size_t panel = firstPanel; panel < lastPanel; panel += step) {
        const uint16_t* x = rows.tiles + panel * blocks * TILE;
        const int V = static_cast<int>(std::min(step, lastPanel - panel));
        if (amx) productOf32(wTiles, x, blocks, out);
        else if (V == 1) productOf8<1>(wTiles, x, blocks, out);
        else if (V == 2) productOf8<2>(wTiles, x, blocks, out);
        else productOf8<3>(wTiles, x, blocks, out);
        screenOut(a, w, rows, out, V * PANEL, j, std::min(latents, end - j), panel * PANEL, V, live, &dead, isDead,
                  work, nan);
      }
    }
    if (amx) releaseTiles();
    if (std::isnan(total(nan))) markBad(a.t);
  };
  // A row's list belongs to one thread at a time.
  s.parallel(stretches * groups, [&](size_t, unsigned thread) {
    turns.one([&](size_t group, size_t at) { screenTile(group, at, thread); });
  });

  constexpr size_t ROWS = 8;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      prune(live, b);
      if (isDead != nullptr) prune(dead, b);
    }
  });
  if (isDead != nullptr) makeExactByLatent(s, a, dead, isDead, [&](unsigned thread) { return workOf(thread); });
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned thread) {
    const Workspace work = workOf(thread);
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      finish(a, live, b, a.live, &a.t, work);
      if (isDead != nullptr) finish(a, dead, b, a.dead, nullptr, work);
    }
  });
}

static void encode(Stream& s, const Encode& a) {
  const uint8_t* isDead = markDead(s, a);
  if (isDead == nullptr && a.dead.k > 0) clear(s, a.dead, a.B);
  const HalfEncoder& w = freshCopy(s, a);
  const size_t candidates = capacityOf(a.live.k) + (isDead != nullptr ? capacityOf(a.dead.k) : 0);
  inPieces(a, w.blocks * TILE_INPUTS * 2 + candidates * 12, 2 * PANEL * MAX_PANELS,
           [&](const Encode& part) { encodePiece(s, part, w, isDead); });
}

}  // namespace screen
}  // namespace saetta

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

void saetta::encodeScreened(Stream& s, const Encode& a) { screen::encode(s, a); }

uint32_t saetta::screenPaths() {
  uint32_t a, b, c, d, paths = 0;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0;
  paths |= 1u << AVX512_BF16;
#if defined(SAETTA_AMX) && defined(__linux__)
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return paths;
  // The kernel keeps no tile registers for a process that has not asked for them.
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;
  if (syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0) paths |= 1u << AMX;
#endif
  return paths;
}

#else

void saetta::encodeScreened(Stream&, const Encode&) { throw std::logic_error("compiled without bf16"); }
uint32_t saetta::screenPaths() { return 0; }

#endif

// encode: the product encoder (x - preBias) + latentBias with the exact top k, or what is above a
// threshold, taken in its epilogue, so that [B,n] never exists.
//
// x - preBias is packed into panels of ROWS rows, lanes of a vector along the rows, so that an
// element of the encoder meets whole vectors. A tile is a group of panels and a stretch of latents.
// Each row keeps the candidates above its k-th value so far; the tiles of a group are done in the
// order of the latents, by whichever thread, so what a row sees does not depend on the threads, and
// an equal value that comes later loses.
//
// A tile takes its panels in parts, of so many inputs that a part stays in the L1 cache while all
// latents of the stretch meet it; their sums wait in memory from part to part, so that a product
// still is one chain of fused multiply-adds over the inputs in order. For 8 latents, 48 rows and
// 128 inputs that is 1536 cycles of two multiply-adds, with 4 KB of the encoder and 1.5 KB of sums
// from the L2 cache, and 1.5 KB back; without parts 24 KB of the panel come besides. The stretch
// stays in the L2 cache, and panels pass through it: 24 KB a part, asked for while the part before
// is used.

#ifndef SAETTA_PATH
#include "encode.h"

namespace saetta {

/// The candidates of one row: at most `capacity` keys, whose order is that of the codes. A key is
/// the bits of the value (positive floats are ordered as their bits are) above the latent's
/// complement: higher value first, then the lower latent.
struct Selection {
  uint64_t* keys;
  uint32_t* counts;
  float* thresholds;
  size_t k, capacity;

  uint64_t* row(size_t b) const { return keys + b * capacity; }

  void add(size_t b, float value, uint32_t latent) const {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    uint64_t* candidates = row(b);
    candidates[counts[b]++] = uint64_t{bits} << 32 | (NONE - latent);
    if (counts[b] == capacity) shrink(b);
  }

  /// Leaves the k highest; from now on only what is above the lowest of them counts.
  void shrink(size_t b) const {
    uint64_t* candidates = row(b);
    std::nth_element(candidates, candidates + (k - 1), candidates + counts[b], std::greater<uint64_t>());
    counts[b] = static_cast<uint32_t>(k);
    const uint32_t bits = static_cast<uint32_t>(candidates[k - 1] >> 32);
    std::memcpy(&thresholds[b], &bits, 4);
  }

  /// The row's codes, in order.
  void finish(size_t b, const Codes& to, const Step* firing) const {
    if (counts[b] > k) shrink(b);
    uint64_t* candidates = row(b);
    std::sort(candidates, candidates + counts[b], std::greater<uint64_t>());
    for (size_t i = 0; i < to.k; i++) {
      if (i >= counts[b]) {
        writeCode(to, b * to.k + i, NONE, 0, nullptr);
        continue;
      }
      const uint32_t bits = static_cast<uint32_t>(candidates[i] >> 32);
      float value;
      std::memcpy(&value, &bits, 4);
      writeCode(to, b * to.k + i, NONE - static_cast<uint32_t>(candidates[i]), value, firing);
    }
  }
};

static size_t capacityOf(size_t k) { return 2 * k + 64; }

/// `slot` and the two after it of the scratch. Rows are counted in whole panels; those that are
/// only padding never have a candidate, nor has any row when k is 0.
static Selection makeSelection(Stream& s, size_t slot, size_t B, size_t padded, size_t k) {
  Selection z;
  z.k = k;
  z.capacity = capacityOf(k);
  z.keys = s.scratch<uint64_t>(slot, B * z.capacity);
  z.counts = s.scratch<uint32_t>(slot + 1, B);
  z.thresholds = s.scratch<float>(slot + 2, padded);
  std::fill(z.counts, z.counts + B, 0u);
  std::fill(z.thresholds, z.thresholds + B, k > 0 ? 0.0f : INFINITY);
  std::fill(z.thresholds + B, z.thresholds + padded, INFINITY);
  return z;
}

}  // namespace saetta

/// Unrolled before variables get registers: else g++ keeps a copy of the sums in memory.
#if defined(__clang__)
#define SAETTA_UNROLL
#else
#define SAETTA_UNROLL _Pragma("GCC unroll 16")
#endif

#define SAETTA_FILE "encode.cc"
#include "each_path.h"

extern "C" void saetta_encode(saetta::Stream* stream, const saetta::Encode* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) {
    if (s.path >= AVX512_BF16 && a.rule != RULE_THRESHOLD && a.band.k == 0) encodeScreened(s, a);
    else SAETTA_RUN(s, encode, a);
  });
}

#else

// Rows of a panel in vectors, latents a call of the micro-kernel: their product in accumulators,
// and a few registers besides.
#if SAETTA_WIDTH == 16
constexpr int PANEL = 3, LATENTS = 8;
#elif SAETTA_WIDTH == 8
constexpr int PANEL = 3, LATENTS = 4;
#elif defined(__aarch64__)
constexpr int PANEL = 4, LATENTS = 4;
#else
constexpr int PANEL = 2, LATENTS = 4;
#endif
constexpr size_t PANEL_ROWS = PANEL * W;

/// Inputs of a part of a panel: 24 KiB, so that a cache of 32 keeps it beside the encoder's rows
/// and the sums that pass.
constexpr size_t PART = (size_t{24} << 10) / (PANEL_ROWS * sizeof(float));
/// Latents of a stretch, at most.
constexpr size_t STRETCH = 128;
/// Inputs for which what comes next is asked for at a time: a cache line of a row.
constexpr size_t LINE = 16;
/// Inputs of a round of the inner loop. With four of them compilers run out of 128-bit registers.
constexpr size_t AT_ONCE = W > 4 ? 4 : 1;

/// What is used after this call of the micro-kernel, to be in the L2 cache by then.
struct Next {
  /// Of LATENTS rows of the encoder, where not null.
  const float* rows;
  size_t stride;
  /// Of packed rows: lines for each LINE inputs.
  const float* part;
  size_t lines;
};

/// sums [LATENTS][V * W] of encoder rows w . packed x [d][V * W], gone on with over elements
/// [first, last); x is at the first of them.
template <int V>
static void product(const float* x, const float* const* w, size_t first, size_t last, float* sums, Next next) {
  Vec sum[LATENTS][V] = {};
  if (first > 0) {
    SAETTA_UNROLL for (int j = 0; j < LATENTS; j++) {
      SAETTA_UNROLL for (int v = 0; v < V; v++) sum[j][v] = load<Vec>(sums + (j * V + v) * W);
    }
  }
  const float* rows[LATENTS];
  SAETTA_UNROLL for (int j = 0; j < LATENTS; j++) rows[j] = w[j];
  const auto add = [&](size_t i) __attribute__((always_inline)) {
    Vec column[V];
    SAETTA_UNROLL for (int v = 0; v < V; v++) column[v] = load<Vec>(x + v * W);
    SAETTA_UNROLL for (int j = 0; j < LATENTS; j++) {
      const float element = rows[j][i];
      SAETTA_UNROLL for (int v = 0; v < V; v++) sum[j][v] += column[v] * element;
    }
    x += V * W;
  };
  size_t i = first;
  for (; i + LINE <= last; i += LINE) {
    if (next.rows != nullptr) {
      for (int j = 0; j < LATENTS; j++) __builtin_prefetch(next.rows + j * next.stride, 0, 2);
      next.rows += LINE;
    }
    for (size_t line = 0; line < next.lines; line++, next.part += LINE) __builtin_prefetch(next.part, 0, 2);
    for (size_t e = i; e < i + LINE; e += AT_ONCE) {
      SAETTA_UNROLL for (size_t more = 0; more < AT_ONCE; more++) add(e + more);
    }
  }
  for (; i < last; i++) add(i);
  SAETTA_UNROLL for (int j = 0; j < LATENTS; j++) {
    SAETTA_UNROLL for (int v = 0; v < V; v++) store(sums + (j * V + v) * W, sum[j][v]);
  }
}

/// Packs rows [first, first + V * W) of x - preBias, those past B as zeros.
static void pack(const Encode& a, size_t first, int V, float* to) {
  const size_t rows = static_cast<size_t>(V) * W;
  for (size_t r = 0; r < rows; r++) {
    if (first + r < a.B) {
      const float* x = a.x + (first + r) * a.d;
      for (size_t i = 0; i < a.d; i++) to[i * rows + r] = x[i] - a.p.preBias[i];
    } else {
      for (size_t i = 0; i < a.d; i++) to[i * rows + r] = 0;
    }
  }
}

/// Candidates among `rows` (a bit for each) of the pre-activations of latent j of rows from b on.
static inline void take(const Selection& z, const Vec& pre, size_t j, size_t b, uint32_t) {
  for (uint32_t bits = above(pre, load<Vec>(z.thresholds + b)); bits != 0; bits &= bits - 1) {
    const int lane = __builtin_ctz(bits);
    z.add(b + lane, pre[lane], static_cast<uint32_t>(j));
  }
}

static inline void take(const Window& z, const Vec& pre, size_t j, size_t b, uint32_t rows) {
  uint32_t bits = above(pre, Vec{} + z.low[j]) & rows;
  if (z.high != nullptr) bits &= above(Vec{} + z.high[j], pre);
  for (; bits != 0; bits &= bits - 1) {
    const int lane = __builtin_ctz(bits);
    z.add(b + lane, pre[lane], static_cast<uint32_t>(j));
  }
}

/// The window's codes of a piece.
static Window windowOf(Stream& s, const Window& window, const Codes& to, size_t B, size_t slot) {
  Window z = window;
  z.to = to;
  z.counts = s.scratch<uint32_t>(slot, B);
  std::fill(z.counts, z.counts + B, 0u);
  return z;
}

/// Rows that stay in cache; `isDead` is null when no dead latent is to be selected, `band` when
/// there is none. Live: a Selection or a Window.
template <class Live>
static void encodePiece(Stream& s, const Encode& a, const uint8_t* isDead, const Window* bandOfAll,
                        const Window* liveOfAll) {
  const size_t panels = ceilDiv(a.B, PANEL_ROWS);
  const auto vectors = [&](size_t panel) {
    return static_cast<int>(ceilDiv(std::min(PANEL_ROWS, a.B - panel * PANEL_ROWS), W));
  };
  const size_t panelSize = PANEL_ROWS * a.d;
  float* packed = s.scratch<float>(PACKED, panels * panelSize);
  s.parallel(panels,
             [&](size_t panel, unsigned) { pack(a, panel * PANEL_ROWS, vectors(panel), packed + panel * panelSize); });
  Live live;
  if constexpr (std::is_same_v<Live, Window>) live = windowOf(s, *liveOfAll, a.live, a.B, LIVE_WINDOW + 2);
  else live = makeSelection(s, LIVE_SELECTION, a.B, panels * PANEL_ROWS, keptPerRow(a));
  const bool selectBand = bandOfAll != nullptr;
  const Window band = selectBand ? windowOf(s, *bandOfAll, a.band, a.B, BAND_WINDOW + 2) : Window{};
  const bool selectDead = isDead != nullptr;
  const Selection dead =
      selectDead ? makeSelection(s, DEAD_SELECTION, a.B, panels * PANEL_ROWS, a.dead.k) : Selection{};

  // Groups of many panels, as the first panel of a tile waits for the encoder, but two groups a
  // thread, so that threads need not wait for each other; stretches of at most 512 KiB. A tile
  // takes about a millisecond at most, so that threads end together.
  const size_t groupPanels = std::min<size_t>(11, ceilDiv(panels, 2 * s.threads));
  const size_t groups = ceilDiv(panels, groupPanels);
  const size_t stretch =
      std::max<size_t>(LATENTS, std::min(STRETCH, ceilDiv(size_t{1} << 17, a.d)) / LATENTS * LATENTS);
  const size_t stretches = ceilDiv(a.n, stretch);
  Turns turns(s, groups, stretches);

  const auto work = [&](size_t group, size_t at) {
    const size_t firstPanel = group * groupPanels, lastPanel = std::min(panels, firstPanel + groupPanels);
    const size_t start = at * stretch, end = std::min(a.n, start + stretch);
    float sums[STRETCH * PANEL_ROWS] __attribute__((aligned(64)));
    // Past the last latent it is that again, and what comes out is not used.
    const float* rows[STRETCH];
    for (size_t j = start; j < ceilDiv(end, LATENTS) * LATENTS; j++)
      rows[j - start] = a.p.encoder + std::min(j, a.n - 1) * a.d;
    Vec nan = {};
    const auto codes = [&](size_t panel, int V, size_t j0, const float* out) {
      for (size_t j = j0; j < std::min(end, j0 + LATENTS); j++) {
        const float bias = a.p.latentBias[j];
        for (int v = 0; v < V; v++) {
          const Vec pre = load<Vec>(out + ((j - j0) * V + v) * W) + bias;
          nan += pre * 0.0f;
          const size_t b = panel * PANEL_ROWS + v * W;
          const uint32_t rows = b + W <= a.B ? ~0u : (1u << (a.B - b)) - 1;
          take(live, pre, j, b, rows);
          if (selectBand) take(band, pre, j, b, rows);
          if (selectDead && isDead[j]) take(dead, pre, j, b, rows);
        }
      }
    };
    for (size_t panel = firstPanel; panel < lastPanel; panel++) {
      const int V = vectors(panel);
      for (size_t first = 0; first < a.d; first += PART) {
        const size_t last = std::min(a.d, first + PART);
        const float* x = packed + panel * panelSize + first * V * W;
        Next next = {nullptr, a.d, x + (last - first) * V * W, 0};
        if (last < a.d || panel + 1 < lastPanel) next.lines = ceilDiv(PANEL_ROWS * LATENTS, end - start);
        for (size_t j0 = start; j0 < end; j0 += LATENTS) {
          const float* const* w = rows + (j0 - start);
          // The first panel meets rows that were not read before: the next latents', or for the
          // next part those of the first again.
          if (panel == firstPanel) {
            const bool again = j0 + LATENTS >= end && last < a.d;
            const size_t j = again ? start : j0 + LATENTS;
            next.rows = j + LATENTS <= a.n ? a.p.encoder + j * a.d + (again ? last : first) : nullptr;
          }
          float* out = sums + (j0 - start) * V * W;
          switch (V) {
            case 1: product<1>(x, w, first, last, out, next); break;
            case 2: product<2>(x, w, first, last, out, next); break;
            case 3: product<3>(x, w, first, last, out, next); break;
            default: product<PANEL>(x, w, first, last, out, next); break;
          }
          next.part += ceilDiv(last - first, LINE) * next.lines * LINE;
          if (last == a.d) codes(panel, V, j0, out);
        }
      }
    }
    if (std::isnan(total(nan))) markBad(a.t);
  };
  s.parallel(stretches * groups, [&](size_t, unsigned) { turns.one(work); });

  constexpr size_t ROWS = 16;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      if constexpr (std::is_same_v<Live, Window>) live.finish(b, a.t);
      else live.finish(b, a.live, &a.t);
      if (selectBand) band.finish(b, a.t);
      if (selectDead) dead.finish(b, a.dead, nullptr);
    }
  });
  if constexpr (std::is_same_v<Live, Window>) {
    for (size_t b = 0; b < a.B; b++) *a.t.active += live.counts[b];
  }
}

static void encode(Stream& s, const Encode& a) {
  const uint8_t* isDead = markDead(s, a);
  if (isDead == nullptr && a.dead.k > 0) clear(s, a.dead, a.B);
  const bool byThreshold = a.rule == RULE_THRESHOLD;
  const Window window = byThreshold ? thresholdWindow(s, a) : Window{};
  const Window inBand = a.band.k > 0 ? bandWindow(s, a) : Window{};
  const Window* band = a.band.k > 0 ? &inBand : nullptr;
  const size_t keys = (byThreshold ? 0 : capacityOf(a.live.k)) + (isDead != nullptr ? capacityOf(a.dead.k) : 0);
  inPieces(a, a.d * sizeof(float) + keys * sizeof(uint64_t), PANEL_ROWS, [&](const Encode& part) {
    if (byThreshold) encodePiece<Window>(s, part, isDead, band, &window);
    else encodePiece<Selection>(s, part, isDead, band, nullptr);
  });
}

#endif

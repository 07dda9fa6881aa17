// encode: the product encoder (x - preBias) + latentBias with the exact top k taken in its epilogue, so that [B,n] never exists.
//
// x - preBias is packed into panels of ROWS rows, lanes of a vector along the rows, so that an element of the encoder meets whole vectors. A tile is a
// group of panels that fits the L2 cache and a stretch of latents. Each row keeps the candidates above its k-th value so far; the tiles of a group
// are done in the order of the latents, by whichever thread, so what a row sees does not depend on the threads, and an equal value that comes later loses.

#ifndef SAETTA_PATH
#include "encode.h"

namespace saetta {

/// The candidates of one row: at most `capacity` keys, whose order is that of the codes. A key is the bits of the value (positive floats are ordered as
/// their bits are) above the latent's complement: higher value first, then the lower latent.
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
    for (size_t i = 0; i < k; i++) {
      if (i >= counts[b]) {
        writeCode(to, b * k + i, NONE, 0, nullptr);
        continue;
      }
      const uint32_t bits = static_cast<uint32_t>(candidates[i] >> 32);
      float value;
      std::memcpy(&value, &bits, 4);
      writeCode(to, b * k + i, NONE - static_cast<uint32_t>(candidates[i]), value, firing);
    }
  }
};

static size_t capacityOf(size_t k) { return 2 * k + 64; }

/// `slot` and the two after it of the scratch. Rows are counted in whole panels; those that are only padding never have a candidate.
static Selection makeSelection(Stream& s, size_t slot, size_t B, size_t padded, size_t k) {
  Selection z;
  z.k = k;
  z.capacity = capacityOf(k);
  z.keys = s.scratch<uint64_t>(slot, B * z.capacity);
  z.counts = s.scratch<uint32_t>(slot + 1, B);
  z.thresholds = s.scratch<float>(slot + 2, padded);
  std::fill(z.counts, z.counts + B, 0u);
  std::fill(z.thresholds, z.thresholds + B, 0.0f);
  std::fill(z.thresholds + B, z.thresholds + padded, INFINITY);
  return z;
}

}  // namespace saetta

#define SAETTA_FILE "encode.cc"
#include "each_path.h"

extern "C" void saetta_encode(saetta::Stream* stream, float* encoder, float* latentBias, float* decoder, float* preBias, const float* x, uint64_t B,
                              uint64_t d, uint64_t n, double* hyper, double* sums, uint32_t* fired, uint32_t* bad, double* sq, uint32_t* latent,
                              float* value, float* grad, uint64_t k, const uint32_t* age, uint32_t* deadLatent, float* deadValue, float* deadGrad,
                              uint64_t auxk) {
  using namespace saetta;
  const Encode a = {{encoder, latentBias, decoder, preBias}, x, B, d, n, {hyper, sums, fired, bad, sq}, {latent, value, grad, k},
                    {deadLatent, deadValue, deadGrad, auxk}, age};
  stream->submit([a](Stream& s) {
    if (s.path >= AVX512_BF16) encodeScreened(s, a);
    else SAETTA_RUN(s, encode, a);
  });
}

#else

// Rows of a panel in vectors, latents a call of the micro-kernel: their product in accumulators, and a few registers besides.
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

/// out [LATENTS][V * W] = encoder rows w . packed x [d][V * W].
template <int V>
static void product(const float* x, const float* const* w, size_t d, float* out) {
  Vec sums[LATENTS][V] = {};
  const float* rows[LATENTS];
  for (int j = 0; j < LATENTS; j++) rows[j] = w[j];
  for (size_t i = 0; i < d; i++) {
    Vec column[V];
    for (int v = 0; v < V; v++) column[v] = load<Vec>(x + (i * V + v) * W);
    for (int j = 0; j < LATENTS; j++) {
      const float element = rows[j][i];
      for (int v = 0; v < V; v++) sums[j][v] += column[v] * element;
    }
  }
  for (int j = 0; j < LATENTS; j++) {
    for (int v = 0; v < V; v++) store(out + (j * V + v) * W, sums[j][v]);
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

/// Rows that stay in cache; `isDead` is null when no dead latent is to be selected.
static void encodePiece(Stream& s, const Encode& a, const uint8_t* isDead) {
  const size_t panels = ceilDiv(a.B, PANEL_ROWS);
  const auto vectors = [&](size_t panel) { return static_cast<int>(ceilDiv(std::min(PANEL_ROWS, a.B - panel * PANEL_ROWS), W)); };
  const size_t panelSize = PANEL_ROWS * a.d;
  float* packed = s.scratch<float>(PACKED, panels * panelSize);
  s.parallel(panels, [&](size_t panel, unsigned) { pack(a, panel * PANEL_ROWS, vectors(panel), packed + panel * panelSize); });
  const Selection live = makeSelection(s, LIVE_SELECTION, a.B, panels * PANEL_ROWS, a.live.k);
  const bool selectDead = isDead != nullptr;
  const Selection dead = selectDead ? makeSelection(s, DEAD_SELECTION, a.B, panels * PANEL_ROWS, a.dead.k) : Selection{};

  // Groups of panels of at most 512 KiB; tiles of under a millisecond, so that threads end together.
  const size_t groupPanels = std::max<size_t>(1, std::min((size_t{512} << 10) / (panelSize * 4), ceilDiv(panels, s.threads)));
  const size_t groups = ceilDiv(panels, groupPanels);
  const size_t stretch = std::max<size_t>(LATENTS, std::min<size_t>(256, ceilDiv(size_t{1} << 18, a.d)) / LATENTS * LATENTS);
  const size_t stretches = ceilDiv(a.n, stretch);
  Turns turns(s, groups, stretches);

  const auto work = [&](size_t group, size_t at) {
    const size_t firstPanel = group * groupPanels, lastPanel = std::min(panels, firstPanel + groupPanels);
    float out[LATENTS * PANEL_ROWS] __attribute__((aligned(64)));
    Vec nan = {};
    const size_t end = std::min(a.n, (at + 1) * stretch);
    for (size_t j0 = at * stretch; j0 < end; j0 += LATENTS) {
      const float* w[LATENTS];
      for (size_t j = 0; j < LATENTS; j++) w[j] = a.p.encoder + std::min(j0 + j, a.n - 1) * a.d;
      for (size_t panel = firstPanel; panel < lastPanel; panel++) {
        const float* x = packed + panel * panelSize;
        const int V = vectors(panel);
        switch (V) {
          case 1: product<1>(x, w, a.d, out); break;
          case 2: product<2>(x, w, a.d, out); break;
          case 3: product<3>(x, w, a.d, out); break;
          default: product<PANEL>(x, w, a.d, out); break;
        }
        for (size_t j = j0; j < std::min(end, j0 + LATENTS); j++) {
          const float bias = a.p.latentBias[j];
          for (int v = 0; v < V; v++) {
            const Vec pre = load<Vec>(out + ((j - j0) * V + v) * W) + bias;
            nan += pre * 0.0f;
            const size_t b = panel * PANEL_ROWS + v * W;
            for (uint32_t bits = above(pre, load<Vec>(live.thresholds + b)); bits != 0; bits &= bits - 1) {
              const int lane = __builtin_ctz(bits);
              live.add(b + lane, pre[lane], static_cast<uint32_t>(j));
            }
            if (!selectDead || !isDead[j]) continue;
            for (uint32_t bits = above(pre, load<Vec>(dead.thresholds + b)); bits != 0; bits &= bits - 1) {
              const int lane = __builtin_ctz(bits);
              dead.add(b + lane, pre[lane], static_cast<uint32_t>(j));
            }
          }
        }
      }
    }
    if (std::isnan(total(nan))) markBad(a.t);
  };
  s.parallel(stretches * groups, [&](size_t, unsigned) { turns.one(work); });

  constexpr size_t ROWS = 16;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      live.finish(b, a.live, &a.t);
      if (selectDead) dead.finish(b, a.dead, nullptr);
    }
  });
}

static void encode(Stream& s, const Encode& a) {
  const uint8_t* isDead = markDead(s, a);
  if (isDead == nullptr && a.dead.k > 0) clear(s, a.dead, a.B);
  const size_t keys = capacityOf(a.live.k) + (isDead != nullptr ? capacityOf(a.dead.k) : 0);
  inPieces(a, a.d * sizeof(float) + keys * sizeof(uint64_t), PANEL_ROWS, [&](const Encode& part) { encodePiece(s, part, isDead); });
}

#endif

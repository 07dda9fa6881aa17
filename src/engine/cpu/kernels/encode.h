// What both ways of encoding share: their input, which latents are dead, and how rows are taken in
// pieces.

#pragma once

#include "saetta.h"

#include <algorithm>

namespace saetta {

/// Scratch slots: encode's own from here on.
enum EncodeScratch : size_t {
  IS_DEAD,
  PACKED,
  PASSED,
  LIVE_SELECTION,
  DEAD_SELECTION = LIVE_SELECTION + 4,
  LIVE_WINDOW = DEAD_SELECTION + 4,
  BAND_WINDOW = LIVE_WINDOW + 3,
  ENCODE_REST = BAND_WINDOW + 3
};

/// A 1 for each dead latent, or for all where the second selection is wide; null when none is to be
/// selected. Sets sums[DEAD].
inline const uint8_t* markDead(Stream& s, const Encode& a) {
  if (a.age == nullptr && a.wide == 0) return nullptr;
  uint8_t* isDead = s.scratch<uint8_t>(IS_DEAD, a.n);
  size_t count = 0;
  for (size_t j = 0; a.age != nullptr && j < a.n; j++) {
    isDead[j] = a.age[j] > a.t.hyper[DEAD_AFTER];
    count += isDead[j];
  }
  if (a.age != nullptr) a.t.sums[DEAD] = static_cast<double>(count);
  if (a.wide != 0) {
    std::fill(isDead, isDead + a.n, uint8_t{1});
    return isDead;
  }
  return count > 0 && a.dead.k > 0 ? isDead : nullptr;
}

/// Codes that a row of the live ones keeps, at most its slots. Of a batch, `cut` decides.
inline size_t keptPerRow(const Encode& a) {
  if (a.rule != RULE_TOPK) return a.live.k;
  return static_cast<size_t>(std::min(static_cast<double>(a.live.k), a.t.hyper[ROW_K]));
}

inline void clear(Stream& s, const Codes& z, size_t B) {
  constexpr size_t ROWS = 64;
  s.parallel(ceilDiv(B, ROWS), [&](size_t tile, unsigned) {
    const size_t first = tile * ROWS * z.k, last = std::min(B, (tile + 1) * ROWS) * z.k;
    std::fill(z.latent + first, z.latent + last, NONE);
    std::fill(z.value + first, z.value + last, 0.0f);
    std::fill(z.grad + first, z.grad + last, 0.0f);
  });
}

/// f(part, first row) for pieces of the batch, so that what is kept a row takes no more than a
/// fixed amount of memory.
template <class F>
void inPieces(const Encode& a, size_t bytesARow, size_t multiple, const F& f) {
  constexpr size_t BYTES = size_t{24} << 20;
  const size_t rows = std::max<size_t>(1, BYTES / bytesARow / multiple) * multiple;
  for (size_t first = 0; first < a.B; first += rows) {
    Encode part = a;
    part.B = std::min(rows, a.B - first);
    part.x += first * a.d;
    for (Codes* z : {&part.live, &part.dead, &part.band}) {
      const size_t slots = first * z->k;
      z->latent += slots;
      z->value += slots;
      z->grad += slots;
    }
    f(part);
  }
}

/// The code of slot `slot`, and that its latent fired where `firing` is given.
inline void writeCode(const Codes& to, size_t slot, uint32_t latent, float value, const Step* firing) {
  to.latent[slot] = latent;
  to.value[slot] = value;
  to.grad[slot] = 0;
  if (firing != nullptr && latent != NONE && value > firing->hyper[FIRED_ABOVE])
    __atomic_store_n(&firing->fired[latent], 1u, __ATOMIC_RELAXED);
}

/// What a rule selects that looks at one latent at a time: values above low[j] and, where `high` is
/// not null, below high[j]. The latents of a row come in their order, so codes are final at once.
struct Window {
  Codes to;
  const float *low, *high;
  /// Of each row how many are selected, also beyond its slots.
  uint32_t* counts;
  const Step* firing;

  void add(size_t b, float value, uint32_t latent) const {
    const size_t at = counts[b]++;
    if (at < to.k) writeCode(to, b * to.k + at, latent, value, firing);
  }

  void finish(size_t b, const Step& t) const {
    if (counts[b] > to.k) markFull(t);
    for (size_t at = counts[b]; at < to.k; at++) writeCode(to, b * to.k + at, NONE, 0, nullptr);
  }
};

/// Of the live codes by RULE_THRESHOLD. A NaN is a threshold that nothing is above.
inline Window thresholdWindow(Stream& s, const Encode& a) {
  float* low = s.scratch<float>(LIVE_WINDOW, a.n);
  for (size_t j = 0; j < a.n; j++) {
    const float threshold = a.thresholds[j * a.thresholdStep];
    low[j] = std::isnan(threshold) ? INFINITY : std::max(threshold, 0.0f);
  }
  return {a.live, low, nullptr, nullptr, &a.t};
}

/// Of the band: within half a bandwidth of the threshold. Ends are rounded outwards, so that the
/// floats between them are those between the true ends.
inline Window bandWindow(Stream& s, const Encode& a) {
  float *low = s.scratch<float>(BAND_WINDOW, a.n), *high = s.scratch<float>(BAND_WINDOW + 1, a.n);
  const double half = a.t.hyper[BANDWIDTH] / 2;
  for (size_t j = 0; j < a.n; j++) {
    const double first = a.p.threshold[j] - half, last = a.p.threshold[j] + half;
    low[j] = static_cast<float>(first);
    high[j] = static_cast<float>(last);
    if (low[j] > first) low[j] = std::nextafter(low[j], -INFINITY);
    if (high[j] < last) high[j] = std::nextafter(high[j], INFINITY);
  }
  return {a.band, low, high, nullptr, nullptr};
}

/// Which groups of rows are how far: a group takes the stretches of latents in order, one thread at
/// a time. A thread that loses its processor holds up its own group only; the others go on with
/// theirs and then catch up.
class Turns {
 public:
  Turns(Stream& s, size_t groups, size_t stretches)
      : states_(s.scratch<std::atomic<uint64_t>>(PASSED, groups)), groups_(groups), stretches_(stretches) {
    for (size_t g = 0; g < groups; g++) new (states_ + g) std::atomic<uint64_t>(0);
  }

  /// f(group, stretch) for one of them, the group that is least far of those that nobody works on.
  /// To be called groups x stretches times.
  template <class F>
  void one(const F& f) {
    for (int spin = 0;; spin++) {
      size_t group = groups_;
      uint64_t state = UINT64_MAX;
      for (size_t g = 0; g < groups_; g++) {
        const uint64_t found = states_[g].load(std::memory_order_relaxed);
        if ((found & BUSY) != 0 || found >= state || found / 2 == stretches_) continue;
        group = g;
        state = found;
      }
      if (group < groups_ && states_[group].compare_exchange_strong(state, state | BUSY, std::memory_order_acquire)) {
        f(group, state / 2);
        states_[group].fetch_add(1, std::memory_order_release);
        return;
      }
      if (spin < 1000) pause();
      else std::this_thread::yield();
    }
  }

 private:
  /// States count twice the stretches done.
  static constexpr uint64_t BUSY = 1;
  std::atomic<uint64_t>* states_;
  size_t groups_, stretches_;
};

/// encode with the product in bf16 as a screen; see encode_bf16.cc.
void encodeScreened(Stream& s, const Encode& a);
/// Bits of the paths of AVX512_BF16 and AMX, where compiler, processor and kernel have them;
/// AVX-512 is there.
uint32_t screenPaths();

}  // namespace saetta

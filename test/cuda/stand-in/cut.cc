// The cut of a batch, on the stand-in.

#include "kernels.h"

namespace standin {

static const size_t SHIFT[] = {20, 10, 0}, BINS[] = {2048, 1024, 1024}, AT[] = {0, 2048, 3072};

/// What a pass has found: the bin of the cut, and how many of it are kept.
static void findBin(uint32_t* found, size_t pass, const double* hyper) {
  uint32_t need = pass == 0 ? static_cast<uint32_t>(hyper[KEPT]) : found[4096 + 2 * pass - 1], bin = 0, total = 0;
  for (size_t b = 0; b < BINS[pass]; b++) total += found[AT[pass] + b];
  need = std::min(need, total);
  for (size_t b = BINS[pass]; need > 0 && b-- > 0; need -= found[AT[pass] + b]) {
    bin = static_cast<uint32_t>(b);
    if (found[AT[pass] + b] >= need) break;
  }
  found[4096 + 2 * pass] = bin;
  found[4096 + 2 * pass + 1] = need;
}

static uint32_t bitsOf(const float* value, size_t at) {
  uint32_t bits;
  std::memcpy(&bits, value + at, 4);
  return bits;
}

static uint32_t cutOf(const uint32_t* found, size_t passes) {
  uint32_t bits = 0;
  for (size_t pass = 0; pass < passes; pass++) bits |= found[4096 + 2 * pass] << SHIFT[pass];
  return bits;
}

static void cutCount(Launch& l) {
  const float* value = l.next<float*>();
  const uint64_t count = l.next<uint64_t>();
  const double* hyper = l.array<double>(HYPERS);
  const size_t pass = l.u();
  uint32_t* found = l.array<uint32_t>(4096 + 6);
  l.checkedArray(value, count);
  l.expect(l.width == 256, "the launch is wrong");
  if (pass > 0) findBin(found, pass - 1, hyper);
  if (pass > 0 && found[4096 + 2 * pass - 1] == 0) return;
  const uint32_t cut = cutOf(found, pass);
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = bitsOf(value, i);
    if (bits == 0 || (pass > 0 && bits >> SHIFT[pass - 1] != cut >> SHIFT[pass - 1])) continue;
    found[AT[pass] + (bits >> SHIFT[pass] & (BINS[pass] - 1))]++;
  }
}

static void cutRows(Launch& l) {
  const float* value = l.next<float*>();
  const size_t B = l.u(), slots = l.u();
  const double* hyper = l.array<double>(HYPERS);
  uint32_t* found = l.array<uint32_t>(4096 + 6);
  uint32_t* above = l.array<uint32_t>(B);
  uint32_t* ties = l.array<uint32_t>(B);
  l.checkedArray(value, B * slots);
  l.expect(l.x == ceilDiv(B, 256) && l.width == 256, "the launch is wrong");
  findBin(found, 2, hyper);
  const uint32_t cut = cutOf(found, 3);
  for (size_t b = 0; b < B; b++) {
    above[b] = ties[b] = 0;
    for (size_t i = b * slots; i < (b + 1) * slots && found[4096 + 5] > 0; i++) {
      above[b] += bitsOf(value, i) > cut;
      ties[b] += bitsOf(value, i) == cut;
    }
  }
}

static void cutTotal(Launch& l) {
  const uint32_t* ties = l.next<uint32_t*>();
  const size_t B = l.u();
  uint32_t* total = l.array<uint32_t>(1);
  l.checkedArray(ties, B);
  *total = 0;
  for (size_t b = 0; b < B; b++) *total += ties[b];
}

static void cutApply(Launch& l) {
  uint32_t* latent = l.next<uint32_t*>();
  float* value = l.next<float*>();
  const size_t B = l.u(), slots = l.u(), n = l.u();
  const double* hyper = l.array<double>(HYPERS);
  const uint32_t* found = l.array<uint32_t>(4096 + 6);
  const uint32_t* above = l.array<uint32_t>(B);
  const uint32_t* ties = l.next<uint32_t*>();
  const size_t shards = l.u(), shard = l.u();
  const uint32_t* totals = l.next<uint32_t*>();
  const size_t earlier = l.u();
  uint32_t* fired = l.array<uint32_t>(n);
  uint32_t* bad = l.array<uint32_t>(1);
  float* cut = l.array<float>(1);
  l.checkedArray(latent, B * slots), l.checkedArray(value, B * slots), l.checkedArray(ties, shards * B);
  l.expect(l.x == ceilDiv(B, CUT_ROWS) && l.width == 256, "the launch is wrong");
  const uint32_t bits = cutOf(found, 3), need = found[4096 + 5];
  *cut = 0;
  if (need > 0) std::memcpy(cut, &bits, 4);
  uint32_t before = 0;
  for (size_t rank = 0; rank < earlier; rank++) before += totals[rank];
  for (size_t b = 0; b < B; b++) {
    size_t on = above[b];
    for (size_t s = 0; s < shards; s++) {
      const uint32_t equal = ties[s * B + b];
      if (s == shard && need > before) on += std::min(equal, need - before);
      before += equal;
    }
    if (on == slots && slots < n) *bad |= FULL;
    for (size_t i = 0; i < slots; i++) {
      if (i >= on) latent[b * slots + i] = NONE, value[b * slots + i] = 0;
      else if (value[b * slots + i] > hyper[FIRED_ABOVE]) fired[latent[b * slots + i]] = 1;
    }
  }
}

const Works CUT = {
    {"cut_count", cutCount},
    {"cut_rows", cutRows},
    {"cut_total", cutTotal},
    {"cut_apply", cutApply},
};

}  // namespace standin

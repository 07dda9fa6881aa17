// cut: what reconcile keeps of "batchtopk": the hyper[KEPT] highest of all rows and ranks.
//
// A radix select: positive floats are ordered as their bits are, so three passes that count values
// by 11, 10 and 10 bits find the lowest value that is kept. Counts are whole numbers, summed over
// threads and ranks, and the same in any order. Where not all values that are equal to it are kept,
// those of the lower replica are, then of the lower row, the lower shard, the lower slot.

#include "peers.h"

#include <algorithm>

namespace saetta {

namespace {

struct Pass {
  unsigned shift, bits;
};
constexpr Pass PASSES[] = {{20, 11}, {10, 10}, {0, 10}};
constexpr size_t BINS = size_t{1} << 11;
constexpr size_t ROWS_A_TILE = 64;

enum CutScratch : size_t { COUNTS, EQUAL, EQUAL_OF_SHARDS, EQUAL_OF_REPLICAS, KEPT_EQUAL };

/// The lowest value that is kept, 0 for none; how many equal it, and how many of these are kept.
struct Found {
  float lowest;
  uint64_t equal, keptEqual;
};

uint32_t bitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

/// f(row, thread) for all rows.
template <class F>
void eachRow(Stream& s, const Cut& a, const F& f) {
  s.parallel(ceilDiv(a.B, ROWS_A_TILE), [&](size_t tile, unsigned thread) {
    for (size_t b = tile * ROWS_A_TILE; b < std::min(a.B, (tile + 1) * ROWS_A_TILE); b++) f(b, thread);
  });
}

/// f(value) for each code of the row.
template <class F>
void eachValue(const Cut& a, size_t b, const F& f) {
  const size_t first = b * a.z.k;
  for (size_t i = first; i < first + a.z.k && a.z.latent[i] != NONE; i++) f(a.z.value[i]);
}

void sumOverRanks(const Cut& a, uint32_t* counts) {
  if (a.peers == nullptr) return;
  Request(*a.peers, "batch top-k", ALL, BINS * sizeof(uint32_t), [&](Handle* request) {
    return Mpi(*a.peers).iallreduce(IN_PLACE, counts, static_cast<int>(BINS), a.peers->types[WIRE_U32],
                                    a.peers->ops[REDUCE_SUM], a.peers->comms[ALL], request);
  }).end();
}

void gather(const Cut& a, Over over, const uint32_t* from, size_t count, uint32_t* to) {
  if (count > MOST) throw std::length_error("batch top-k: a batch of more than 2^28 rows");
  Request(*a.peers, "batch top-k", over, count * sizeof(uint32_t), [&](Handle* request) {
    const Handle type = a.peers->types[WIRE_U32];
    return Mpi(*a.peers).iallgather(from, static_cast<int>(count), type, to, static_cast<int>(count), type,
                                    a.peers->comms[over], request);
  }).end();
}

Found findCut(Stream& s, const Cut& a) {
  uint32_t* counts = s.scratch<uint32_t>(COUNTS, s.threads * BINS);
  uint32_t found = 0;
  uint64_t left = static_cast<uint64_t>(a.t.hyper[KEPT]);
  for (const Pass& pass : PASSES) {
    std::fill(counts, counts + s.threads * BINS, 0u);
    const unsigned above = pass.shift + pass.bits;
    const uint32_t mask = (1u << pass.bits) - 1;
    eachRow(s, a, [&](size_t b, unsigned thread) {
      eachValue(a, b, [&](float value) {
        const uint32_t bits = bitsOf(value);
        counts[thread * BINS + (bits >> pass.shift & mask)] += bits >> above == found;
      });
    });
    for (size_t i = BINS; i < s.threads * BINS; i++) counts[i % BINS] += counts[i];
    sumOverRanks(a, counts);
    if (pass.shift == PASSES[0].shift) {
      uint64_t all = 0;
      for (size_t bin = 0; bin < BINS; bin++) all += counts[bin];
      left = std::min(left, all);
      if (left == 0) return {0, 0, 0};
    }
    uint32_t bin = mask;
    for (; counts[bin] < left; bin--) left -= counts[bin];
    found = found << pass.bits | bin;
  }
  Found cut = {0, counts[found & ((1u << PASSES[2].bits) - 1)], left};
  std::memcpy(&cut.lowest, &found, 4);
  return cut;
}

/// Of each row of this rank: how many of the values that equal the lowest are kept. Null: all.
const uint32_t* shareEqual(Stream& s, const Cut& a, const Found& cut) {
  if (cut.keptEqual == cut.equal) return nullptr;
  const size_t shards = a.peers == nullptr ? 1 : a.peers->shards, shard = a.peers == nullptr ? 0 : a.peers->shard,
               replicas = a.peers == nullptr ? 1 : a.peers->replicas;
  uint32_t *own = s.scratch<uint32_t>(EQUAL, a.B), *kept = s.scratch<uint32_t>(KEPT_EQUAL, a.B);
  eachRow(s, a, [&](size_t b, unsigned) {
    own[b] = 0;
    eachValue(a, b, [&](float value) { own[b] += value == cut.lowest; });
  });
  const uint32_t* all = own;
  if (shards > 1) {
    uint32_t* ofShards = s.scratch<uint32_t>(EQUAL_OF_SHARDS, shards * a.B);
    gather(a, SHARDS, own, a.B, ofShards);
    all = ofShards;
  }
  uint64_t left = cut.keptEqual;
  if (replicas > 1) {
    uint32_t* totals = s.scratch<uint32_t>(EQUAL_OF_REPLICAS, replicas);
    uint32_t total = 0;
    for (size_t i = 0; i < shards * a.B; i++) total += all[i];
    gather(a, REPLICAS, &total, 1, totals);
    for (size_t r = 0; r < a.peers->replica; r++) left -= std::min<uint64_t>(left, totals[r]);
  }
  for (size_t b = 0; b < a.B; b++) {
    for (size_t each = 0; each < shards; each++) {
      const uint32_t share = static_cast<uint32_t>(std::min<uint64_t>(left, all[each * a.B + b]));
      left -= share;
      if (each == shard) kept[b] = share;
    }
  }
  return kept;
}

void cutBatch(Stream& s, const Cut& a) {
  const Found cut = findCut(s, a);
  const uint32_t* equal = shareEqual(s, a, cut);
  *a.t.cut = cut.lowest;
  std::fill(a.t.fired, a.t.fired + a.n, 0u);
  eachRow(s, a, [&](size_t b, unsigned) {
    const size_t first = b * a.z.k, end = first + a.z.k;
    uint32_t left = equal == nullptr ? NONE : equal[b];
    size_t i = first;
    // Highest first, so that what is kept comes before all that is not.
    for (; i < end && a.z.latent[i] != NONE; i++) {
      const float value = a.z.value[i];
      if (cut.lowest == 0 || value < cut.lowest || (value == cut.lowest && left-- == 0)) break;
      if (value > a.t.hyper[FIRED_ABOVE]) __atomic_store_n(&a.t.fired[a.z.latent[i]], 1u, __ATOMIC_RELAXED);
    }
    if (i == end && a.z.k < a.n) markFull(a.t);
    for (; i < end && a.z.latent[i] != NONE; i++) {
      a.z.latent[i] = NONE;
      a.z.value[i] = 0;
    }
  });
}

}  // namespace

}  // namespace saetta

extern "C" void saetta_cut(saetta::Stream* stream, const saetta::Cut* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { cutBatch(s, a); });
}

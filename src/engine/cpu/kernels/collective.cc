// What ranks do together: allReduce, sums with 16-bit numbers on the wire, and merge, the top k of
// all shards. Operations of a stream are started in its order.

#include "peers.h"

#include <algorithm>
#include <cstring>

namespace saetta {

/// Bytes that this process has put on the wire: of a ring for allReduce, (ranks - 1) / ranks of
/// them twice.
static std::atomic<uint64_t> sent{0};

static size_t ranksOf(const Peers& peers, Over over) {
  return over == SHARDS ? peers.shards : over == REPLICAS ? peers.replicas : peers.shards * peers.replicas;
}

static size_t rankOf(const Peers& peers, Over over) {
  return over == SHARDS ? peers.shard : over == REPLICAS ? peers.replica : peers.replica * peers.shards + peers.shard;
}

static uint32_t bitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static float valueOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// To nearest, ties to even; a NaN stays one.
template <bool half>
static uint16_t narrowed(float value) {
  const uint32_t bits = bitsOf(value), magnitude = bits & 0x7fffffffu;
  if (!half) {
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
  }
  const uint32_t sign = bits >> 16 & 0x8000u;
  // 65520 is halfway between the largest and 2^16, and goes to infinity.
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
  // Below 2^-14: adding 0.5 leaves the rounded count of steps of 2^-24.
  if (magnitude < 0x38800000u)
    return static_cast<uint16_t>(sign | (bitsOf(valueOf(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

template <bool half>
static float widened(uint16_t bits) {
  if (!half) return valueOf(static_cast<uint32_t>(bits) << 16);
  const uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return valueOf(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return valueOf(sign | (magnitude << 13) + 0x38000000u);
  return valueOf(sign | bitsOf(static_cast<float>(magnitude) * 0x1p-24f));
}

/// Narrows a number; true where it was finite and is not any more.
template <bool half>
static bool narrow(float value, uint16_t* to) {
  *to = narrowed<half>(value);
  constexpr uint32_t INFINITE = half ? 0x7c00u : 0x7f80u;
  return (*to & 0x7fffu) == INFINITE && (bitsOf(value) & 0x7fffffffu) < 0x7f800000u;
}

/// Every rank sums one part of the numbers, which the others send it, and sends the sums to them.
template <bool half>
static void narrowSum(Stream& s, const NarrowSum& a, float* at, size_t count) {
  const Peers& peers = *a.peers;
  const size_t ranks = ranksOf(peers, a.over), rank = rankOf(peers, a.over), each = ceilDiv(count, ranks);
  const Handle type = peers.types[WIRE_U8], comm = peers.comms[a.over];
  const int bytes = static_cast<int>(each * sizeof(uint16_t));
  const float scale = a.scaled != 0 ? static_cast<float>(a.t.hyper[LOSS_SCALE]) : 1;
  uint16_t* out = s.scratch<uint16_t>(0, ranks * each);
  uint16_t* in = s.scratch<uint16_t>(1, ranks * each);
  std::atomic<bool> overflow{false};
  constexpr size_t TILE = 1 << 14;
  const auto tiles = [&](size_t total, const auto& body) {
    s.parallel(ceilDiv(total, TILE), [&](size_t tile, unsigned) {
      bool over = false;
      for (size_t i = tile * TILE; i < std::min(total, (tile + 1) * TILE); i++) over |= body(i);
      if (over) overflow.store(true, std::memory_order_relaxed);
    });
  };
  tiles(ranks * each, [&](size_t i) { return narrow<half>(i < count ? at[i] * scale : 0, out + i); });
  Request(peers, "all-to-all", a.over, ranks * each * sizeof(uint16_t), [&](Handle* request) {
    return Mpi(peers).ialltoall(out, bytes, type, in, bytes, type, comm, request);
  }).end();
  tiles(each, [&](size_t i) {
    float sum = 0;
    for (size_t r = 0; r < ranks; r++) sum += widened<half>(in[r * each + i]);
    return narrow<half>(sum, out + rank * each + i);
  });
  Request(peers, "all-gather", a.over, ranks * each * sizeof(uint16_t), [&](Handle* request) {
    return Mpi(peers).iallgather(IN_PLACE, bytes, type, out, bytes, type, comm, request);
  }).end();
  sent += 2 * (ranks - 1) * each * sizeof(uint16_t);
  tiles(count, [&](size_t i) {
    at[i] = widened<half>(out[i]) / scale;
    return false;
  });
  if (overflow.load()) __atomic_fetch_or(a.t.bad, a.scaled != 0 ? OVERFLOW : 1u, __ATOMIC_RELAXED);
  s.halves.changed(at, count * sizeof(float));
}

/// How many of this shard's codes of row b are among the k highest of all shards. Values are in
/// order, so they are the first so many. all [shards][B][z.k].
static size_t keptOf(const Merge& a, size_t k, const float* all, size_t b, size_t* passed) {
  const size_t slots = a.z.k, shards = a.peers->shards, shard = a.peers->shard;
  const float* own = a.z.value + b * slots;
  std::fill(passed, passed + shards, size_t{0});
  for (size_t i = 0; i < slots; i++) {
    if (!(own[i] > 0)) return i;
    size_t above = i;
    for (size_t s = 0; s < shards; s++) {
      if (s == shard) continue;
      const float* other = all + (s * a.B + b) * slots;
      // Among equals the lower latent wins, which is the lower shard's.
      while (passed[s] < slots && (s < shard ? other[passed[s]] >= own[i] : other[passed[s]] > own[i])) passed[s]++;
      above += passed[s];
    }
    if (above >= k) return i;
  }
  return slots;
}

static void merge(Stream& s, const Merge& a) {
  const size_t slots = a.z.k, count = a.B * slots, shards = a.peers->shards;
  float* all = s.scratch<float>(0, shards * count);
  size_t* passed = s.scratch<size_t>(1, s.threads * shards);
  const Handle type = a.peers->types[WIRE_F32], comm = a.peers->comms[SHARDS];
  if (count > MOST) throw std::length_error("merge: a batch of more than 2^28 codes");
  Request(*a.peers, "merge", SHARDS, count * sizeof(float), [&](Handle* request) {
    return Mpi(*a.peers).iallgather(a.z.value, static_cast<int>(count), type, all, static_cast<int>(count), type, comm,
                                    request);
  }).end();
  const size_t k =
      a.isLive != 0 ? static_cast<size_t>(std::min(static_cast<double>(a.k), a.t.hyper[ROW_K])) : a.k;
  if (a.isLive != 0) std::fill(a.t.fired, a.t.fired + a.n, 0u);
  constexpr size_t ROWS = 64;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned thread) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      const size_t kept = keptOf(a, k, all, b, passed + thread * shards);
      for (size_t slot = b * slots; slot < (b + 1) * slots; slot++) {
        a.z.grad[slot] = 0;
        if (slot - b * slots >= kept) {
          a.z.latent[slot] = NONE;
          a.z.value[slot] = 0;
        } else if (a.isLive != 0 && a.z.value[slot] > a.t.hyper[FIRED_ABOVE]) {
          __atomic_store_n(&a.t.fired[a.z.latent[slot]], 1u, __ATOMIC_RELAXED);
        }
      }
    }
  });
}

}  // namespace saetta

extern "C" {

/// Lives as long as the process.
saetta::Peers* saetta_peers(const saetta::Peers* peers) { return new saetta::Peers(*peers); }

/// Started in the order of the stream; ended before the next operation that is no allReduce, so
/// that several of them are under way together.
void saetta_all_reduce(saetta::Stream* stream, const saetta::AllReduce* args) {
  using namespace saetta;
  for (uint64_t first = 0; first < args->count; first += MOST) {
    const size_t length = std::min<uint64_t>(MOST, args->count - first), bytes = length * BYTES[args->type];
    char* piece = static_cast<char*>(args->at) + first * BYTES[args->type];
    stream->submitStart([=, a = *args](Stream& s) -> std::function<void()> {
      s.halves.changed(piece, bytes);
      const size_t ranks = ranksOf(*a.peers, a.over);
      sent += 2 * (ranks - 1) * bytes / ranks;
      const auto request = std::make_shared<Request>(*a.peers, "all-reduce", a.over, bytes, [&](Handle* handle) {
        return Mpi(*a.peers).iallreduce(IN_PLACE, piece, static_cast<int>(length), a.peers->types[a.type],
                                        a.peers->ops[a.op], a.peers->comms[a.over], handle);
      });
      return [request] { request->end(); };
    });
  }
}

void saetta_narrow_sum(saetta::Stream* stream, const saetta::NarrowSum* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) {
    // Of one operation: MPI counts bytes in int.
    constexpr size_t PIECE = size_t{1} << 26;
    for (size_t first = 0; first < a.count; first += PIECE) {
      const size_t length = std::min(PIECE, a.count - first);
      if (a.as == NARROW_FP16) narrowSum<true>(s, a, a.at + first, length);
      else narrowSum<false>(s, a, a.at + first, length);
    }
  });
}

uint64_t saetta_sent_bytes() { return saetta::sent.load(); }

void saetta_merge(saetta::Stream* stream, const saetta::Merge* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { merge(s, a); });
}

}  // extern "C"

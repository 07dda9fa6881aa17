// What ranks do together: allReduce, and merge, the top k of all shards. Operations of a stream are
// started in its order.

#include "peers.h"

#include <algorithm>

namespace saetta {

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
      const auto request = std::make_shared<Request>(*a.peers, "all-reduce", a.over, bytes, [&](Handle* handle) {
        return Mpi(*a.peers).iallreduce(IN_PLACE, piece, static_cast<int>(length), a.peers->types[a.type],
                                        a.peers->ops[a.op], a.peers->comms[a.over], handle);
      });
      return [request] { request->end(); };
    });
  }
}

void saetta_merge(saetta::Stream* stream, const saetta::Merge* args) {
  using namespace saetta;
  stream->submit([a = *args](Stream& s) { merge(s, a); });
}

}  // extern "C"

// What ranks do together: allReduce, and merge, the top k of all shards. The stream's thread calls Open MPI through the addresses that ../../../collective/mpi.ts
// has found. Operations are non-blocking and polled with a deadline: a rank that is gone or stopped would block a thread in MPI_Allreduce for ever.

#include "saetta.h"

#include <algorithm>
#include <chrono>

namespace saetta {

using Handle = void*;

/// Groups of ranks, element types and reductions, in the order of collective.ts here.
enum Over : uint32_t { SHARDS, REPLICAS, ALL };
enum Type : uint32_t { F64, F32, U32, U8 };
constexpr size_t BYTES[] = {8, 4, 4, 1};
constexpr const char* NAMES[] = {"the shards", "the replicas", "all ranks"};

/// Open MPI, and this rank's place in the grid.
struct World {
  int (*iallreduce)(const void*, void*, int, Handle, Handle, Handle, Handle*);
  int (*iallgather)(const void*, int, Handle, void*, int, Handle, Handle, Handle*);
  int (*test)(Handle*, int*, void*);
  Handle comms[3], types[4], ops[3];
  size_t shards, shard;
  double deadline;
};

/// (void *) 1 in mpi.h of Open MPI.
static void* const IN_PLACE = reinterpret_cast<void*>(1);
/// MPI counts in int.
constexpr size_t MOST = size_t{1} << 28;

/// Fewer bytes take no longer than a nap.
constexpr size_t SMALL = size_t{1} << 16;

/// One operation under way, from `begin` to `end`.
class Request {
 public:
  template <class F>
  Request(const World& w, const char* what, Over over, size_t bytes, const F& begin) : world_(w), what_(what), over_(over), eager_(bytes < SMALL ? 2e-4 : 0.05) {
    check(begin(&handle_));
  }

  /// Polls, which is what moves the numbers: without a pause at first, then with naps, for other ranks may need this processor to get here.
  void end() {
    using Clock = std::chrono::steady_clock;
    const auto began = Clock::now();
    for (;;) {
      for (int polls = 0; polls < 16; polls++) {
        int done = 0;
        check(world_.test(&handle_, &done, nullptr));
        if (done != 0) return;
        pause();
      }
      const std::chrono::duration<double> waited = Clock::now() - began;
      if (waited.count() > eager_) std::this_thread::sleep_for(std::chrono::microseconds(50));
      if (waited.count() > world_.deadline) {
        throw std::runtime_error(std::string(what_) + " over " + NAMES[over_] + ": not every rank came within " +
                                 std::to_string(static_cast<long>(world_.deadline)) + " s; SAETTA_DEADLINE sets the seconds");
      }
    }
  }

 private:
  void check(int code) const {
    if (code != 0) throw std::runtime_error(std::string(what_) + " over " + NAMES[over_] + " failed in MPI (error " + std::to_string(code) + ")");
  }

  const World& world_;
  const char* what_;
  Over over_;
  /// Seconds of polling without naps.
  double eager_;
  Handle handle_ = nullptr;
};

struct Merge {
  const World* w;
  Codes z;
  size_t B, k, n;
  Step t;
  bool live;
};

/// How many of this shard's codes of row b are among the k highest of all shards. Values are in order, so they are the first so many. all [shards][B][z.k].
static size_t keptOf(const Merge& a, const float* all, size_t b, size_t* passed) {
  const size_t slots = a.z.k, shards = a.w->shards, shard = a.w->shard;
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
    if (above >= a.k) return i;
  }
  return slots;
}

static void merge(Stream& s, const Merge& a) {
  const size_t slots = a.z.k, count = a.B * slots, shards = a.w->shards;
  float* all = s.scratch<float>(0, shards * count);
  size_t* passed = s.scratch<size_t>(1, s.threads * shards);
  const Handle type = a.w->types[F32], comm = a.w->comms[SHARDS];
  if (count > MOST) throw std::length_error("merge: a batch of more than 2^28 codes");
  Request(*a.w, "merge", SHARDS, count * sizeof(float), [&](Handle* request) {
    return a.w->iallgather(a.z.value, static_cast<int>(count), type, all, static_cast<int>(count), type, comm, request);
  }).end();
  if (a.live) std::fill(a.t.fired, a.t.fired + a.n, 0u);
  constexpr size_t ROWS = 64;
  s.parallel(ceilDiv(a.B, ROWS), [&](size_t tile, unsigned thread) {
    for (size_t b = tile * ROWS; b < std::min(a.B, (tile + 1) * ROWS); b++) {
      const size_t kept = keptOf(a, all, b, passed + thread * shards);
      for (size_t slot = b * slots; slot < (b + 1) * slots; slot++) {
        a.z.grad[slot] = 0;
        if (slot - b * slots >= kept) {
          a.z.latent[slot] = NONE;
          a.z.value[slot] = 0;
        } else if (a.live && a.z.value[slot] > a.t.hyper[FIRED_ABOVE]) {
          __atomic_store_n(&a.t.fired[a.z.latent[slot]], 1u, __ATOMIC_RELAXED);
        }
      }
    }
  });
}

}  // namespace saetta

extern "C" {

/// handles: iallreduce, iallgather, test; communicators of shards, replicas, all; types f64, f32, u32, u8; reductions sum, max, min. Lives as long as the process.
saetta::World* saetta_world(const uint64_t* handles, uint64_t shards, uint64_t shard, double deadline) {
  using namespace saetta;
  World* w = new World;
  w->iallreduce = reinterpret_cast<decltype(w->iallreduce)>(handles[0]);
  w->iallgather = reinterpret_cast<decltype(w->iallgather)>(handles[1]);
  w->test = reinterpret_cast<decltype(w->test)>(handles[2]);
  for (size_t i = 0; i < 3; i++) w->comms[i] = reinterpret_cast<Handle>(handles[3 + i]);
  for (size_t i = 0; i < 4; i++) w->types[i] = reinterpret_cast<Handle>(handles[6 + i]);
  for (size_t i = 0; i < 3; i++) w->ops[i] = reinterpret_cast<Handle>(handles[10 + i]);
  w->shards = shards;
  w->shard = shard;
  w->deadline = deadline;
  return w;
}

/// Started in the order of the stream; ended before the next operation that is no allReduce, so that several of them are under way together.
void saetta_all_reduce(saetta::Stream* stream, const saetta::World* w, uint32_t over, uint32_t type, uint32_t op, void* at, uint64_t count) {
  using namespace saetta;
  for (uint64_t first = 0; first < count; first += MOST) {
    char* piece = static_cast<char*>(at) + first * BYTES[type];
    const int length = static_cast<int>(std::min<uint64_t>(MOST, count - first));
    stream->submitStart([=](Stream& s) -> std::function<void()> {
      s.halves.changed(piece, static_cast<size_t>(length) * BYTES[type]);
      const auto request = std::make_shared<Request>(*w, "all-reduce", static_cast<Over>(over), static_cast<size_t>(length) * BYTES[type], [&](Handle* handle) {
        return w->iallreduce(IN_PLACE, piece, length, w->types[type], w->ops[op], w->comms[over], handle);
      });
      return [request] { request->end(); };
    });
  }
}

void saetta_merge(saetta::Stream* stream, const saetta::World* w, uint32_t* latent, float* value, float* grad, uint64_t slots, uint64_t B, uint64_t k, uint64_t n,
                  uint32_t live, double* hyper, double* sums, uint32_t* fired, uint32_t* bad, double* sq) {
  using namespace saetta;
  const Merge a = {w, {latent, value, grad, slots}, B, k, n, {hyper, sums, fired, bad, sq}, live != 0};
  stream->submit([a](Stream& s) { merge(s, a); });
}

}  // extern "C"

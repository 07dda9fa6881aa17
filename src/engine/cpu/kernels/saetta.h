// What every kernel file sees: the stream that runs operations in order over a pool of threads, and
// the choice of instruction set.
//
// One operation a file. Its upper half (SAETTA_PATH not defined) holds the plain C entry, which
// queues the operation; its lower half is compiled once for each instruction set by each_path.h. B
// rows, d inputs, n latents; matrices are row-major; see ../../engine.ts for what each does.

#pragma once

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "contract.h"
#include "half.h"

namespace saetta {

/// Any thread may say that something is not finite.
inline void markBad(const Step& t) { __atomic_fetch_or(t.bad, 1u, __ATOMIC_RELAXED); }

/// Any thread may say that a row needs more slots than there are.
inline void markFull(const Step& t) { __atomic_fetch_or(t.bad, FULL, __ATOMIC_RELAXED); }

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Zeroed memory on a 64-byte border, in huge pages where it is large; null when there is none.
void* allocate(size_t bytes);
void release(void* address);

/// Operations in the order of their submission, run by one dispatcher thread, which shares the
/// tiles of each with a pool.
class Stream {
 public:
  const InstructionSet path;
  const unsigned threads;
  HalfEncoders halves;

  Stream(InstructionSet path, unsigned threads);
  /// After everything submitted.
  ~Stream();

  /// Queues an operation; its ticket is passed when it is done. An exception in it fails the
  /// stream: later operations do nothing, unless they are `always`.
  uint64_t submit(std::function<void(Stream&)> operation, bool always = false);
  /// The same for one that only starts something. What `start` returns ends it, and is called
  /// before the next operation that is not of this kind, or when there is nothing else to do.
  uint64_t submitStart(std::function<std::function<void()>(Stream&)> start);
  uint64_t done() const { return done_.load(std::memory_order_acquire); }
  bool idle() const { return done() == submitted_ && !underWay_.load(std::memory_order_acquire); }
  /// Blocks until the ticket is passed.
  void wait(uint64_t ticket);
  /// What went wrong, "" when nothing did.
  const char* error() const { return failed_.load() ? error_.c_str() : ""; }

  /// f(tile, thread) for every tile, in no order, on all threads; from within an operation only.
  /// What f computes for a tile must not depend on `thread`.
  template <class F>
  void parallel(size_t tiles, const F& f) {
    if (tiles == 1 || threads == 1) {
      for (size_t tile = 0; tile < tiles; tile++) f(tile, 0u);
    } else if (tiles > 0) {
      share(
          tiles,
          [](const void* context, size_t tile, unsigned thread) { (*static_cast<const F*>(context))(tile, thread); },
          &f);
    }
  }

  /// Memory for the time of an operation, not cleared; `slot` tells the pieces that one operation
  /// uses at once from each other.
  template <class T>
  T* scratch(size_t slot, size_t count) {
    return static_cast<T*>(scratchBytes(slot, count * sizeof(T)));
  }

 private:
  using Call = void (*)(const void*, size_t, unsigned);

  void share(size_t tiles, Call call, const void* context);
  void work(uint32_t generation, unsigned thread);
  void startThread(unsigned thread);
  void poolThread(unsigned thread);
  void dispatch();
  void* scratchBytes(size_t slot, size_t bytes);

  // The queue.
  std::mutex queueMutex_;
  std::condition_variable queued_, passed_;
  struct Operation {
    std::function<void(Stream&)> run;
    bool always, joins;
  };
  void attempt(const std::function<void()>& work);
  void join();
  std::deque<Operation> queue_;
  uint64_t submitted_ = 0;
  std::atomic<uint64_t> done_{0};
  bool closing_ = false;
  /// Set after `error_`, which never changes then.
  std::atomic<bool> failed_{false};
  std::string error_;
  /// What was started and is not ended; of the dispatcher alone.
  std::vector<std::function<void()>> started_;
  std::atomic<bool> underWay_{false};

  // The job that the pool works on. `next_` holds its generation (high half) and how many of its
  // tiles nobody has taken. A thread that comes late finds another generation or no tile left; were
  // tiles counted up to `tiles_`, it could find a tile in the number of the next job's.
  std::atomic<uint64_t> next_{0};
  std::atomic<size_t> tiles_{0}, finished_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  uint32_t generation_ = 0;

  std::mutex poolMutex_;
  std::condition_variable wake_, finish_;
  std::atomic<unsigned> sleeping_{0};
  std::atomic<bool> waiting_{false}, stopping_{false};

  struct Piece {
    void* address = nullptr;
    size_t bytes = 0;
  };
  std::vector<Piece> scratch_;
  /// Where each thread is pinned; empty: nowhere.
  const std::vector<int> cpus_;
  std::vector<std::thread> pool_;
  std::thread dispatcher_;
};

inline size_t ceilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

}  // namespace saetta

// How a kernel reaches the other ranks. The stream's thread calls Open MPI through the addresses
// that ../../../collective/mpi.ts has found. Operations are non-blocking and polled with a
// deadline: a rank that is gone or stopped would block a thread in MPI_Allreduce for ever.

#pragma once

#include "saetta.h"

#include <chrono>

namespace saetta {

using Handle = void*;

constexpr size_t BYTES[] = {8, 4, 4, 1};
constexpr const char* NAMES[] = {"the shards", "the replicas", "all ranks"};

/// Open MPI's functions, by their addresses.
struct Mpi {
  int (*iallreduce)(const void*, void*, int, Handle, Handle, Handle, Handle*);
  int (*iallgather)(const void*, int, Handle, void*, int, Handle, Handle, Handle*);
  int (*ialltoall)(const void*, int, Handle, void*, int, Handle, Handle, Handle*);
  int (*test)(Handle*, int*, void*);

  explicit Mpi(const Peers& peers)
      : iallreduce(reinterpret_cast<decltype(iallreduce)>(peers.iallreduce)),
        iallgather(reinterpret_cast<decltype(iallgather)>(peers.iallgather)),
        ialltoall(reinterpret_cast<decltype(ialltoall)>(peers.ialltoall)),
        test(reinterpret_cast<decltype(test)>(peers.test)) {}
};

/// (void *) 1 in mpi.h of Open MPI.
inline void* const IN_PLACE = reinterpret_cast<void*>(1);
/// MPI counts in int.
constexpr size_t MOST = size_t{1} << 28;

/// Fewer bytes take no longer than a nap.
constexpr size_t SMALL = size_t{1} << 16;

/// One operation under way, from `begin` to `end`.
class Request {
 public:
  template <class F>
  Request(const Peers& peers, const char* what, Over over, size_t bytes, const F& begin)
      : peers_(peers), what_(what), over_(over), eager_(bytes < SMALL ? 2e-4 : 0.05) {
    check(begin(&handle_));
  }

  /// Polls, which is what moves the numbers: without a pause at first, then with naps, for other
  /// ranks may need this processor to get here.
  void end() {
    using Clock = std::chrono::steady_clock;
    const auto began = Clock::now();
    for (;;) {
      for (int polls = 0; polls < 16; polls++) {
        int done = 0;
        check(Mpi(peers_).test(&handle_, &done, nullptr));
        if (done != 0) return;
        pause();
      }
      const std::chrono::duration<double> waited = Clock::now() - began;
      if (waited.count() > eager_) std::this_thread::sleep_for(std::chrono::microseconds(50));
      if (waited.count() > peers_.deadline) {
        throw std::runtime_error(std::string(what_) + " over " + NAMES[over_] + ": not every rank came within " +
                                 std::to_string(static_cast<long>(peers_.deadline)) +
                                 " s; SAETTA_DEADLINE sets the seconds");
      }
    }
  }

 private:
  void check(int code) const {
    if (code != 0)
      throw std::runtime_error(std::string(what_) + " over " + NAMES[over_] + " failed in MPI (error " +
                               std::to_string(code) + ")");
  }

  const Peers& peers_;
  const char* what_;
  Over over_;
  /// Seconds of polling without naps.
  double eager_;
  Handle handle_ = nullptr;
};

}  // namespace saetta

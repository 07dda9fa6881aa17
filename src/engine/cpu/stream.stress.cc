// A million jobs of changing numbers of tiles on a pool of three threads, each tile counted: none
// may be done twice or left out, and none may be waited for in vain. Compiled and run by
// stream.test.ts.

#include <cstdio>

#include "kernels/saetta.h"

int main() {
  constexpr size_t MOST = 64;
  saetta::Stream stream(static_cast<saetta::InstructionSet>(0), 3);
  size_t wrong = 0;
  std::atomic<int> counts[MOST];
  stream.submit([&](saetta::Stream& s) {
    for (size_t job = 0; job < 1000000 && wrong == 0; job++) {
      const size_t tiles = job % 2 ? MOST : 2;
      for (auto& count : counts) count.store(0, std::memory_order_relaxed);
      s.parallel(tiles, [&](size_t tile, unsigned) { counts[tile].fetch_add(1); });
      for (size_t tile = 0; tile < MOST; tile++) {
        const int times = counts[tile].load();
        if (times == (tile < tiles ? 1 : 0)) continue;
        wrong++;
        std::printf("job %zu of %zu tiles: tile %zu was done %d times\n", job, tiles, tile, times);
      }
    }
  });
  stream.wait(1);
  if (wrong == 0) std::printf("every tile once\n");
}

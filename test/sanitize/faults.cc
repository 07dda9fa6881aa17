// One fault of each kind that the sanitizers are there to find. scripts/sanitize.mjs commits each
// before it trusts their silence.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace {

// Volatile: the compiler must not see what will happen.
volatile size_t eight = 8;
volatile int largest = INT32_MAX;
volatile double huge = 1e30;

}  // namespace

extern "C" {

int write_beyond() {
  float* memory = static_cast<float*>(std::malloc(eight * sizeof(float)));
  memory[eight] = 1;
  const int read = static_cast<int>(memory[0]);
  std::free(memory);
  return read;
}

int read_after_free() {
  float* volatile memory = static_cast<float*>(std::malloc(eight * sizeof(float)));
  std::free(memory);
  return static_cast<int>(memory[3]);
}

int overflow() { return largest + static_cast<int>(eight); }

int misaligned() {
  alignas(8) char bytes[16] = {};
  volatile size_t one = 1;
  return static_cast<int>(*reinterpret_cast<const uint64_t*>(bytes + one));
}

int cast_beyond() { return static_cast<int>(static_cast<uint32_t>(huge)); }

static int shared;

int race() {
  std::thread other([] { shared++; });
  shared++;
  other.join();
  return shared;
}

static float copied[64];

int race_of_copies() {
  float here[64] = {};
  std::thread other([] {
    float there[64] = {};
    std::memcpy(copied, there, eight * sizeof(float));
  });
  std::memcpy(copied, here, eight * sizeof(float));
  other.join();
  return 0;
}

}  // extern "C"

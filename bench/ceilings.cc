// What this machine can do at most, measured: arithmetic of each instruction set, memory, and the
// matrix products of oneDNN and OpenBLAS. For ceilings.mjs, which compiles and drives it: on stdout
// one line of JSON says what there is; then for each line on stdin it measures that once and
// answers with one line: {"ms", "cpu_ms", "work"}, work in FLOP or bytes.
//
//   fma SET | bf16 SET          FLOP: dependent chains in registers; SET: sse2, avx2, avx512; avx512, amx
//   copy T | update T | read T  bytes read and written: T threads, each on its part of 256 MB
//   onednn f32|bf16 | openblas  FLOP: [M,K] times the transpose of [N,K], weights packed before
//
// Usage: ceilings THREADS M K N. What cannot be measured is answered with {"why"}.
#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#ifdef HAVE_ONEDNN
#include <dnnl.hpp>
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define X86 1
#if __has_include(<avx512bf16intrin.h>)
#define HAVE_BF16 1
#endif
#if __has_include(<amxbf16intrin.h>)
#define HAVE_AMX 1
#endif
#endif

namespace {

struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int threads = 1;

// ---- threads and clocks ----

std::vector<int> ownCpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  return cpus;
}

const std::vector<int> cpus = ownCpus();

void pinTo(size_t i) {
  if (cpus.size() < size_t(threads)) return;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(cpus[i], &mask);
  sched_setaffinity(0, sizeof mask, &mask);
}

void onThreads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> all;
  for (int i = 0; i < count; i++)
    all.emplace_back([&, i] {
      pinTo(size_t(i));
      work(i);
    });
  for (auto& thread : all) thread.join();
}

double cpuMs() {
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  return 1e3 * double(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         1e-3 * double(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

std::string timed(double work, const std::function<void()>& run) {
  const double cpu = cpuMs();
  const auto began = std::chrono::steady_clock::now();
  run();
  const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - began;
  char line[160];
  snprintf(line, sizeof line, "{\"ms\": %.4f, \"cpu_ms\": %.4f, \"work\": %.0f}", ms.count(), cpuMs() - cpu, work);
  return line;
}

// ---- arithmetic: as many independent chains as hide the latency of a fused multiply-add (4
// cycles, 2 per cycle) and still fit into registers ----

constexpr long ROUNDS = 20'000'000;

/**
 * The compiler must take the value for read and changed; unrolled in full, the sums are registers
 * and not an array in memory.
 */
#define KEEP(register_) asm volatile("" : "+x"(register_))
#define KEEP_WIDE(register_) asm volatile("" : "+v"(register_))

#ifdef X86
__attribute__((target("sse2"))) void chainsSse2() {
  __m128 sums[12];
  for (auto& sum : sums) sum = _mm_set1_ps(1.0f);
  __m128 a = _mm_set1_ps(0.999f), b = _mm_set1_ps(0.001f);
  for (long i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm_add_ps(_mm_mul_ps(sum, a), b);
      KEEP(sum);
    }
}
__attribute__((target("avx2,fma"))) void chainsAvx2() {
  __m256 sums[12];
  for (auto& sum : sums) sum = _mm256_set1_ps(1.0f);
  __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (long i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm256_fmadd_ps(sum, a, b);
      KEEP(sum);
    }
}
__attribute__((target("avx512f"))) void chainsAvx512() {
  __m512 sums[12];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (long i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm512_fmadd_ps(sum, a, b);
      KEEP_WIDE(sum);
    }
}
#ifdef HAVE_BF16
__attribute__((target("avx512f,avx512bf16"))) void chainsBf16() {
  __m512 sums[12];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512bh a = _mm512_cvtne2ps_pbh(half, half), b = a;
  for (long i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, a, b);
      KEEP_WIDE(sum);
    }
}
#endif
#ifdef HAVE_AMX
struct alignas(64) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t columnBytes[16] = {};
  uint8_t rows[16] = {};
};

/** Four tiles of sums from two tiles of each operand: as a product would hold them. */
__attribute__((target("amx-tile,amx-bf16"))) void chainsAmx() {
  TileShapes shapes;
  for (int tile = 0; tile < 8; tile++) shapes.columnBytes[tile] = 64, shapes.rows[tile] = 16;
  alignas(64) static const uint16_t zeros[16 * 32] = {};
  _tile_loadconfig(&shapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
  for (long i = 0; i < ROUNDS / 10; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}
#endif

bool hasBit(unsigned leaf, unsigned sub, int reg, int bit) {
  unsigned r[4] = {};
  return __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]) != 0 && ((r[reg] >> bit) & 1) != 0;
}
bool hasBf16() { return __builtin_cpu_supports("avx512f") && hasBit(7, 1, 0, 5); }
/**
 * The processor has it, and the kernel lets this process hold its tiles (ARCH_REQ_XCOMP_PERM of
 * XFEATURE_XTILEDATA).
 */
bool hasAmx() {
  static const bool granted = hasBit(7, 0, 3, 22) && hasBit(7, 0, 3, 24) && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return granted;
}
#endif

std::string arithmetic(const std::string& kind, const std::string& set) {
  void (*run)() = nullptr;
  double flop = 0;
#ifdef X86
  if (kind == "fma") {
    if (set == "sse2") run = chainsSse2, flop = 12.0 * 4 * 2;
    if (set == "avx2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      run = chainsAvx2, flop = 12.0 * 8 * 2;
    if (set == "avx512" && __builtin_cpu_supports("avx512f")) run = chainsAvx512, flop = 12.0 * 16 * 2;
  } else {
#ifdef HAVE_BF16
    if (set == "avx512" && hasBf16()) run = chainsBf16, flop = 12.0 * 32 * 2;
#endif
#ifdef HAVE_AMX
    if (set == "amx" && hasAmx()) run = chainsAmx, flop = 4.0 * 16 * 16 * 32 * 2 / 10;
#endif
  }
#endif
  if (run == nullptr)
    throw Unavailable("this processor (or the compiler) has no " + set + (kind == "bf16" ? " for bf16" : ""));
  return timed(flop * double(ROUNDS) * threads, [&] { onThreads(threads, [&](int) { run(); }); });
}

// ---- memory ----

constexpr size_t STREAM = size_t(256) << 20;

struct Streams {
  std::vector<float*> all;
  explicit Streams(int count) {
    for (int i = 0; i < count; i++) {
      float* memory = static_cast<float*>(aligned_alloc(size_t(2) << 20, STREAM));
      if (memory == nullptr) throw Unavailable("no room for streams of memory");
#ifdef MADV_HUGEPAGE
      madvise(memory, STREAM, MADV_HUGEPAGE);
#endif
      all.push_back(memory);
    }
    // Each part is first touched by the thread that has it later.
    onThreads(threads, [&](int i) {
      for (float* memory : all) {
        float* const end = memory + part(i + 1, threads);
        for (float* at = memory + part(i, threads); at < end; at++) *at = 1.0f;
      }
    });
  }
  static size_t part(int i, int of) { return STREAM / sizeof(float) / size_t(of) / 1024 * 1024 * size_t(i); }
};

Streams& streams() {
  static Streams held(3);
  return held;
}

#ifdef X86
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

/**
 * Three streams read, changed and written back, as Adam does with a parameter and its two moments,
 * without Adam's arithmetic.
 */
CLONES void updateStreams(float* __restrict a, float* __restrict b, float* __restrict c, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float x = a[i], y = b[i], z = c[i];
    a[i] = x + y;
    b[i] = y * 0.5f;
    c[i] = z * 0.5f;
  }
}

CLONES float readStream(const float* a, size_t count) {
  float sums[64] = {};
  for (size_t i = 0; i + 64 <= count; i += 64)
    for (int j = 0; j < 64; j++) sums[j] += a[i + size_t(j)];
  float sum = 0;
  for (float each : sums) sum += each;
  return sum;
}

std::string memory(const std::string& kind, int count) {
  const std::vector<float*>& all = streams().all;
  const double bytes = double(Streams::part(1, count)) * count * sizeof(float);
  const auto share = [&](int i) { return Streams::part(i, count); };
  const size_t length = Streams::part(1, count);
  if (kind == "copy")
    return timed(2 * bytes, [&] {
      onThreads(count, [&](int i) { memcpy(all[0] + share(i), all[1] + share(i), length * sizeof(float)); });
    });
  if (kind == "update")
    return timed(6 * bytes, [&] {
      onThreads(count, [&](int i) { updateStreams(all[0] + share(i), all[1] + share(i), all[2] + share(i), length); });
    });
  return timed(3 * bytes, [&] {
    onThreads(count, [&](int i) {
      for (const float* stream : all) {
        volatile float sum = readStream(stream + share(i), length);
        (void)sum;
      }
    });
  });
}

// ---- products ----

#include "products.h"

// ---- the conversation ----

std::string answer(const std::string& asked) {
  std::istringstream words(asked);
  std::string kind, what;
  words >> kind >> what;
  if (kind == "fma" || kind == "bf16") return arithmetic(kind, what);
  if (kind == "copy" || kind == "update" || kind == "read")
    return memory(kind, std::max(1, std::min(threads, atoi(what.c_str()))));
  if (kind == "onednn") return oneDnn(what);
  if (kind == "openblas") return blasProduct();
  throw Unavailable("no such measurement: " + asked);
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    fprintf(stderr, "usage: ceilings THREADS M K N\n");
    return 2;
  }
  threads = atoi(words[1]), M = atoll(words[2]), K = atoll(words[3]), N = atoll(words[4]);
  std::string oneDnnVersion = "none";
#ifdef HAVE_ONEDNN
  const dnnl_version_t* version = dnnl_version();
  oneDnnVersion =
      std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
#endif
  std::cout << "{\"onednn\": \"" << oneDnnVersion << "\", \"openblas\": \""
            << (openBlas().sgemm ? openBlas().config : "none") << "\"}" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      std::cout << answer(line) << std::endl;
    } catch (const Unavailable& error) {
      std::cout << "{\"why\": \"" << error.what() << "\"}" << std::endl;
    }
  }
  return 0;
}

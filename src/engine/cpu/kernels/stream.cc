// The stream and its pool, memory, and the plain C entries that are no kernels.

#include "encode.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace saetta {

// ---- memory ----

namespace {

constexpr size_t HUGE_PAGE = size_t{2} << 20;
#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer guards what malloc gives, to the byte: no slack, and no pages of our own but for
// what is too large to be touched.
constexpr size_t SLACK = 0, OWN_PAGES = size_t{1} << 30;
#else
constexpr size_t SLACK = 64, OWN_PAGES = 2 * HUGE_PAGE;
#endif

/// Memory given out. `base` is null where malloc gave it; else pages of our own.
struct Block {
  size_t bytes;
  void* base;
  size_t mapped;
};

// Not destroyed at exit: threads of a stream that nobody closed may still run then.
std::mutex& blocksMutex = *new std::mutex;
std::unordered_map<void*, Block>& blocks = *new std::unordered_map<void*, Block>;
/// Bytes of all blocks, and the most there have been; changed under the mutex.
std::atomic<uint64_t> heldBytes{0}, peakBytes{0};

void* keep(void* address, const Block& block) {
  std::lock_guard<std::mutex> lock(blocksMutex);
  blocks[address] = block;
  heldBytes += block.bytes;
  peakBytes = std::max(peakBytes.load(), heldBytes.load());
  return address;
}

}  // namespace

void* allocate(size_t bytes) {
  if (bytes < OWN_PAGES) {
    void* address = nullptr;
    if (posix_memalign(&address, 64, bytes + SLACK) != 0) return nullptr;
    return keep(std::memset(address, 0, bytes + SLACK), {bytes, nullptr, 0});
  }
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t mapped = bytes + HUGE_PAGE;
  void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(base) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
  void* address = reinterpret_cast<void*>(aligned);
#if defined(MADV_HUGEPAGE)
  madvise(address, bytes, MADV_HUGEPAGE);
#endif
  return keep(address, {bytes, base, mapped});
}

void release(void* address) {
  if (address == nullptr) return;
  Block block = {};
  {
    std::lock_guard<std::mutex> lock(blocksMutex);
    const auto found = blocks.find(address);
    // What was given back before goes to free, which says so.
    if (found != blocks.end()) {
      block = found->second;
      blocks.erase(found);
      heldBytes -= block.bytes;
    }
  }
  if (block.base == nullptr) std::free(address);
  else munmap(block.base, block.mapped);
}

void* Stream::scratchBytes(size_t slot, size_t bytes) {
  if (scratch_.size() <= slot) scratch_.resize(slot + 1);
  Piece& piece = scratch_[slot];
  if (piece.bytes < bytes) {
    release(piece.address);
    piece = {};
    piece.address = allocate(bytes);
    if (piece.address == nullptr)
      throw std::runtime_error("no room for " + std::to_string(bytes) + " bytes of working memory");
    piece.bytes = bytes;
  }
#if defined(__SANITIZE_ADDRESS__)
  // What an earlier operation left is no more to be read than what lies beyond: NaN, and out of
  // bounds.
  ASAN_UNPOISON_MEMORY_REGION(piece.address, piece.bytes);
  if (bytes > 0) std::memset(piece.address, 0xff, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(piece.address) + bytes, piece.bytes - bytes);
#endif
  return piece.address;
}

// ---- the pool ----

namespace {

/// About 50 us: shorter than a thread takes to fall asleep and be woken, and nothing to a machine.
constexpr int SPINS = 1500;

/// Results too small for a normal float become 0. Adam's moments of unused latents would otherwise
/// end there and make every step slow.
void flushToZero() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8000);
#elif defined(__aarch64__)
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" : : "r"(control | (uint64_t{1} << 24)));
#endif
}

/// The cpu of each of a stream's threads; empty: they go where the kernel puts them. Only a stream
/// with a thread for every cpu of the process is pinned: two processes of one thread each would
/// otherwise share the first cpu and leave the others idle.
std::vector<int> cpusOf(unsigned threads) {
  std::vector<int> cpus;
#if defined(__linux__)
  cpu_set_t mask;
  // Fails where the machine has more cpus than the mask has bits.
  if (threads < 2 || sched_getaffinity(0, sizeof mask, &mask) != 0 || CPU_COUNT(&mask) != static_cast<int>(threads))
    return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
#endif
  return cpus;
}

/// The calling thread stays on that cpu. It runs all the same where that is refused, for the cpu
/// may have been taken away since.
void pinTo(int cpu) {
#if defined(__linux__)
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(cpu, &mask);
  pthread_setaffinity_np(pthread_self(), sizeof mask, &mask);
#else
  static_cast<void>(cpu);
#endif
}

}  // namespace

void Stream::work(uint32_t generation, unsigned thread) {
  for (;;) {
    uint64_t next = next_.load(std::memory_order_acquire);
    const uint32_t left = static_cast<uint32_t>(next);
    const size_t tiles = tiles_.load(std::memory_order_relaxed);
    const Call call = call_.load(std::memory_order_relaxed);
    const void* context = context_.load(std::memory_order_relaxed);
    if (next >> 32 != generation || left == 0) return;
    // Succeeds only while a tile of this job was to be done from the first line on: then share()
    // had not begun the next, and what was read belongs to this one.
    if (!next_.compare_exchange_weak(next, next - 1, std::memory_order_acq_rel)) continue;
    call(context, tiles - left, thread);
    if (finished_.fetch_add(1) + 1 == tiles && waiting_.load()) {
      std::lock_guard<std::mutex> lock(poolMutex_);
      finish_.notify_all();
    }
  }
}

void Stream::share(size_t tiles, Call call, const void* context) {
  if (tiles >= NONE) throw std::length_error("an operation has too many tiles");
  tiles_.store(tiles, std::memory_order_relaxed);
  call_.store(call, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  finished_.store(0, std::memory_order_relaxed);
  generation_++;
  next_.store(uint64_t{generation_} << 32 | tiles);
  if (sleeping_.load() > 0) {
    std::lock_guard<std::mutex> lock(poolMutex_);
    wake_.notify_all();
  }
  work(generation_, 0);
  for (int spin = 0; spin < SPINS; spin++) {
    if (finished_.load() == tiles) return;
    pause();
  }
  std::unique_lock<std::mutex> lock(poolMutex_);
  waiting_.store(true);
  finish_.wait(lock, [&] { return finished_.load() == tiles; });
  waiting_.store(false);
}

void Stream::startThread(unsigned thread) {
  flushToZero();
  if (!cpus_.empty()) pinTo(cpus_[thread]);
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "saetta");
#endif
}

void Stream::poolThread(unsigned thread) {
  startThread(thread);
  uint32_t seen = 0;
  const auto news = [&] { return static_cast<uint32_t>(next_.load() >> 32) != seen || stopping_.load(); };
  for (;;) {
    for (int spin = 0; spin < SPINS && !news(); spin++) pause();
    if (!news()) {
      std::unique_lock<std::mutex> lock(poolMutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, news);
      sleeping_.fetch_sub(1);
    }
    if (stopping_.load()) return;
    seen = static_cast<uint32_t>(next_.load() >> 32);
    work(seen, thread);
  }
}

// ---- the queue ----

Stream::Stream(InstructionSet path, unsigned threads) : path(path), threads(threads), cpus_(cpusOf(threads)) {
  try {
    for (unsigned thread = 1; thread < threads; thread++) pool_.emplace_back(&Stream::poolThread, this, thread);
    dispatcher_ = std::thread(&Stream::dispatch, this);
  } catch (...) {
    stopping_.store(true);
    {
      std::lock_guard<std::mutex> lock(poolMutex_);
      wake_.notify_all();
    }
    for (std::thread& thread : pool_) thread.join();
    throw;
  }
}

Stream::~Stream() {
  {
    std::lock_guard<std::mutex> lock(queueMutex_);
    closing_ = true;
    queued_.notify_all();
  }
  dispatcher_.join();
  stopping_.store(true);
  {
    std::lock_guard<std::mutex> lock(poolMutex_);
    wake_.notify_all();
  }
  for (std::thread& thread : pool_) thread.join();
  for (const Piece& piece : scratch_) release(piece.address);
}

uint64_t Stream::submit(std::function<void(Stream&)> operation, bool always) {
  std::lock_guard<std::mutex> lock(queueMutex_);
  queue_.push_back({std::move(operation), always, true});
  queued_.notify_one();
  return ++submitted_;
}

uint64_t Stream::submitStart(std::function<std::function<void()>(Stream&)> start) {
  std::lock_guard<std::mutex> lock(queueMutex_);
  // Set before the operation counts as done, so that the stream is not taken for idle in between.
  const auto run = [this, start = std::move(start)](Stream& s) {
    started_.push_back(start(s));
    underWay_.store(true, std::memory_order_release);
  };
  queue_.push_back({run, false, false});
  queued_.notify_one();
  return ++submitted_;
}

void Stream::attempt(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& thrown) {
    std::lock_guard<std::mutex> lock(queueMutex_);
    if (failed_) return;
    error_ = thrown.what();
    failed_ = true;
  }
}

void Stream::join() {
  for (const auto& end : started_) {
    if (!failed_) attempt(end);
  }
  started_.clear();
  underWay_.store(false, std::memory_order_release);
}

void Stream::dispatch() {
  startThread(0);
  std::unique_lock<std::mutex> lock(queueMutex_);
  for (;;) {
    if (queue_.empty() && !started_.empty()) {
      lock.unlock();
      join();
      lock.lock();
      continue;
    }
    queued_.wait(lock, [&] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Operation operation = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (operation.joins && !started_.empty()) join();
    if (!failed_ || operation.always) attempt([&] { operation.run(*this); });
    operation.run = nullptr;
    lock.lock();
    done_.fetch_add(1, std::memory_order_release);
    passed_.notify_all();
  }
}

void Stream::wait(uint64_t ticket) {
  std::unique_lock<std::mutex> lock(queueMutex_);
  passed_.wait(lock, [&] { return done_.load() >= ticket; });
}

}  // namespace saetta

using saetta::Stream;

extern "C" {

/// Bit i: path i runs on this machine.
uint32_t saetta_paths() {
  uint32_t paths = 1u << saetta::PORTABLE;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) paths |= 1u << saetta::AVX2;
  if (avx512) paths |= 1u << saetta::AVX512;
  if (avx512) paths |= saetta::screenPaths();
#endif
  return paths;
}

/// Null when the threads cannot be started.
Stream* saetta_open(uint32_t path, uint32_t threads) {
  // The threads live in this library: it must stay mapped, whatever becomes of the handle that
  // loaded it.
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&saetta_open), &info) != 0) dlopen(info.dli_fname, RTLD_NOW | RTLD_NODELETE);
  try {
    return new Stream(static_cast<saetta::InstructionSet>(path), threads);
  } catch (const std::exception&) {
    return nullptr;
  }
}

/// Blocks until everything submitted is done and all threads have ended.
void saetta_close(Stream* stream) { delete stream; }

/// Bytes that this process has allocated here and not given back, of all streams; the most there
/// have been since saetta_reset_peak.
uint64_t saetta_held() { return saetta::heldBytes.load(); }
uint64_t saetta_peak() { return saetta::peakBytes.load(); }
void saetta_reset_peak() {
  std::lock_guard<std::mutex> lock(saetta::blocksMutex);
  saetta::peakBytes = saetta::heldBytes.load();
}

void* saetta_allocate(uint64_t bytes) { return saetta::allocate(bytes); }
/// Gives memory back after everything submitted.
void saetta_release(Stream* stream, void* address) {
  stream->submit(
      [address](Stream& s) {
        s.halves.drop(address);
        saetta::release(address);
      },
      true);
}

/// Bytes to memory in the order of the stream; they are copied before it returns.
void saetta_write(Stream* stream, void* to, const uint8_t* from, uint64_t bytes) {
  if (stream->idle()) {
    stream->halves.changed(to, bytes);
    std::memcpy(to, from, bytes);
    return;
  }
  const char* first = reinterpret_cast<const char*>(from);
  stream->submit([to, staged = std::vector<char>(first, first + bytes)](Stream& s) {
    s.halves.changed(to, staged.size());
    std::memcpy(to, staged.data(), staged.size());
  });
}

/// Memory to bytes, once the ticket returned is passed.
uint64_t saetta_read(Stream* stream, const void* from, void* to, uint64_t bytes) {
  return stream->submit([=](Stream&) { std::memcpy(to, from, bytes); });
}

/// The last ticket passed.
uint64_t saetta_done(Stream* stream) { return stream->done(); }
/// Blocks until the ticket is passed.
void saetta_wait(Stream* stream, uint64_t ticket) { stream->wait(ticket); }
const char* saetta_error(Stream* stream) { return stream->error(); }

}  // extern "C"

// What the parts of the stand-in share.

#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

namespace standin {

/// Of a block, as on a card of 9.0.
constexpr size_t MOST_SHARED = 227 * 1024;
/// Dynamic, without being asked: 48 KiB less what a kernel may take for itself.
constexpr int UNASKED = 32 * 1024;

void complain(const char* format, ...);
/// Whether the bytes lie in one piece of memory that is allocated.
bool owned(const void* address, size_t bytes);

/// Thrown after a complaint.
struct Stop {};

inline unsigned replays = 0;

struct Graph {
  std::vector<std::function<void()>> work;
};

/// Numbers in a compute type: 0 f32, 1 bf16, 2 f16.
struct Elements {
  int compute;
  void* at;

  size_t bytes() const { return compute == 0 ? 4 : 2; }
  void check(const char* where, size_t count) const {
    if (!owned(at, count * bytes())) {
      complain("%s: a matrix of %zu elements is not all there", where, count);
      throw Stop{};
    }
  }
  float get(size_t i) const {
    if (compute == 0) return static_cast<float*>(at)[i];
    if (compute == 2) return static_cast<float>(static_cast<_Float16*>(at)[i]);
    const uint32_t bits = static_cast<uint32_t>(static_cast<uint16_t*>(at)[i]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  void set(size_t i, float value) const {
    if (compute == 0) static_cast<float*>(at)[i] = value;
    else if (compute == 2) static_cast<_Float16*>(at)[i] = static_cast<_Float16>(value);
    else static_cast<uint16_t*>(at)[i] = rounded(value);
  }
  static uint16_t rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

struct Launch {
  const char* name;
  int compute;
  unsigned x, y, width, height, shared;
  std::vector<char> arguments;
  size_t at = 0;

  template <class T>
  T next() {
    at = (at + alignof(T) - 1) / alignof(T) * alignof(T);
    T value;
    std::memcpy(&value, arguments.data() + at, sizeof(T));
    at += sizeof(T);
    return value;
  }
  uint32_t u() { return next<uint32_t>(); }
  /// An address at which `count` elements must be.
  template <class T>
  T* array(size_t count) {
    return checkedArray(next<T*>(), count);
  }
  template <class T>
  T* checkedArray(T* p, size_t count) {
    if (!owned(p, count * sizeof(T))) {
      complain("%s: an array of %zu elements of %zu bytes is not all there", name, count, sizeof(T));
      throw Stop{};
    }
    return p;
  }
  Elements matrix(size_t count) { return matrixAt(next<void*>(), count); }
  Elements matrixAt(void* p, size_t count) {
    const Elements e = {compute, p};
    e.check(name, count);
    return e;
  }
  void expect(bool holds, const char* what) {
    if (holds) return;
    complain("%s: %s", name, what);
    throw Stop{};
  }
};

typedef void (*Work)(Launch&);

struct Function {
  const char* name;
  Work work;
  int compute;
  int shared;
};

/// Null where there is no such kernel.
Work workOf(const char* name);

}  // namespace standin

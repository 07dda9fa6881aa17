// The copies of encoders in bfloat16; see half.h.

#include "half.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "saetta.h"

namespace saetta {

HalfEncoder::HalfEncoder(const float* encoder, size_t n, size_t d)
    : encoder(encoder), n(n), d(d), blocks(ceilDiv(d, TILE_INPUTS)) {
  // Two panels of latents are multiplied at a time.
  const size_t padded = ceilDiv(n, 2 * TILE_LATENTS) * 2 * TILE_LATENTS,
               bytes = padded * blocks * TILE_INPUTS * sizeof(uint16_t);
  tiles = static_cast<uint16_t*>(allocate(bytes));
  norms = static_cast<float*>(allocate(padded * sizeof(float)));
  errors = static_cast<float*>(allocate(padded * sizeof(float)));
  if (tiles != nullptr && norms != nullptr && errors != nullptr) return;
  for (void* address : {static_cast<void*>(tiles), static_cast<void*>(norms), static_cast<void*>(errors)})
    release(address);
  throw std::runtime_error("no room for " + std::to_string(bytes) + " bytes: the encoder in bf16");
}

HalfEncoder::~HalfEncoder() {
  for (void* address : {static_cast<void*>(tiles), static_cast<void*>(norms), static_cast<void*>(errors)})
    release(address);
}

HalfEncoder& HalfEncoders::of(const float* encoder, size_t n, size_t d) {
  HalfEncoder* found = find(encoder);
  if (found != nullptr && found->n == n && found->d == d) return *found;
  drop(encoder);
  auto made = std::make_unique<HalfEncoder>(encoder, n, d);
  std::lock_guard<std::mutex> lock(mutex_);
  copies_.push_back(std::move(made));
  return *copies_.back();
}

HalfEncoder* HalfEncoders::find(const float* encoder) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& copy : copies_) {
    if (copy->encoder == encoder) return copy.get();
  }
  return nullptr;
}

void HalfEncoders::changed(const void* address, size_t bytes) {
  const char *first = static_cast<const char*>(address), *last = first + bytes;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& copy : copies_) {
    const char* encoder = reinterpret_cast<const char*>(copy->encoder);
    if (first < encoder + copy->n * copy->d * sizeof(float) && encoder < last) copy->fresh = false;
  }
}

void HalfEncoders::drop(const void* encoder) {
  std::lock_guard<std::mutex> lock(mutex_);
  copies_.erase(
      std::remove_if(copies_.begin(), copies_.end(), [&](const auto& copy) { return copy->encoder == encoder; }),
      copies_.end());
}

}  // namespace saetta

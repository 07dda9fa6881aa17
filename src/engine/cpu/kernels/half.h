// Copies of encoders in bfloat16 for the screen of encode_bf16.cc, and what rounding has cost each
// row. A copy is made when an encoder is first used; update writes the rows again as it changes
// them; whatever else writes to the encoder makes the copy stale.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace saetta {

/// Latents and inputs of a tile: 16 x 32 elements of 2 bytes, a cache line a latent, 1 KiB in all,
/// as a tile register holds them.
constexpr size_t TILE_LATENTS = 16, TILE_INPUTS = 32, TILE = TILE_LATENTS * TILE_INPUTS;

struct HalfEncoder {
  const float* encoder;
  size_t n, d;
  /// Tiles along the inputs; what is past n or d is zero.
  size_t blocks;
  /// [n / 16][blocks][16][32]
  uint16_t* tiles;
  /// Of each row w and its copy: the larger norm, and the norm of their difference. Never too
  /// small.
  float *norms, *errors;
  bool fresh = false;

  HalfEncoder(const float* encoder, size_t n, size_t d);
  ~HalfEncoder();
  uint16_t* row(size_t j) const { return tiles + (j / TILE_LATENTS * blocks) * TILE + j % TILE_LATENTS * TILE_INPUTS; }
};

/// The copies of a stream, by the address of the encoder.
class HalfEncoders {
 public:
  /// The copy, fresh or not. Throws when there is no room.
  HalfEncoder& of(const float* encoder, size_t n, size_t d);
  /// Null: there is none.
  HalfEncoder* find(const float* encoder);
  /// Something wrote to this memory.
  void changed(const void* address, size_t bytes);
  void drop(const void* encoder);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<HalfEncoder>> copies_;
};

}  // namespace saetta

// One branch through the autoencoder: decode, residual and codeGrad.

#pragma once

#include "saetta.h"

#include <algorithm>

namespace saetta {

/// Rows that a thread takes at a time.
constexpr size_t ROWS_A_TILE = 8;

/// Slots of row b that are in use: those before the first unused one.
inline size_t usedOf(const Codes& z, size_t b) {
  const u32* latent = z.latent + b * z.k;
  size_t used = 0;
  while (used < z.k && latent[used] != NONE) used++;
  return used;
}

/// The plane of err that a latent is in: the number of its first prefix.
inline size_t planeOf(const Prefixes& prefixes, size_t latent) {
  size_t plane = 0;
  while (plane + 1 < prefixes.count && latent >= prefixes.ends[plane]) plane++;
  return plane;
}

}  // namespace saetta

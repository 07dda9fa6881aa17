// One path through the autoencoder: what residual is told, alone or as a part of reconstruct.

#pragma once

#include "saetta.h"

#include <algorithm>

namespace saetta {

struct Residual {
  const float *preBias, *x;
  float* err;
  /// The live err when this is the dead path, else null.
  const float* live;
  const float* value;
  size_t k, B, d;
  Step t;
};

/// Rows that a thread takes at a time.
constexpr size_t ROWS_A_TILE = 8;

}  // namespace saetta

// One branch through the autoencoder: decode, residual and codeGrad.

#pragma once

#include "saetta.h"

#include <algorithm>

namespace saetta {

/// Rows that a thread takes at a time.
constexpr size_t ROWS_A_TILE = 8;

}  // namespace saetta

// What paramGrad leaves for norm and update: the codes inverted to a list for each latent, from
// which gradient rows are formed when they are needed, so that no [n,d] gradient exists. Lists are
// in the order of the rows, live before dead. A list longer than `chunk` is summed at once, in
// chunks of fixed length which threads share and whose sums are added in order, so that a latent
// that is on in every row does not hold up the others.

#pragma once

#include "saetta.h"

namespace saetta {

/// One place where a latent is on, with the factors of the loss applied: `value` times the row of
/// err and `grad` times the row of x - preBias.
struct Entry {
  uint32_t row;
  float value, grad;
};

struct Gradients {
  size_t n, d;
  /// Tensors of the caller; encoder and decoder are null unless dense gradients were asked for.
  Params g;
  /// List of latent j: entries [start[j], start[j + 1]), those from middle[j] on of the dead one.
  uint64_t *start, *middle;
  Entry* entries;
  size_t capacity;
  /// Where in `longRows` the two rows of a long list are; NONE for others.
  uint32_t* longAt;
  float* longRows;
  size_t longCapacity;
  /// Of the last paramGrad; the factors of the loss are 0 where a branch has no entries.
  double liveScale, deadScale;
  const float *x, *liveErr, *deadErr, *preBias;

  Gradients(size_t n, size_t d, size_t capacity, Params g);
  ~Gradients();
};

/// Entries are read so far past the end of a list, and of all, to ask for their rows in time.
constexpr size_t ENTRIES_AHEAD = 8;
/// Latents that a thread takes at a time.
constexpr size_t LATENTS_A_TILE = 64;

}  // namespace saetta

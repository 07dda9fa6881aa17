// What paramGrad leaves for norm and update: the codes inverted to a list for each latent, from
// which gradient rows are formed when they are needed, so that no [n,d] gradient exists. Lists are
// in the order of the rows, live before dead. A list longer than `chunk` is summed at once, in
// chunks of fixed length which threads share and whose sums are added in order, so that a latent
// that is on in every row does not hold up the others.

#pragma once

#include "branch.h"

namespace saetta {

/// One place where a latent is on, with the factors of the loss applied: `value` times the row of
/// err and `grad` times the row of x - minus.
struct Entry {
  uint32_t row;
  float value, grad;
};

struct Gradients {
  size_t n, dIn, dOut;
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
  /// What is taken out of the encoder's gradient of a latent that is dead, for its pre-activation
  /// loss [dIn].
  float* deadRow;

  /// Of the last paramGrad; the factors of the loss are 0 where a branch has no entries.
  double liveScale, deadScale;
  /// `minus`: what is subtracted from x; null: nothing.
  const float *x, *minus, *deadErr;
  Branch live;
  /// Entries' gradients are those of their codes and nothing more.
  bool plain;
  /// Ages of the latents, of which those above `deadAfter` are dead; null where `deadRow` is not
  /// used.
  const uint32_t* age;
  double deadAfter;

  Gradients(size_t n, size_t dIn, size_t dOut, size_t capacity, Params g);
  ~Gradients();

  /// Both gradient rows of a latent.
  size_t width() const { return dIn + dOut; }
  /// Whether `deadRow` belongs to latent j's gradient.
  bool isPenalised(size_t j) const { return age != nullptr && age[j] > deadAfter; }
};

/// Entries are read so far past the end of a list, and of all, to ask for their rows in time.
constexpr size_t ENTRIES_AHEAD = 8;
/// Latents that a thread takes at a time.
constexpr size_t LATENTS_A_TILE = 64;

}  // namespace saetta

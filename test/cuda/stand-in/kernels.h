// How kernels are launched on the stand-in: what its parts share. The kernels of src/engine/cuda/kernels are plain loops here: what each takes and leaves, not how. Where a
// launch does not cover its work it is refused, for a card would leave a part of it undone.

#pragma once

#include "stand_in.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

namespace standin {

enum Hyper { LR, BETA1, BETA2, EPS, CLIP, EMA_DECAY, MSE_SCALE, AUX_COEF, ROWS, DEAD_AFTER, FIRED_ABOVE, HYPERS };
enum Sum { ERR2, AUX_ERR2, X2, CENTRED2, ACTIVE, DEAD, SUMS };
enum Counter { ADAM, EMA, SKIPPED };
constexpr uint32_t DEAD_PATH = 0x80000000u;

inline size_t ceilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

inline void rowThreads(Launch& l, size_t d) {
  const size_t wide = l.compute == 0 ? 4 : 8, groups = d % wide == 0 ? d / wide : d;
  l.expect(l.width == std::min<size_t>(256, 32 * ceilDiv(groups, 32)) && l.height == 1, "not T(d) threads");
}

inline void gradientThreads(Launch& l, size_t d) {
  const size_t groups = d % 4 == 0 ? d / 4 : d;
  l.expect(l.width == std::min<size_t>(512, 32 * ceilDiv(groups, 32)) && l.height == 1, "not R(d) threads");
}

struct Entry {
  uint32_t row;
  float value, grad;
  uint32_t unused;
};

struct Gradients {
  uint64_t n, d, chunk, cap, from, to;
  uint32_t *taken, *start, *pieceAt;
  Entry* entries;
  float* pieceRows;
  void *xc16, *liveErr16, *deadErr16;
  uint32_t* deadSlot;
  float *deadEncoder, *deadDecoder;
  double* scales;
  float *formedEncoder, *formedDecoder;
};

struct Share {
  uint32_t first, end, rest;

  bool has(size_t j) const { return (j >= first && j < end) || j >= rest; }
};

/// A row of gradients of both matrices.
void rowsOf(Launch& l, const Gradients& g, size_t j, float* encoder, float* decoder);
Gradients gradients(Launch& l);
/// The grid of a kernel whose blocks go over all rows.
void persistent(Launch& l, const Gradients& g, size_t more);

typedef std::map<std::string, Work> Works;
extern const Works ENCODE, PATHS, GRADIENTS, UPDATE;

}  // namespace standin

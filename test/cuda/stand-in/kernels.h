// How kernels are launched on the stand-in: what its parts share. The kernels of
// src/engine/cuda/kernels are plain loops here: what each takes and leaves, not how. Where a launch
// does not cover its work it is refused, for a card would leave a part of it undone.

#pragma once

#include "stand_in.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

namespace standin {

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
/// Numbers of the compute type, which is known when a kernel runs.
typedef void half_t;

struct Entry {
  uint32_t row;
  float value, grad;
  uint32_t unused;
};
typedef Entry uint4;

#include "../../../src/engine/cuda/kernels/contract.cuh"

inline bool has(const Share& share, size_t j) { return (j >= share.first && j < share.end) || j >= share.rest; }

inline size_t ceilDiv(size_t a, size_t b) { return (a + b - 1) / b; }

/// The first prefix that holds the latent.
inline size_t planeOf(const Prefixes& prefixes, size_t j) {
  size_t g = 0;
  while (g + 1 < prefixes.count && j >= prefixes.ends[g]) g++;
  return g;
}

inline void rowThreads(Launch& l, size_t d) {
  const size_t wide = l.compute == 0 ? 4 : 8, groups = d % wide == 0 ? d / wide : d;
  l.expect(l.width == std::min<size_t>(256, 32 * ceilDiv(groups, 32)) && l.height == 1, "not T(d) threads");
}

inline void gradientThreads(Launch& l, size_t d) {
  const size_t groups = d % 4 == 0 ? d / 4 : d;
  l.expect(l.width == std::min<size_t>(512, 32 * ceilDiv(groups, 32)) && l.height == 1, "not R(d) threads");
}

/// The codes of a row, in ascending order of the latents; FULL where they do not fit.
void putCodes(const Selected& to, size_t row, const std::vector<std::pair<uint32_t, float>>& codes, uint32_t* bad);
/// A row of gradients of both matrices.
void rowsOf(Launch& l, const Gradients& g, size_t j, float* encoder, float* decoder);
Gradients gradients(Launch& l);
/// The grid of a kernel whose blocks go over all rows.
void persistent(Launch& l, const Gradients& g, size_t more);

typedef std::map<std::string, Work> Works;
extern const Works ENCODE, SCREEN, CUT, PATHS, GRADIENTS, UPDATE;

}  // namespace standin

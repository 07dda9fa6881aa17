// What paramGrad leaves for norm and update: the codes inverted to a list for each latent, from
// which gradient rows are formed when they are needed. See lists.cu for how lists come about and
// dense.cu for the dead rows that come out of dense products instead.

#pragma once

#include "saetta.cuh"

__device__ __forceinline__ bool has(const Share& share, u32 j) {
  return (j >= share.first && j < share.end) || j >= share.rest;
}

/// Where a block works on a gradient row, a thread takes ROW_WIDTH columns at a time where d is a
/// multiple of it, else 1, and there are R(d) threads (MOST_ROW_THREADS). What is in f32, most of
/// what is moved, is then read and written in whole sectors: with 8 columns a thread, each access
/// of a warp touches the half of twice as many.

enum Side { ENCODER, DECODER };

/// Columns of a row of one side, and of the longer one.
__device__ __forceinline__ u32 widthOf(const Gradients& g, u32 side) { return side == ENCODER ? g.dIn : g.dOut; }
__device__ __forceinline__ u32 widestOf(const Gradients& g) { return max(g.dIn, g.dOut); }
/// Whether the latent is dead, where dead ones have a pre-activation loss.
__device__ __forceinline__ bool isPenalized(const Gradients& g, u32 j) {
  return g.age != nullptr && g.age[j] > g.scales[3];
}
/// Whether threads take ROW_WIDTH columns at a time.
__device__ __forceinline__ bool inQuads(const Gradients& g) { return (g.dIn | g.dOut) % ROW_WIDTH == 0; }

/// Bytes of shared memory that staged entries take: of the row at work, of the next, and of one
/// that slower threads may still read.
constexpr u32 STAGE_BYTES = STAGES * STAGED * sizeof(uint4);

#ifndef BATCH_OF_ROWS
#define BATCH_OF_ROWS 8
#endif

/// run += `BATCH` rows from entry `first` on, those before `end`; what stands for the others is
/// read from the cache and multiplied by 0.
template <int V, u32 BATCH>
__device__ __forceinline__ void addEntries(const Gradients& g, u32 side, const uint4* entries, u32 first, u32 end,
                                           u32 c, float (&run)[V]) {
  Raw<V> raw[BATCH];
  float factor[BATCH];
  const u64 d = side == ENCODER ? g.dIn : g.dOut;
#pragma unroll
  for (u32 i = 0; i < BATCH; i++) {
    const uint4 entry = entries[min(first + i, end - 1)];
    const u32 row = side == ENCODER ? entry.x : entry.w;
    const half_t* from = side == ENCODER ? g.xc16 : (row & DEAD_PATH) != 0 ? g.deadErr16 : g.liveErr16;
    factor[i] = first + i < end ? __uint_as_float(side == ENCODER ? entry.z : entry.y) : 0;
    raw[i] = fetch<V>(from + static_cast<u64>(row & ~DEAD_PATH) * d + c);
  }
#pragma unroll
  for (u32 i = 0; i < BATCH; i++) {
    float row[V];
    unpack(raw[i], row);
#pragma unroll
    for (int u = 0; u < V; u++) run[u] = fmaf(row[u], factor[i], run[u]);
  }
}

/// Columns [c, c + V) summed over `count` entries: in order, in runs, so that rounding does not
/// grow with the length of the list.
template <int V>
__device__ __forceinline__ void sumEntries(const Gradients& g, u32 side, const uint4* entries, u32 count, u32 c,
                                           float (&sums)[V]) {
  constexpr u32 RUN = STAGED, BATCH = BATCH_OF_ROWS, REST = 4;
#pragma unroll
  for (int u = 0; u < V; u++) sums[u] = 0;
  for (u32 first = 0; first < count;) {
    const u32 end = min(first + RUN, count);
    float run[V] = {};
    for (; first + BATCH <= end; first += BATCH) addEntries<V, BATCH>(g, side, entries, first, end, c, run);
    for (; first < end; first += REST) addEntries<V, REST>(g, side, entries, first, end, c, run);
    first = end;
#pragma unroll
    for (int u = 0; u < V; u++) sums[u] += run[u];
  }
}

/// The same by a block that meets for every run, whose entries it brings into shared memory first:
/// `stage` [STAGED].
template <int V>
__device__ __forceinline__ void sumStaged(const Gradients& g, u32 side, const uint4* entries, u32 count, u32 c, bool on,
                                          uint4* stage, float (&sums)[V]) {
#pragma unroll
  for (int u = 0; u < V; u++) sums[u] = 0;
  for (u32 first = 0; first < count; first += STAGED) {
    const u32 part = min(STAGED, count - first);
    __syncthreads();
    for (u32 e = threadIdx.x; e < part; e += blockDim.x) stage[e] = entries[first + e];
    __syncthreads();
    float run[V];
    if (on) sumEntries(g, side, stage, part, c, run);
#pragma unroll
    for (int u = 0; u < V; u++) sums[u] += on ? run[u] : 0;
  }
}

/// The list of one gradient row: side and latent, where its entries are, and where they are staged.
struct List {
  u32 side, j, first, last;
  const uint4* staged;
};

/// Columns [c, c + V) of a gradient row: from its list or the pieces of it, and from dense products
/// where the latent is dead; and the pre-activation loss of the dead, a part of column sums.
template <int V>
__device__ __forceinline__ void formColumns(const Gradients& g, const List& list, u32 c, float (&sums)[V]) {
  const u32 count = list.last - list.first, d = widthOf(g, list.side);
  if (count <= STAGED) {
    sumEntries(g, list.side, list.staged, count, c, sums);
  } else if (count <= g.chunk) {
    sumEntries(g, list.side, g.entries + list.first, count, c, sums);
  } else {
    const u64 widest = widestOf(g);
    const float* piece = g.pieceRows + (static_cast<u64>(g.pieceAt[list.j]) * 2 + list.side) * widest + c;
    const u32 pieces = (count + g.chunk - 1) / g.chunk;
    loadFloats(piece, sums);
#pragma unroll 4
    for (u32 p = 1; p < pieces; p++) {
      float part[V];
      loadFloats(piece + p * 2 * widest, part);
#pragma unroll
      for (int u = 0; u < V; u++) sums[u] += part[u];
    }
  }
  if (list.side == ENCODER && isPenalized(g, list.j)) {
#pragma unroll
    for (int u = 0; u < V; u++) sums[u] -= static_cast<float>(g.scales[2] * g.deadColumns[c + u]);
  }
  if (g.deadSlot == nullptr) return;
  const u32 slot = g.deadSlot[list.j];
  if (slot >= g.cap) return;
  const float scale = static_cast<float>(g.scales[1]);
  float dead[V];
  loadFloats((list.side == ENCODER ? g.deadEncoder : g.deadDecoder) + static_cast<u64>(slot) * d + c, dead);
#pragma unroll
  for (int u = 0; u < V; u++) sums[u] = fmaf(scale, dead[u], sums[u]);
}

/// visit(list) for each gradient row of a persistent block, encoder rows first: while a row is at
/// work, its successor's entries come into shared memory, and what ahead(list, stage) asks for with
/// stage 0 or 1. All threads of the block call it; `stages`: STAGE_BYTES of shared memory.
/// `staged`: whether entries are needed. A block's first three rows are fixed; further ones are
/// drawn, as lists are of very different lengths, a row's time before their places in the lists are
/// looked up. No sum depends on who forms a row.
template <class Ahead, class Visit>
__device__ __forceinline__ void eachRow(const Gradients& g, bool staged, uint4* stages, const Ahead& ahead,
                                        const Visit& visit) {
  __shared__ u32 tickets[2];
  const u32 n = g.n, rows = g.to, begin = g.from + blockIdx.x, drawn = begin - blockIdx.x + 3 * gridDim.x;
  const auto listOf = [&](u32 i) -> List {
    if (i >= rows) return {0, 0, 0, 0, nullptr};
    const u32 side = i >= n ? DECODER : ENCODER, j = i - side * n;
    return {side, j, g.start[j], g.start[j + 1], nullptr};
  };
  const auto stage = [&](const List& list, u32 at) {
    const u32 count = list.last - list.first;
    if (staged && count <= STAGED) {
      for (u32 e = threadIdx.x; e < count; e += blockDim.x)
        copyAhead(stages + at * STAGED + e, g.entries + list.first + e);
    }
  };
  List now = listOf(begin), next = listOf(begin + gridDim.x);
  if (begin < rows) {
    stage(now, 0);
    ahead(now, 0u);
  }
  endOfCopies();
  u32 at = 0, turn = 0, row = begin, nextRow = begin + gridDim.x, rowAfter = begin + 2 * gridDim.x;
  u32 ticket = threadIdx.x == 0 ? atomicAdd(g.taken, 1u) : 0;
  while (row < rows) {
    const List after = listOf(rowAfter);
    const u32 following = at + 1 == STAGES ? 0 : at + 1;
    if (nextRow < rows) {
      stage(next, following);
      ahead(next, turn ^ 1);
    }
    endOfCopies();
    if (threadIdx.x == 0) tickets[turn] = ticket;
    waitForCopies<1>();
    __syncthreads();
    row = nextRow;
    nextRow = rowAfter;
    rowAfter = drawn + tickets[turn];
    if (threadIdx.x == 0) ticket = atomicAdd(g.taken, 1u);
    now.staged = stages + at * STAGED;
    visit(now, turn);
    now = next;
    next = after;
    at = following;
    turn ^= 1;
  }
  waitForCopies<0>();
}

// norm: the squared norm of the whole gradient, decoder rows projected, in float64: each row on its
// own, then the rows in order.
//
// Reads what update reads to form rows; keeps them (201 MB at n = 32768, d = 768) so that update
// need not form them again.

#include "gradients.cuh"

/// The squares of one row; `row` [d] in shared memory holds a decoder row's gradient. `unit`: it is
/// projected.
template <int V>
__device__ __forceinline__ double squaresOf(const Gradients& g, const float* decoder, u32 keep, bool unit,
                                            const List& list, float* row, double* room) {
  const u32 d = widthOf(g, list.side);
  const u64 at = static_cast<u64>(list.j) * d;
  float* kept = list.side == ENCODER ? g.formedEncoder : g.formedDecoder;
  double along = 0, squares = 0;
  for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    float sums[V], w[V];
    if (list.side == DECODER) loadFloats(decoder + at + c, w);
    if (keep == FORMED) loadFloats(kept + at + c, sums);
    else formColumns(g, list, c, sums);
    if (keep == FORM_AND_KEEP) storeFloats(kept + at + c, sums);
    if (list.side == ENCODER) {
      squares += dotOf(sums, sums);
    } else {
      storeFloats(row + c, sums);
      along += dotOf(w, sums);
    }
  }
  if (list.side == ENCODER) return blockSum(squares, room);
  along = blockSum(along, room);
  const float factor = unit ? static_cast<float>(along) : 0;
  for (u32 c = threadIdx.x * V; c < d; c += blockDim.x * V) {
    float w[V];
    loadFloats(decoder + at + c, w);
#pragma unroll
    for (int u = 0; u < V; u++) w[u] = row[c + u] - factor * w[u];
    squares += dotOf(w, w);
  }
  return blockSum(squares, room);
}

/// Persistent: grid the blocks that fit at once, block R(d), shared STAGE_BYTES + 4 dOut. ->
/// squares [2][n]: encoder rows, decoder rows.
extern "C" __global__ void norm_rows(PARAMETERS(norm_rows)) {
  extern __shared__ uint4 shared[];
  __shared__ double room[33];
  if (*bad != 0) return;
  float* row = reinterpret_cast<float*>(shared + STAGES * STAGED);
  const bool unit = hyper[UNIT_ROWS] != 0;
  eachRow(g, keep != FORMED, shared, [](const List&, u32) {}, [&](const List& list, u32) {
    const double sum = inQuads(g) ? squaresOf<ROW_WIDTH>(g, decoder, keep, unit, list, row, room)
                                             : squaresOf<1>(g, decoder, keep, unit, list, row, room);
    if (threadIdx.x == 0) squares[list.side * g.n + list.j] = sum;
  });
}

/// Grid 1, block 1024. threshold [n] and skip, squares by blocks, may be null. What other ranks
/// count too, of latents and of preBias, is left to them: `counted` and `counts` are what this one
/// does.
extern "C" __global__ void norm_sum(PARAMETERS(norm_sum)) {
  __shared__ double room[33];
  if (*bad != 0) return;
  double sum = 0;
#pragma unroll 16
  for (u32 j = threadIdx.x; j < 2 * n; j += blockDim.x) sum += has(counted, j < n ? j : j - n) ? squares[j] : 0;
#pragma unroll 16
  for (u32 j = threadIdx.x; j < n; j += blockDim.x)
    sum += has(counted, j) ? static_cast<double>(latentBias[j]) * latentBias[j] : 0;
  if (threshold != nullptr) {
    for (u32 j = threadIdx.x; j < n; j += blockDim.x)
      sum += has(counted, j) ? static_cast<double>(threshold[j]) * threshold[j] : 0;
  }
  if (skip != nullptr && counts != 0 && threadIdx.x < SKIP_BLOCKS) sum += skip[threadIdx.x];
  for (u32 i = threadIdx.x; i < d && counts != 0; i += blockDim.x) sum += static_cast<double>(preBias[i]) * preBias[i];
  sum = blockSum(sum, room);
  if (threadIdx.x > 0) return;
  *sq = sum;
  if (!(sum < __longlong_as_double(0x7ff0000000000000ll))) markBad(bad);
}

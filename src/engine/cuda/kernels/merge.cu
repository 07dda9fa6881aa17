// merge: of each row's codes of this shard, what is among the k highest of all shards. Every
// shard's values are sorted, so a value's place among all of them is its own and how many of each
// other shard come before it; among equals the lower latent does, which is the lower shard's.
//
// Reads shards B slots values (L2); a thread a code.

#include "saetta.cuh"

/// How many of the sorted values are above v, or equal to it where `equal`.
__device__ __forceinline__ u32 countAbove(const float* values, u32 slots, float v, bool equal) {
  u32 low = 0, high = slots;
  while (low < high) {
    const u32 middle = (low + high) / 2;
    if (values[middle] > v || (equal && values[middle] == v)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/// all [shards][B][slots]: the values of all shards, 0 in unused slots. latent, value [B][slots]
/// are this shard's. fired [n], zeroed before, and hyper; null for the dead. Grid ceil(B slots /
/// 256), block 256.
extern "C" __global__ void merge_codes(PARAMETERS(merge_codes)) {
  const u64 at = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x, count = static_cast<u64>(B) * slots;
  if (at >= count) return;
  const u64 row = at / slots;
  const float v = all[shard * count + at];
  bool kept = v > 0;
  const u32 most = hyper == nullptr ? k : min(k, static_cast<u32>(hyper[ROW_K]));
  u32 before = static_cast<u32>(at - row * slots);
  for (u32 s = 0; kept && s < shards; s++) {
    if (s != shard) before += countAbove(all + s * count + row * slots, slots, v, s < shard);
    kept = before < most;
  }
  if (!kept) {
    latent[at] = NONE;
    value[at] = 0;
  } else if (fired != nullptr && v > __double2float_rd(hyper[FIRED_ABOVE])) {
    fired[latent[at]] = 1;
  }
}

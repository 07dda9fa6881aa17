// cut: of the values of a batch, of all ranks, the hyper[KEPT] highest, the rule "batchtopk".
//
// A radix select over the bits of the values, which are ordered as positive floats are: three
// passes of 11, 10 and 10 bits. Each counts, of the values that begin with the bits found so far,
// how many have each of the next bits (cut_count); where there are other ranks the counts are
// summed over them in between. Counts are whole numbers, so no order matters. cut_rows finds, by
// bisection of each sorted row, how many values are above the cut and how many are equal to it;
// cut_apply keeps the first of the equal ones, by replica, row and shard.
//
// Reads B slots values three times (L2: 8 MB at B = 16384, 128 slots).

#include "saetta.cuh"

constexpr u32 CUT_THREADS = 256;
/// What each pass looks at: bits of a value, sign included, above so many others; its bins, and
/// where its counts are.
__device__ __forceinline__ u32 shiftOf(u32 pass) { return pass == 0 ? 20 : pass == 1 ? 10 : 0; }
__device__ __forceinline__ u32 binsOf(u32 pass) { return pass == 0 ? 2048 : 1024; }
__device__ __forceinline__ u32 countsAt(u32 pass) { return pass == 0 ? 0 : pass == 1 ? 2048 : 3072; }
/// Behind the counts: of each pass the bin that the cut is in, and how many of it are kept.
constexpr u32 CUT_FOUND = 4096;

/// Where the cut is in one pass: `need` of the values in `bin` are kept, highest first, of `of`.
struct Found {
  u32 bin, need, of;
};

/// The bin of a pass in which the `need`-th highest value is (all values where there are fewer;
/// need 0: there is none). All threads of a block of CUT_THREADS call it.
__device__ Found findBin(const u32* counts, u32 pass, u32 need) {
  __shared__ u32 room[CUT_THREADS / 32];
  __shared__ Found found;
  const u32 bins = binsOf(pass), each = bins / CUT_THREADS, lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  // Threads take bins from the highest down.
  const u32 first = bins - 1 - threadIdx.x * each;
  u32 own = 0;
  for (u32 i = 0; i < each; i++) own += counts[countsAt(pass) + first - i];
  u32 upTo = own;
#pragma unroll
  for (u32 step = 1; step < 32; step *= 2) {
    const u32 other = __shfl_up_sync(0xffffffffu, upTo, step);
    if (lane >= step) upTo += other;
  }
  __syncthreads();
  if (lane == 31) room[warp] = upTo;
  if (threadIdx.x == 0) found = {0, 0, 0};
  __syncthreads();
  u32 before = upTo - own, total = 0;
  for (u32 w = 0; w < CUT_THREADS / 32; w++) {
    if (w < warp) before += room[w];
    total += room[w];
  }
  need = min(need, total);
  if (before < need && need <= before + own) {
    for (u32 i = 0; i < each; i++) {
      const u32 count = counts[countsAt(pass) + first - i];
      if (need <= before + count) {
        found = {first - i, need - before, count};
        break;
      }
      before += count;
    }
  }
  __syncthreads();
  return found;
}

/// What `passes` passes have found: the first bits of the cut, and how many that begin with them
/// are kept; need 0 where nothing is. The last pass is looked up here, those before are in `found`.
struct Cut {
  u32 bits, need, of;
};

__device__ Cut cutOf(const u32* found, u32 passes, const double* hyper) {
  if (passes == 0) return {0, 0, 0};
  u32 bits = 0, need = static_cast<u32>(fmin(hyper[KEPT], 4294967295.0));
  for (u32 pass = 0; pass + 1 < passes; pass++) {
    bits |= found[CUT_FOUND + 2 * pass] << shiftOf(pass);
    need = found[CUT_FOUND + 2 * pass + 1];
  }
  const Found last = findBin(found, passes - 1, need);
  return {bits | last.bin << shiftOf(passes - 1), last.need, last.of};
}

/// Keeps what the pass before has found for those to come.
__device__ void keepFound(u32* found, u32 passes, const Cut& cut) {
  if (blockIdx.x > 0 || threadIdx.x > 0 || passes == 0) return;
  found[CUT_FOUND + 2 * (passes - 1)] = cut.bits >> shiftOf(passes - 1) & (binsOf(passes - 1) - 1);
  found[CUT_FOUND + 2 * (passes - 1) + 1] = cut.need;
}

/// value [count] -> found: the counts of this pass, 0 before. Grid any, block CUT_THREADS.
extern "C" __global__ void __launch_bounds__(256)
    cut_count(PARAMETERS(cut_count)) {
  __shared__ u32 counts[2048];
  const Cut cut = cutOf(found, pass, hyper);
  keepFound(found, pass, cut);
  if (pass > 0 && cut.need == 0) return;
  const u32 shift = shiftOf(pass), bins = binsOf(pass);
  // Of the bits of a value, those before this pass's: all passes but the first compare them.
  const u32 before = pass == 0 ? 32 : shiftOf(pass - 1);
  for (u32 bin = threadIdx.x; bin < bins; bin += CUT_THREADS) counts[bin] = 0;
  __syncthreads();
  const u32* bits = reinterpret_cast<const u32*>(value);
  const u64 step = static_cast<u64>(gridDim.x) * CUT_THREADS;
#pragma unroll 4
  for (u64 i = static_cast<u64>(blockIdx.x) * CUT_THREADS + threadIdx.x; i < count; i += step) {
    const u32 v = bits[i];
    if (v == 0 || (before < 32 && v >> before != cut.bits >> before)) continue;
    atomicAdd(counts + (v >> shift & (bins - 1)), 1u);
  }
  __syncthreads();
  for (u32 bin = threadIdx.x; bin < bins; bin += CUT_THREADS) {
    if (counts[bin] != 0) atomicAdd(found + countsAt(pass) + bin, counts[bin]);
  }
}

/// How many of the values, highest first, have at least these bits.
__device__ __forceinline__ u32 countFrom(const u32* values, u32 slots, u32 bits) {
  u32 low = 0, high = slots;
  while (low < high) {
    const u32 middle = (low + high) / 2;
    if (values[middle] >= bits) low = middle + 1;
    else high = middle;
  }
  return low;
}

/// value [B][slots], each row sorted -> above, ties [B]: how many values of a row are above the
/// cut, and how many are equal to it. Grid ceil(B / CUT_THREADS), block CUT_THREADS.
extern "C" __global__ void __launch_bounds__(256)
    cut_rows(PARAMETERS(cut_rows)) {
  const Cut cut = cutOf(found, 3, hyper);
  keepFound(found, 3, cut);
  const u32 row = blockIdx.x * CUT_THREADS + threadIdx.x;
  if (row >= B) return;
  const u32* values = reinterpret_cast<const u32*>(value) + static_cast<u64>(row) * slots;
  const u32 more = cut.need == 0 ? 0 : countFrom(values, slots, cut.bits + 1);
  above[row] = more;
  ties[row] = cut.need == 0 ? 0 : countFrom(values, slots, cut.bits) - more;
}

/// -> total [1]: of ties [B]. Grid 1, block 1024.
extern "C" __global__ void cut_total(PARAMETERS(cut_total)) {
  __shared__ u32 room[33];
  u32 sum = 0;
  for (u32 row = threadIdx.x; row < B; row += blockDim.x) sum += ties[row];
  sum = blockSum(sum, room);
  if (threadIdx.x == 0) *total = sum;
}

/// -> latent, value [B][slots]: what is cut away becomes unused; fired [n], zeroed before; FULL
/// where a row is full after the cut and there are more latents; cut [1]. ties [shards][B]: of all
/// shards of this replica; totals: of all ranks, of which `earlier` are in earlier replicas (may be
/// null where there are none). Grid ceil(B / CUT_ROWS), block CUT_THREADS.
extern "C" __global__ void __launch_bounds__(256)
    cut_apply(PARAMETERS(cut_apply)) {
  __shared__ u32 room[33];
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32, first = blockIdx.x * CUT_ROWS;
  // cut_rows has found it; the counts of the last pass are as they were.
  Cut kept = {0, found[CUT_FOUND + 5], 0};
  for (u32 pass = 0; pass < 3; pass++) kept.bits |= found[CUT_FOUND + 2 * pass] << shiftOf(pass);
  kept.of = found[countsAt(2) + (kept.bits & (binsOf(2) - 1))];
  if (blockIdx.x == 0 && threadIdx.x == 0) *cut = kept.need == 0 ? 0 : __uint_as_float(kept.bits);
  const bool all = kept.need == kept.of;
  // Equal values before this block's rows.
  u32 before = 0;
  if (!all) {
    for (u32 rank = threadIdx.x; rank < earlier; rank += CUT_THREADS) before += totals[rank];
    for (u32 s = 0; s < shards; s++) {
      for (u32 row = threadIdx.x; row < first; row += CUT_THREADS) before += ties[static_cast<u64>(s) * B + row];
    }
    before = blockSum(before, room);
  }
  const float firedAbove = __double2float_rd(hyper[FIRED_ABOVE]);
  for (u32 i = warp; i < CUT_ROWS && first + i < B; i += CUT_THREADS / 32) {
    const u32 row = first + i;
    u32 on = above[row];
    const u32 equal = ties[static_cast<u64>(shard) * B + row];
    if (all) {
      on += equal;
    } else {
      u32 mine = 0;
      for (u32 s = 0; s < shards; s++) {
        if (lane < i || (lane == i && s < shard)) mine += ties[static_cast<u64>(s) * B + first + lane];
      }
      mine = before + __reduce_add_sync(0xffffffffu, mine);
      on += kept.need > mine ? min(equal, kept.need - mine) : 0;
    }
    if (on == slots && slots < n && lane == 0) atomicOr(bad, FULL);
    const u64 at = static_cast<u64>(row) * slots;
    for (u32 slot = lane; slot < slots; slot += 32) {
      const u32 j = latent[at + slot];
      if (slot < on) {
        if (value[at + slot] > firedAbove) fired[j] = 1;
      } else if (j != NONE) {
        latent[at + slot] = NONE;
        value[at + slot] = 0;
      } else {
        break;
      }
    }
  }
}

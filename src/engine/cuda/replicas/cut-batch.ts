/** reconcile of "batchtopk": the highest values of a batch, of all ranks (kernels/cut.cu). */

import type { Codes, Step } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { SIZES } from "../contract.ts";
import { ownCodes } from "../memory/codes.ts";
import { at, stepAddresses } from "../memory/tensor.ts";

/** Counts of each pass, by what it looks at: 11, 10 and 10 bits of a value. */
const PASSES = [
  { first: 0, bins: 2048 },
  { first: 2048, bins: 1024 },
  { first: 3072, bins: 1024 },
] as const;
/** All counts, and what the passes have found. */
const FOUND_BYTES = 4 * (4096 + 6);
/** Blocks that count, and the values that each should have at least. */
const BLOCKS = 512;
const VALUES_A_BLOCK = 4096;

/** -> z: the hyper.kept highest of all rows and ranks; t.cut, t.fired, FULL. */
export function cutBatch(cuda: CudaContext, z: Codes, t: Step): void {
  const { device, kernels, scratch, exchange } = cuda;
  const { stream } = device;
  const { collective } = exchange;
  const { shards, shard, replicas, replica, rank, size } = collective.grid;
  const { rows: B, capacity: slots } = z;
  const { latent, value } = ownCodes(z, B).from();
  const { hyper, fired, bad } = stepAddresses(t);
  const [n] = t.fired.shape as [number];
  const found = scratch.get("counts of values", FOUND_BYTES);
  const above = scratch.get("values above the cut", 4 * B);
  const ties = scratch.get("values at the cut", 4 * shards * B);
  const totals = scratch.get("values at the cut of ranks", 4 * size);
  const count = B * slots;
  device.fill(found, 0, FOUND_BYTES);
  device.fill(fired, 0, 4 * n);
  const blocks = Math.min(BLOCKS, Math.ceil(count / VALUES_A_BLOCK));
  PASSES.forEach(({ first, bins }, pass) => {
    kernels.launch("cut_count", { blocks, threads: 256 }, { value, count, hyper, pass, found });
    if (size > 1) collective.allReduce({ at: found + 4 * first, count: bins, dtype: "u32" }, "sum", "all", stream);
  });
  const own = ties + 4 * shard * B;
  const rows = { value, B, slots, hyper, found };
  kernels.launch("cut_rows", { blocks: Math.ceil(B / 256), threads: 256 }, { ...rows, above, ties: own });
  if (replicas > 1) {
    const total = totals + 4 * rank;
    kernels.launch("cut_total", { blocks: 1, threads: 1024 }, { ties: own, B, total });
    const ofAll = { at: totals, count: size, dtype: "u32" } as const;
    collective.allGather({ at: total, count: 1, dtype: "u32" }, ofAll, "all", stream);
  }
  if (shards > 1) {
    const ofAll = { at: ties, count: shards * B, dtype: "u32" } as const;
    collective.allGather({ at: own, count: B, dtype: "u32" }, ofAll, "shards", stream);
  }
  kernels.launch(
    "cut_apply",
    { blocks: Math.ceil(B / SIZES.CUT_ROWS), threads: 256 },
    {
      ...{ latent, ...rows, n, above, ties, shards, shard },
      ...{ totals, earlier: replica * shards, fired, bad, cut: at(t.cut, "f32", 1) },
    },
  );
}

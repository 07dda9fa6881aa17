/** reconcile: the top k of all shards. */

import type { Codes, Step } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { ownCodes } from "../memory/codes.ts";
import { at, stepAddresses } from "../memory/tensor.ts";

/** -> z: of each row the k highest of all shards. `t`: the step whose live codes these are. */
export function merge(cuda: CudaContext, z: Codes, k: number, t: Step | undefined): void {
  const { collective } = cuda.exchange;
  const { shards, shard } = collective.grid;
  const { rows: B, capacity: slots } = z;
  const count = B * slots;
  const { latent, value } = ownCodes(z, B).from();
  const all = cuda.scratch.get("values of all shards", 4 * shards * count);
  collective.allGather(
    { at: value, count, dtype: "f32" },
    { at: all, count: shards * count, dtype: "f32" },
    "shards",
    cuda.device.stream,
  );
  const step = t && stepAddresses(t);
  if (t !== undefined && step !== undefined) cuda.device.fill(at(t.fired, "u32"), 0, 4 * t.fired.shape[0]!);
  const launch = { blocks: Math.ceil(count / 256), threads: 256 };
  cuda.kernels.launch("merge_codes", launch, {
    ...{ all, shards, shard, B, slots, k },
    ...{ latent, value },
    fired: step?.fired ?? 0,
    hyper: step?.hyper ?? 0,
  });
}

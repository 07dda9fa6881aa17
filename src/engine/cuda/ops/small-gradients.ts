/** The gradients of thresholds and of the skip connection. */

import { SaettaError } from "../../../util/errors.ts";
import type { Dims, ParamGradInput } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import type { KernelArguments } from "../contract.ts";
import type { Buffers } from "../driver/buffers.ts";
import type { Address } from "../driver/driver.ts";
import { WHERE } from "../driver/libraries.ts";
import { ownCodes } from "../memory/codes.ts";
import { at, type CudaTensor, stepAddresses } from "../memory/tensor.ts";
import { invert, type ListedBatch, WHOLE } from "./lists.ts";

/**
 * -> the gradient of the thresholds: of the band's codes in the rows of `batch`, and of all lists
 * that count here.
 */
export function thresholdGradient(
  cuda: CudaContext,
  kept: Buffers,
  { p, t, band }: ParamGradInput,
  batch: ListedBatch,
  of: Pick<KernelArguments<"threshold_gradient">, "g" | "counted" | "deadRows" | "gradient">,
): void {
  const { n } = batch;
  if (band === undefined || p.threshold === undefined || p.sparsity === undefined)
    throw new SaettaError("the gradient of thresholds needs a band and the parameters", { where: WHERE });
  const codes = ownCodes(band, batch.B);
  const { hyper, active, bad } = stepAddresses(t);
  const listed = { first: 0, end: n, rest: n };
  const { start, entries } = invert(
    cuda,
    kept,
    t,
    { ...batch, listed, chunk: WHOLE, sparsity: 0, deadAt: 0, isBand: true },
    { ...codes.from(), k: codes.capacity },
    undefined,
  );
  cuda.kernels.launch(
    "threshold_gradient",
    { blocks: Math.ceil(n / 8), threads: 256 },
    {
      ...{ ...of, start, entries, hyper, active, bad },
      ...{ threshold: at(p.threshold, "f32", n), sparsity: at(p.sparsity, "f32", 2) },
    },
  );
}

export interface SkipInput {
  readonly B: number;
  /** x [B,dIn] and err of plane 0 [B,dOut] in the compute type. */
  readonly inputs: Address;
  readonly liveErr: Address;
  /** Its gradient [dOut,dIn]. */
  readonly skip: CudaTensor;
  readonly scales: Address;
  readonly bad: Address;
}

/** -> the gradient of the skip connection: err of plane 0 by x. */
export function skipGradient(
  cuda: CudaContext,
  { dIn, dOut }: Dims,
  { B, inputs, liveErr, skip, scales, bad }: SkipInput,
): void {
  const shape = { m: dOut, n: dIn, k: B, aTransposed: true, out: "f32" } as const;
  cuda.cublas.multiply({ ...shape, a: liveErr, b: inputs, c: skip.address });
  const count = dIn * dOut;
  const blocks = Math.min(1024, Math.ceil(count / 256));
  cuda.kernels.launch("skip_scale", { blocks, threads: 256 }, { skip: skip.address, count, scales, bad });
}

/** The gradients of thresholds and of the skip connection; what few rows need of all. */

import type { Elements } from "../../../collective/collective.ts";
import { SaettaError } from "../../../util/errors.ts";
import type { Dims, ParamGradInput, Step, Tensor } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { type KernelArguments, SIZES } from "../contract.ts";
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
    { ...batch, listed, chunk: WHOLE, sparsity: 0, age: 0, isBand: true },
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

/** f64 [dIn]: column sums of x over all replicas, where the dead have a pre-activation loss. */
export function inputColumns(cuda: CudaContext, kept: Buffers, x: Tensor, t: Step): Address {
  const [B, d] = x.shape as [number, number];
  const { hyper } = stepAddresses(t);
  const { collective } = cuda.exchange;
  const partial = cuda.scratch.get("sums of inputs", 8 * SIZES.COLUMN_PARTS * d);
  const columns = kept.get("columns of inputs", 8 * d);
  const launch = { blocks: [Math.ceil(d / 32), SIZES.COLUMN_PARTS] as const, threads: 256 };
  cuda.kernels.launch("input_columns", launch, { x: at(x, "f32", B, d), hyper, B, d, partial });
  const total = { blocks: Math.ceil(d / 256), threads: 256 };
  cuda.kernels.launch("input_total", total, { partial, hyper, d, columns });
  if (cuda.exchange.sizeOf("replicas") > 1)
    collective.allReduce({ at: columns, count: d, dtype: "f64" }, "sum", "replicas", cuda.device.stream);
  return columns;
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

/** Gradients of the dead are few: each replica has those of its own rows, and all get the sums. */
export function sumOfDead(cuda: CudaContext, all: readonly Elements[]): void {
  const { collective } = cuda.exchange;
  cuda.exchange.asOneLaunch(() => {
    for (const each of all) collective.allReduce(each, "sum", "replicas", cuda.device.stream);
  });
}

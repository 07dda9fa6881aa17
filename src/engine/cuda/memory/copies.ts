/**
 * Tensors in the compute type, which is what products read: copies of f32 tensors, and rows x with
 * preBias subtracted. A copy is made again only when its tensor has changed.
 */

import type { Params, Tensor } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { SIZES } from "../contract.ts";
import type { Address } from "../driver/driver.ts";
import type { Launch } from "../driver/kernels.ts";
import { PerTensor } from "./per-tensor.ts";
import { type CudaTensor, checked } from "./tensor.ts";

interface Copy {
  readonly address: Address;
  readonly size: number;
  /** The content that it was made from; undefined: it has not been made. */
  from: string | undefined;
}

const copies = new PerTensor<Copy>(({ address, size }, device) => device.free(address, size));
/** Of rows x: x - preBias. */
const centred = new PerTensor<Copy>(({ address, size }, device) => device.free(address, size));
/** Of contexts whose operations are being watched: the tensors whose copies they use. */
const used = new WeakMap<CudaContext, Set<CudaTensor>>();

/** Calls `body`, and adds the tensors whose copies its operations use to `into`. */
export function watchCopies(cuda: CudaContext, into: Set<CudaTensor>, body: () => void): void {
  used.set(cuda, into);
  try {
    body();
  } finally {
    used.delete(cuda);
  }
}

/** The address of the tensor, f32 [rows,d] or [d], in the compute type. */
export function copyOf(cuda: CudaContext, t: CudaTensor): Address {
  if (cuda.compute === "f32") return t.address;
  const copy = copies.get(t) ?? copies.add(t, empty(cuda, t, "a copy in the compute type"));
  used.get(cuda)?.add(t);
  if (copy.from !== t.state) {
    convert(cuda, t, copy.address);
    copy.from = t.state;
  }
  return copy.address;
}

/** The same for an operation that writes the copy together with the tensor; `wrote` comes after. */
export function copyToWrite(cuda: CudaContext, t: CudaTensor): Address {
  if (cuda.compute === "f32") return t.address;
  return (copies.get(t) ?? copies.add(t, empty(cuda, t, "a copy in the compute type"))).address;
}

/** An operation wrote the tensor, and its copy too, if there is one. */
export function wroteWithCopy(t: CudaTensor): void {
  t.wrote();
  const copy = copies.get(t);
  if (copy !== undefined) copy.from = t.state;
}

/**
 * The address of x - preBias [B,dIn] in the compute type, or of x where preBias is not subtracted;
 * bad when it is not finite. `reuse`: keep what is there if it was made from this x and preBias.
 */
export function centredRows(cuda: CudaContext, p: Params, x: Tensor, bad: Address, reuse: boolean): Address {
  const [B, d] = x.shape as [number, number];
  const input = checked(x, "f32", B, d);
  const preBias = p.untied ? undefined : checked(p.preBias, "f32", d);
  const rows = centred.get(input) ?? centred.add(input, empty(cuda, input, "centred rows"));
  const from = `${input.state} ${preBias?.state} ${cuda.replays}`;
  if (reuse && rows.from === from) return rows.address;
  const largest = p.untied ? largestInput(cuda) : 0;
  if (largest !== 0) cuda.device.fill(largest, 0, 4);
  cuda.kernels.launch("center", launchOf(B), {
    ...{ x: input.address, preBias: preBias?.address ?? zeros(cuda, d), xc: rows.address, bad, largest },
    ...{ B, d },
  });
  rows.from = from;
  return rows.address;
}

/** f32 [1]: the largest absolute value of the rows x that were last taken as they are. */
export function largestInput(cuda: CudaContext): Address {
  return cuda.scratch.get("largest input", 4);
}

function zeros(cuda: CudaContext, d: number): Address {
  return cuda.scratch.get("zeros", 4 * d);
}

function empty({ device, bytes }: CudaContext, t: CudaTensor, what: string): Copy {
  const size = (t.size / 4) * bytes;
  return { address: device.alloc(size, what), size, from: undefined };
}

function convert(cuda: CudaContext, t: CudaTensor, to: Address): void {
  const d = t.shape[t.shape.length - 1]!;
  const rows = t.size / 4 / d;
  // x - 0. Nobody reads whether it is finite: the next step finds out.
  const bad = cuda.scratch.get("nobody", 16);
  const args = { x: t.address, preBias: zeros(cuda, d), xc: to, bad, largest: 0, B: rows, d };
  cuda.kernels.launch("center", launchOf(rows), args);
}

function launchOf(rows: number): Launch {
  return { blocks: Math.ceil(rows / SIZES.CENTER_ROWS), threads: 256 };
}

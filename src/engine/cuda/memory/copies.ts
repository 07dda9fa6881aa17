/**
 * Tensors in the compute type, which is what products read: copies of f32 tensors, and rows x with
 * preBias subtracted. A copy is made again only when its tensor has changed.
 */

import type { CudaContext } from "../context.ts";
import { SIZES } from "../contract.ts";
import type { Address } from "../driver/driver.ts";
import type { Launch } from "../driver/kernels.ts";
import { PerTensor } from "./per-tensor.ts";
import type { CudaTensor } from "./tensor.ts";

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
 * The address of x - preBias [B,d] in the compute type; bad when it is not finite.
 * `reuse`: keep what is there if it was made from this x and preBias.
 */
export function centredRows(
  cuda: CudaContext,
  x: CudaTensor,
  preBias: CudaTensor,
  bad: Address,
  reuse: boolean,
): Address {
  const rows = centred.get(x) ?? centred.add(x, empty(cuda, x, "centred rows"));
  const from = `${x.state} ${preBias.state} ${cuda.replays}`;
  if (reuse && rows.from === from) return rows.address;
  const [B, d] = x.shape as [number, number];
  cuda.kernels.launch("center", launchOf(B), {
    ...{ x: x.address, preBias: preBias.address, xc: rows.address, bad },
    ...{ B, d },
  });
  rows.from = from;
  return rows.address;
}

function empty({ device, bytes }: CudaContext, t: CudaTensor, what: string): Copy {
  const size = (t.size / 4) * bytes;
  return { address: device.alloc(size, what), size, from: undefined };
}

function convert(cuda: CudaContext, t: CudaTensor, to: Address): void {
  const d = t.shape[t.shape.length - 1]!;
  const rows = t.size / 4 / d;
  // x - 0. Nobody reads whether it is finite: the next step finds out.
  const [zeros, unread] = [cuda.scratch.get("zeros", 4 * d), cuda.scratch.get("nobody", 16)];
  cuda.kernels.launch("center", launchOf(rows), { x: t.address, preBias: zeros, xc: to, bad: unread, B: rows, d });
}

function launchOf(rows: number): Launch {
  return { blocks: Math.ceil(rows / SIZES.CENTER_ROWS), threads: 256 };
}

/**
 * Tensors that rows are gathered from. They are written in a stream of their own, so that writing
 * overlaps the operations; events order the two.
 */

import type { Device } from "../driver/device.ts";
import type { Address } from "../driver/driver.ts";
import { PerTensor } from "./per-tensor.ts";
import type { CudaTensor } from "./tensor.ts";

interface Inflow {
  /** After the last operation that read the tensor. */
  readonly read: number;
  /** After the last write. */
  readonly written: number;
  /** Operations must wait for `written`. */
  isPending: boolean;
  /** u8 [rows]: 1 for a row that is not finite; for `upload`. */
  readonly flags: Address;
  readonly rows: number;
}

const inflows = new PerTensor<Inflow>((inflow, device) => {
  settle(device, inflow);
  for (const event of [inflow.read, inflow.written]) device.driver.attempt("cuEventDestroy_v2", event);
  device.free(inflow.flags, inflow.rows);
});

function inflowOf(device: Device, raw: CudaTensor): Inflow {
  const known = inflows.get(raw);
  if (known !== undefined) return known;
  const rows = raw.shape[0]!;
  const flags = device.alloc(rows, "flags of rows");
  const inflow = { read: device.event(), written: device.event(), isPending: false, flags, rows };
  // The tensor and its flags are cleared in the stream of the operations.
  device.driver.call("marking rows as read", "cuEventRecord", inflow.read, device.stream);
  return inflows.add(raw, inflow);
}

/** Whether an operation has gathered rows from the tensor, or rows were uploaded into it. */
export function hasInflow(t: CudaTensor): boolean {
  return inflows.get(t) !== undefined;
}

/** An operation that gathers rows is about to be queued: it comes after the last write. */
export function waitForRows(device: Device, raw: CudaTensor): void {
  settle(device, inflowOf(device, raw));
}

/** Operations from now on come after the last write of the tensor, if rows are written into it. */
export function settleInflow(device: Device, t: CudaTensor): void {
  settle(device, inflows.get(t));
}

/** An operation that gathers rows was queued. */
export function markRowsAsRead(device: Device, raw: CudaTensor): void {
  device.driver.call("marking rows as read", "cuEventRecord", inflowOf(device, raw).read, device.stream);
}

/**
 * The upload stream waits for the operations that read the tensor. Returns the address of its
 * flags.
 */
export function waitForReaders(device: Device, raw: CudaTensor): Address {
  const { read, flags } = inflowOf(device, raw);
  device.driver.call("waiting for rows to be read", "cuStreamWaitEvent", device.uploads, read, 0);
  return flags;
}

/** A write was queued in the upload stream. */
export function markRowsAsWritten(device: Device, raw: CudaTensor): void {
  const inflow = inflowOf(device, raw);
  device.driver.call("marking rows as written", "cuEventRecord", inflow.written, device.uploads);
  inflow.isPending = true;
}

function settle({ driver, stream }: Device, inflow: Inflow | undefined): void {
  if (!inflow?.isPending) return;
  driver.call("waiting for rows", "cuStreamWaitEvent", stream, inflow.written, 0);
  inflow.isPending = false;
}

/**
 * Rows on their way to the card, which overlaps the operations: copied from pinned memory in a
 * stream of their own, and looked at there for what is not finite. A read of the disk puts them
 * into that memory, so no processor touches them.
 */

import { formatOf } from "../../contract/names.ts";
import { rowsOf } from "../../host-rows.ts";
import type { Device } from "../driver/device.ts";
import type { Address } from "../driver/driver.ts";
import type { Kernels } from "../driver/kernels.ts";
import { Downloads, type Uploads } from "../driver/staging.ts";
import { waitForReaders } from "./inflow.ts";
import type { CudaTensor } from "./tensor.ts";

export class RowUploads {
  readonly #device: Device;
  readonly #kernels: Kernels;
  readonly #uploads: Uploads;
  readonly #downloads: Downloads;
  /** Pinned memory that was given out. */
  readonly #pinned = new Map<ArrayBufferLike, Address>();

  constructor(
    device: Device,
    kernels: Kernels,
    uploads: Uploads,
    fault: Address,
    explain: (fault: Uint32Array) => unknown,
  ) {
    this.#device = device;
    this.#kernels = kernels;
    this.#uploads = uploads;
    this.#downloads = new Downloads(device, fault, explain, Number.POSITIVE_INFINITY, device.uploads);
  }

  /** Resolves when nothing is on its way. */
  get drained(): Promise<void> {
    return this.#downloads.drained;
  }

  memory(bytes: number): Uint8Array<ArrayBuffer> {
    const { address, bytes: memory } = this.#device.pinned(Math.max(1, bytes));
    this.#pinned.set(memory.buffer, address);
    return memory.subarray(0, bytes) as Uint8Array<ArrayBuffer>;
  }

  async send(raw: CudaTensor, bytes: Uint8Array, row: number): Promise<readonly number[]> {
    const { rows, d } = rowsOf(raw, bytes, row);
    if (rows === 0) return [];
    const { driver, uploads: stream } = this.#device;
    const to = raw.address + row * (bytes.length / rows);
    const flags = waitForReaders(this.#device, raw);
    const pinned = this.#pinned.get(bytes.buffer);
    if (pinned === undefined) this.#uploads.send(stream, to, bytes);
    else
      driver.call("copying to the card", "cuMemcpyHtoDAsync_v2", to, pinned + bytes.byteOffset, bytes.length, stream);
    const launch = { blocks: Math.ceil(rows / 8), threads: 256, stream };
    const format = formatOf(raw.dtype);
    this.#kernels.launch("screen_rows", launch, {
      ...{ format, raw: raw.address, first: row, count: rows, d },
      flags,
    });
    const isBad = await this.#downloads.receive(flags + row, rows);
    const found: number[] = [];
    for (let at = isBad.indexOf(1); at >= 0; at = isBad.indexOf(1, at + 1)) found.push(at);
    return found;
  }

  close(): void {
    for (const address of this.#pinned.values()) this.#device.unpin(address);
    this.#downloads.close();
  }
}

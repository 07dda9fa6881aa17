/**
 * What every operation works with: the card, its kernels and products, scratch memory, and the
 * exchange with other ranks. It knows no tensors.
 */

import type { Collective } from "../../collective/collective.ts";
import { type Compute, SIZES } from "./contract.ts";
import { Buffers } from "./driver/buffers.ts";
import { Cublas, WORKSPACE } from "./driver/cublas.ts";
import type { Device } from "./driver/device.ts";
import { Kernels } from "./driver/kernels.ts";
import { Exchange } from "./replicas/exchange.ts";

export class CudaContext {
  readonly device: Device;
  readonly kernels: Kernels;
  readonly cublas: Cublas;
  readonly compute: Compute;
  /** Bytes of an element of the compute type. */
  readonly bytes: number;
  /** Elements of it in 16 bytes: WIDE in kernels/saetta.cuh. */
  readonly wide: number;
  /** What operations need while they run; the next one may overwrite it. */
  readonly scratch: Buffers;
  readonly exchange: Exchange;
  /** Changes when recorded addresses are no longer right. */
  generation = 0;
  /** Recorded steps that have run: they change tensors without changing their versions. */
  replays = 0;

  private constructor(
    device: Device,
    kernels: Kernels,
    cublas: (scratch: Buffers) => Cublas,
    compute: Compute,
    collective: Collective,
  ) {
    this.device = device;
    this.kernels = kernels;
    this.compute = compute;
    this.bytes = compute === "f32" ? 4 : 2;
    this.wide = 16 / this.bytes;
    this.scratch = this.buffers();
    this.cublas = cublas(this.scratch);
    this.exchange = new Exchange(device, collective);
  }

  static async create(
    device: Device,
    cubins: ReadonlyMap<string, Uint8Array>,
    compute: Compute,
    collective: Collective,
  ): Promise<CudaContext> {
    const kernels = new Kernels(device.driver, device.stream, device.multiprocessors, cubins, compute);
    const make = await Cublas.load();
    return new CudaContext(
      device,
      kernels,
      (scratch) => make(compute, device.stream, scratch.get("products", WORKSPACE)),
      compute,
      collective,
    );
  }

  /** Working memory that lives as long as its owner, who frees it. */
  buffers(): Buffers {
    return new Buffers(this.device, () => {
      this.generation++;
    });
  }

  /** T(d) of kernels/saetta.cuh. */
  threads(d: number): number {
    return threadsOf(d, this.wide, SIZES.MOST_THREADS);
  }

  /** Whether a block's threads cover a row at once, 16 bytes each. */
  covers(d: number): boolean {
    return d % this.wide === 0 && d <= SIZES.MOST_THREADS * this.wide;
  }

  /** R(d) of kernels/gradients.cuh. */
  rowThreads(d: number): number {
    return threadsOf(d, SIZES.ROW_WIDTH, SIZES.MOST_ROW_THREADS);
  }

  /** Whether so many threads cover a gradient row at once. */
  coversRow(d: number): boolean {
    return d % SIZES.ROW_WIDTH === 0 && d <= SIZES.MOST_ROW_THREADS * SIZES.ROW_WIDTH;
  }

  close(): void {
    this.exchange.close();
    this.scratch.free();
    this.cublas.close();
    this.kernels.unload();
  }
}

/**
 * Threads of a block, in whole warps, at most `most`: as many as cover all d columns at once, each
 * `width` columns where d is a multiple of it.
 */
function threadsOf(d: number, width: number, most: number): number {
  const groups = d % width === 0 ? d / width : d;
  return Math.min(most, 32 * Math.ceil(groups / 32));
}

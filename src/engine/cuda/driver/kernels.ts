/**
 * Launches the kernels of kernels/*.cu: the one place that puts their arguments where the driver
 * reads them.
 */

import { SaettaError } from "../../../util/errors.ts";
import { type Fields, type Layout, layoutOf } from "../../contract/layout.ts";
import { CONTRACT, type Compute, FILES, type Kernel, type KernelArguments } from "../contract.ts";
import type { Address, Driver } from "./driver.ts";
import { WHERE } from "./libraries.ts";

export interface Launch {
  readonly blocks: number | readonly [number, number];
  readonly threads: number | readonly [number, number];
  /** Bytes of dynamic shared memory. */
  readonly shared?: number;
  /** Default: that of the operations. */
  readonly stream?: number;
}

interface Loaded {
  readonly parameters: Layout;
  readonly handle: number;
  /** Bytes of dynamic shared memory that it may have. */
  shared: number;
}

/** A block has 48 KiB without being asked, of which a kernel takes some for itself. */
const DEFAULT_SHARED = 32 * 1024;
const MAX_DYNAMIC_SHARED = 8;
/** More than any kernel's arguments take. */
const ARGUMENT_BYTES = 1024;

/** The compiled kernels of one compute type, in the current context. */
export class Kernels {
  readonly #driver: Driver;
  readonly #stream: number;
  readonly #modules: number[] = [];
  readonly #loaded = new Map<Kernel, Loaded>();
  readonly #resident = new Map<string, number>();
  readonly #multiprocessors: number;
  /** Each kernel is waited for, to find the one that fails; then nothing can be recorded. */
  readonly synchronous: boolean;
  readonly #data = new DataView(new ArrayBuffer(ARGUMENT_BYTES));
  readonly #size = new BigUint64Array(1);
  /** What cuLaunchKernel's last argument points at: where the arguments are, and how many bytes. */
  readonly #extra: BigUint64Array;
  readonly #extraAt: Address;

  constructor(
    driver: Driver,
    stream: number,
    multiprocessors: number,
    cubins: ReadonlyMap<string, Uint8Array>,
    compute: Compute,
  ) {
    this.#driver = driver;
    this.#stream = stream;
    this.#multiprocessors = multiprocessors;
    this.synchronous = process.env.SAETTA_CUDA_SYNC === "1";
    const [pointer, bytes, end] = [1n, 2n, 0n];
    this.#extra = BigUint64Array.of(
      pointer,
      BigInt(driver.addressOf(this.#data)),
      bytes,
      BigInt(driver.addressOf(this.#size)),
      end,
    );
    this.#extraAt = driver.addressOf(this.#extra);
    for (const [file, cubin] of cubins) {
      const module = driver.get(`loading the kernels of ${file}.cu (${compute})`, "cuModuleLoadData", cubin);
      this.#modules.push(module);
      const kernels: Readonly<Record<string, Fields>> = FILES[file as keyof typeof FILES] ?? {};
      for (const [kernel, fields] of Object.entries(kernels)) {
        const handle = driver.get(`finding the kernel ${kernel}`, "cuModuleGetFunction", module, kernel);
        const parameters = layoutOf(fields, CONTRACT);
        this.#loaded.set(kernel as Kernel, { parameters, handle, shared: DEFAULT_SHARED });
      }
    }
  }

  /** Queues a kernel. Throws CudaError with its name when it cannot be launched. */
  launch<K extends Kernel>(
    kernel: K,
    { blocks, threads, shared = 0, stream = this.#stream }: Launch,
    args: KernelArguments<K>,
  ): void {
    const loaded = this.#of(kernel);
    const { parameters, handle } = loaded;
    const [x, y] = typeof blocks === "number" ? [blocks, 1] : blocks;
    const [width, height] = typeof threads === "number" ? [threads, 1] : threads;
    if (x === 0 || y === 0) return;
    this.#allow(kernel, loaded, shared);
    parameters.put(this.#data, 0, args);
    this.#size[0] = BigInt(parameters.size);
    const driver = this.#driver;
    driver.call(
      `launching the kernel ${kernel}`,
      "cuLaunchKernel",
      handle,
      x,
      y,
      1,
      width,
      height,
      1,
      shared,
      stream,
      0,
      this.#extraAt,
    );
    if (this.synchronous) driver.call(`running the kernel ${kernel}`, "cuStreamSynchronize", stream);
  }

  /** How many blocks the card runs at once. */
  resident(kernel: Kernel, threads: number, shared: number): number {
    const key = `${kernel} ${threads} ${shared}`;
    const known = this.#resident.get(key);
    if (known !== undefined) return known;
    const loaded = this.#of(kernel);
    this.#allow(kernel, loaded, shared);
    const each = this.#driver.get(
      `asking how many blocks of ${kernel} run at once`,
      "cuOccupancyMaxActiveBlocksPerMultiprocessor",
      loaded.handle,
      threads,
      shared,
    );
    const blocks = Math.max(1, each) * this.#multiprocessors;
    this.#resident.set(key, blocks);
    return blocks;
  }

  unload(): void {
    for (const module of this.#modules) this.#driver.attempt("cuModuleUnload", module);
  }

  #of(kernel: Kernel): Loaded {
    const loaded = this.#loaded.get(kernel);
    if (loaded === undefined) throw new SaettaError(`there is no kernel ${kernel}`, { where: WHERE });
    return loaded;
  }

  #allow(kernel: Kernel, loaded: Loaded, shared: number): void {
    if (shared <= loaded.shared) return;
    const doing = `asking for ${shared} bytes of shared memory for the kernel ${kernel}`;
    this.#driver.call(doing, "cuFuncSetAttribute", loaded.handle, MAX_DYNAMIC_SHARED, shared);
    loaded.shared = shared;
  }
}

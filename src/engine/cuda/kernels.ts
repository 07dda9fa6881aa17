/** The kernels of kernels/*.cu as they are launched: what each takes, and the one place that puts arguments where the driver reads them. */

import { SaettaError } from "../../util/errors.ts";
import type { Address, Driver } from "./driver.ts";
import { WHERE } from "./libraries.ts";
import type { Compute } from "./nvrtc.ts";

/**
 * File and parameters of each kernel: p an address, u a number of 32 bits, f one in float64; G, W and S the structures Gradients (20 numbers of 64 bits), Weights
 * (4 addresses) and Share (3 numbers of 32 bits), which are given as so many arguments.
 */
export const KERNELS = {
  center: "center pppp uu",
  dead_count: "dead ppp u",
  dead_list: "dead ppppppp u",
  load_begin: "load pppp uu",
  load_rows: "load upupp uup uf p",
  screen_rows: "load upuuu p",
  select_live: "select ppppp ppp uuuu",
  select_dead: "select ppppp ppp uuu",
  merge_codes: "merge puuuuu pppp",
  decode: "reconstruct pppup uuu",
  residual: "reconstruct pppppp uuuu pp",
  code_grad: "reconstruct pppup uuu p",
  reconstruct: "reconstruct ppppu ppppp uuuu pp",
  residual_sums: "reconstruct puuu pp",
  list_count: "lists pupu uuuuu S p",
  list_prefix: "lists puup",
  list_scan: "lists puuu pp ppppp",
  list_fill: "lists pppu pppu uuuuu S pppp",
  list_long: "lists Gppp",
  list_bias: "lists Gppppppp S",
  list_prebias: "lists puu ppppu",
  gradient_rows: "lists G",
  dense_rows: "dense pppuu pp",
  dense_codes: "dense ppupup",
  dense_pick: "dense puupu ppp",
  dense_bias: "dense puuup",
  dense_check: "dense pppuu pppp",
  norm_rows: "norm Gpupp",
  norm_sum: "norm pppuu pp S u",
  update_begin: "update pppp uup",
  update_rows: "update GuWWWW ppp",
  update_small: "update uuWWWW ppppp",
} as const;

export type Kernel = keyof typeof KERNELS;

const STRUCTURES: Readonly<Record<string, string>> = { G: "p".repeat(20), W: "pppp", S: "uuu" };

/** One letter an argument. */
function parametersOf(kernel: Kernel): string {
  return KERNELS[kernel]
    .split(" ")
    .slice(1)
    .join("")
    .replace(/[GWS]/g, (letter) => STRUCTURES[letter]!);
}

export interface Grid {
  readonly blocks: number | readonly [number, number];
  readonly threads: number | readonly [number, number];
  /** Bytes of dynamic shared memory. */
  readonly shared?: number;
  /** Default: that of the operations. */
  readonly stream?: number;
}

interface Loaded {
  readonly parameters: string;
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
      for (const kernel of Object.keys(KERNELS) as Kernel[]) {
        if (!KERNELS[kernel].startsWith(`${file} `)) continue;
        const handle = driver.get(`finding the kernel ${kernel}`, "cuModuleGetFunction", module, kernel);
        this.#loaded.set(kernel, { parameters: parametersOf(kernel), handle, shared: DEFAULT_SHARED });
      }
    }
  }

  /** Queues a kernel. Throws CudaError naming it when it cannot be launched. */
  launch(kernel: Kernel, { blocks, threads, shared = 0, stream = this.#stream }: Grid, ...args: number[]): void {
    const loaded = this.#of(kernel);
    const { parameters, handle } = loaded;
    if (args.length !== parameters.length) {
      throw new SaettaError(`the kernel ${kernel} takes ${parameters.length} arguments, not ${args.length}`, {
        where: WHERE,
      });
    }
    const [x, y] = typeof blocks === "number" ? [blocks, 1] : blocks;
    const [width, height] = typeof threads === "number" ? [threads, 1] : threads;
    if (x === 0 || y === 0) return;
    this.#allow(kernel, loaded, shared);
    let at = 0;
    for (let i = 0; i < args.length; i++) {
      const value = args[i]!;
      if (parameters[i] === "u") {
        this.#data.setUint32(at, value, true);
        at += 4;
        continue;
      }
      at = Math.ceil(at / 8) * 8;
      if (parameters[i] === "f") this.#data.setFloat64(at, value, true);
      else this.#data.setBigUint64(at, BigInt(value), true);
      at += 8;
    }
    this.#size[0] = BigInt(at);
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

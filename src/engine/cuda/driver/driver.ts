/**
 * The functions of the CUDA driver that the engine uses. Each call is checked: what fails is a
 * CudaError that says what was being done and the driver's name for what went wrong. Handles and
 * device addresses are numbers: they fit 53 bits.
 */

import { SaettaError } from "../../../util/errors.ts";
import { loadLibrary, WHERE } from "./libraries.ts";

export type Address = number;
/**
 * Numbers are addresses, handles or counts; arrays are read or filled by the driver during the
 * call.
 */
export type Argument = number | ArrayBufferView | string;

/** The driver, or a library above it, said no. */
export class CudaError extends SaettaError {
  readonly code: number;

  constructor(code: number, what: string, mend?: string) {
    super(what, mend === undefined ? { where: WHERE } : { where: WHERE, mend });
    this.code = code;
  }
}

/**
 * Parameters of each function: p an address, handle or 64-bit number; u a number of 32 bits; a an
 * array that is read or filled; s text.
 */
const SIGNATURES = {
  cuInit: "u",
  cuDriverGetVersion: "a",
  cuDeviceGetCount: "a",
  cuDeviceGet: "a u",
  cuDeviceGetName: "a u u",
  cuDeviceGetAttribute: "a u u",
  cuDeviceTotalMem_v2: "a u",
  cuDevicePrimaryCtxRetain: "a u",
  cuDevicePrimaryCtxRelease_v2: "u",
  cuCtxSetCurrent: "p",
  cuDeviceGetDefaultMemPool: "a u",
  cuMemPoolSetAttribute: "p u a",
  cuMemPoolTrimTo: "p p",
  cuMemAllocAsync: "a p p",
  cuMemFreeAsync: "p p",
  cuMemsetD8Async: "p u p p",
  cuMemcpyHtoDAsync_v2: "p p p p",
  cuMemcpyDtoHAsync_v2: "p p p p",
  cuMemcpyDtoDAsync_v2: "p p p p",
  cuMemHostAlloc: "a p u",
  cuMemFreeHost: "p",
  cuStreamCreate: "a u",
  cuStreamCreateWithPriority: "a u i",
  cuCtxGetStreamPriorityRange: "a a",
  cuStreamDestroy_v2: "p",
  cuStreamSynchronize: "p",
  cuStreamWaitEvent: "p p u",
  cuEventCreate: "a u",
  cuEventDestroy_v2: "p",
  cuEventRecord: "p p",
  cuEventSynchronize: "p",
  cuEventQuery: "p",
  cuModuleLoadData: "a a",
  cuModuleUnload: "p",
  cuModuleGetFunction: "a p s",
  cuFuncSetAttribute: "p u u",
  cuOccupancyMaxActiveBlocksPerMultiprocessor: "a p u p",
  cuLaunchKernel: "p u u u u u u u p p p",
  cuStreamBeginCapture_v2: "p u",
  cuStreamEndCapture: "p a",
  cuGraphInstantiateWithFlags: "a p p",
  cuGraphDestroy: "p",
  cuGraphExecDestroy: "p",
  cuGraphLaunch: "p p",
} as const;

export type Symbol = keyof typeof SIGNATURES;

const TYPES: Readonly<Record<string, string>> = { p: "uint64_t", u: "uint32_t", i: "int32_t", a: "void *", s: "str" };

const OUT_OF_MEMORY = 2;
const NOT_READY = 600;

/** Numbers of the attributes of a card that are asked for. */
export const DEVICE_ATTRIBUTE = { multiprocessors: 16, major: 75, minor: 76, shared: 97, pools: 115 } as const;

export class Driver {
  readonly #calls: Readonly<Record<string, (...args: Argument[]) => number>>;
  readonly #nameOf: (code: number) => string;
  /** Waits for an event in another thread; the result is the driver's code. */
  readonly #waitInThread: (event: number) => Promise<number>;
  /** An address, in bytes of this process. */
  readonly view: (address: Address, size: number) => Uint8Array;
  readonly addressOf: (array: ArrayBufferView) => Address;

  private constructor(parts: {
    readonly calls: Readonly<Record<string, (...args: Argument[]) => number>>;
    readonly nameOf: (code: number) => string;
    readonly waitInThread: (event: number) => Promise<number>;
    readonly view: (address: Address, size: number) => Uint8Array;
    readonly addressOf: (array: ArrayBufferView) => Address;
  }) {
    this.#calls = parts.calls;
    this.#nameOf = parts.nameOf;
    this.#waitInThread = parts.waitInThread;
    this.view = parts.view;
    this.addressOf = parts.addressOf;
  }

  /** Throws SaettaError where there is no driver, or one that lacks what is needed. */
  static async load(): Promise<Driver> {
    const { default: koffi } = await import("koffi");
    const { library } = loadLibrary("cuda", (path) => koffi.load(path));
    const calls: Record<string, (...args: Argument[]) => number> = {};
    try {
      for (const [name, signature] of Object.entries(SIGNATURES)) {
        const types = signature.split(" ").map((word) => TYPES[word]!);
        calls[name] = library.func(name, "int", types) as (...args: Argument[]) => number;
      }
    } catch (cause) {
      throw tooOld("lacks functions that are needed", cause);
    }
    const wait = library.func("cuEventSynchronize", "int", ["uint64_t"]);
    const errorName = library.func("cuGetErrorName", "int", ["int", "void *"]) as (
      code: number,
      to: BigUint64Array,
    ) => number;
    return new Driver({
      calls,
      nameOf: (code) => {
        const to = new BigUint64Array(1);
        return errorName(code, to) === 0 ? (koffi.decode(to[0], "char", -1) as string) : `error ${code}`;
      },
      waitInThread: (event) =>
        new Promise((resolve, reject) => {
          wait.async(event, (error: unknown, code: number) => (error ? reject(error) : resolve(code)));
        }),
      view: (address, size) => new Uint8Array(koffi.view(address, size)),
      addressOf: (array) => Number(koffi.address(array)),
    });
  }

  /** Calls a function; `doing` says in words what for, should it fail: "allocating 5 bytes". */
  call(doing: string, symbol: Symbol, ...args: Argument[]): void {
    const code = this.#calls[symbol]!(...args);
    if (code !== 0) throw this.error(code, doing);
  }

  /** The same where only whether it works matters. */
  attempt(symbol: Symbol, ...args: Argument[]): boolean {
    return this.#calls[symbol]!(...args) === 0;
  }

  /** Like call; false where the card has no room. */
  fits(doing: string, symbol: Symbol, ...args: Argument[]): boolean {
    const code = this.#calls[symbol]!(...args);
    if (code !== 0 && code !== OUT_OF_MEMORY) throw this.error(code, doing);
    return code === 0;
  }

  /** A number or handle that the function puts where its first argument points. */
  get(doing: string, symbol: Symbol, ...args: Argument[]): number {
    const to = new BigUint64Array(1);
    this.call(doing, symbol, to, ...args);
    return Number(to[0]);
  }

  /** Whether everything before the event is done. */
  passed(doing: string, event: number): boolean {
    const code = this.#calls.cuEventQuery!(event);
    if (code !== 0 && code !== NOT_READY) throw this.error(code, doing);
    return code === 0;
  }

  /** Resolves when everything before the event is done, without holding up this thread. */
  async wait(doing: string, event: number): Promise<void> {
    // Another thread has no context of its own; a driver that wants one there says so at once, and
    // then the event is asked for from here.
    if ((await this.#waitInThread(event)) === 0) return;
    while (!this.passed(doing, event)) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  error(code: number, doing: string): CudaError {
    const name = this.#nameOf(code);
    return code === OUT_OF_MEMORY
      ? new CudaError(code, `${doing} failed: the card has no room (${name})`, "use fewer latents or a smaller batch")
      : new CudaError(
          code,
          `${doing} failed: ${name}`,
          code >= 700 && code < 720 ? "run with SAETTA_CUDA_SYNC=1 to find the kernel" : undefined,
        );
  }
}

/** The oldest CUDA that a driver may speak. */
const OLDEST = 12_000;

export function checkVersion(driver: Driver): void {
  const version = driver.get("asking for the driver's version", "cuDriverGetVersion");
  if (version < OLDEST) throw tooOld(`is for CUDA ${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`);
}

function tooOld(why: string, cause?: unknown): SaettaError {
  return new SaettaError(`the NVIDIA driver ${why}; CUDA 12.0 is needed`, {
    where: WHERE,
    mend: "install driver 525 or later",
    cause,
  });
}

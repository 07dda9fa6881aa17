/**
 * One card: its context, its streams and its memory. Operations run in one stream; rows are brought
 * over, and numbers exchanged with other cards, in the others while they run.
 */

import { formatBytes } from "../../../util/bytes.ts";
import { SaettaError, UsageError } from "../../../util/errors.ts";
import { type Address, CudaError, checkVersion, DEVICE_ATTRIBUTE, Driver } from "./driver.ts";
import { WHERE } from "./libraries.ts";

/**
 * Thrown where memory is asked for while operations are being recorded: the step must run once more
 * before it can be.
 */
export class NotRecordable extends Error {}

/** 8.0, whose bf16 the kernels need. */
const OLDEST_CAPABILITY = 80;
/** CUDA_ERROR_NO_DEVICE. */
const NO_DEVICE = 100;
const NON_BLOCKING = 1;
/** CU_EVENT_BLOCKING_SYNC, CU_EVENT_DISABLE_TIMING. */
const QUIET_EVENT = 3;
const RELEASE_THRESHOLD = 4;

export class Device {
  readonly driver: Driver;
  /** "NVIDIA H200". */
  readonly name: string;
  /** 90 for 9.0. */
  readonly capability: number;
  readonly multiprocessors: number;
  /** Bytes of shared memory that a block may ask for. */
  readonly shared: number;
  /** Bytes of memory of the card. */
  readonly memory: number;
  readonly stream: number;
  /** Of uploads that need not wait for the operations. */
  readonly uploads: number;
  /** Of what goes to other cards while operations run: its work goes first. */
  readonly exchange: number;
  /** Bytes given out and not given back. */
  held = 0;
  /** While operations are recorded, nothing may be allocated. */
  recording = false;
  readonly #index: number;
  readonly #pool: number;

  private constructor(driver: Driver, index: number) {
    this.driver = driver;
    this.#index = index;
    const attribute = (which: number) => {
      const to = new Int32Array(1);
      driver.call("asking for the card's properties", "cuDeviceGetAttribute", to, which, index);
      return to[0]!;
    };
    const name = new Uint8Array(256);
    driver.call("asking for the card's name", "cuDeviceGetName", name, name.length, index);
    this.name = Buffer.from(name).toString("latin1").split("\0")[0]!;
    this.capability = 10 * attribute(DEVICE_ATTRIBUTE.major) + attribute(DEVICE_ATTRIBUTE.minor);
    if (this.capability < OLDEST_CAPABILITY) {
      const version = `${Math.floor(this.capability / 10)}.${this.capability % 10}`;
      throw new SaettaError(`${this.name} has compute capability ${version}; 8.0 (Ampere) or later is needed`, {
        where: WHERE,
        mend: "use --engine cpu",
      });
    }
    this.multiprocessors = attribute(DEVICE_ATTRIBUTE.multiprocessors);
    this.shared = attribute(DEVICE_ATTRIBUTE.shared);
    this.memory = driver.get("asking for the card's memory", "cuDeviceTotalMem_v2", index);
    if (attribute(DEVICE_ATTRIBUTE.pools) === 0) {
      throw new SaettaError(`${this.name} cannot be used: its driver has no memory pools`, {
        where: WHERE,
        mend: "use --engine cpu",
      });
    }
    const context = driver.get("starting on the card", "cuDevicePrimaryCtxRetain", index);
    this.enter(context);
    this.stream = driver.get("making a stream", "cuStreamCreate", NON_BLOCKING);
    this.uploads = driver.get("making a stream", "cuStreamCreate", NON_BLOCKING);
    const [least, greatest] = [new Int32Array(1), new Int32Array(1)];
    driver.call("asking for the priorities of streams", "cuCtxGetStreamPriorityRange", least, greatest);
    this.exchange = driver.get("making a stream", "cuStreamCreateWithPriority", NON_BLOCKING, greatest[0]!);
    this.#pool = driver.get("asking for the card's memory pool", "cuDeviceGetDefaultMemPool", index);
    driver.call(
      "keeping memory that was given back",
      "cuMemPoolSetAttribute",
      this.#pool,
      RELEASE_THRESHOLD,
      BigUint64Array.of(2n ** 64n - 1n),
    );
  }

  /**
   * Starts card `index` of those that CUDA_VISIBLE_DEVICES leaves; default: the one of this
   * process's LOCAL_RANK, or the first.
   */
  static async open(index?: number): Promise<Device> {
    const driver = await Driver.load();
    const noCard = () =>
      new SaettaError("there is no NVIDIA card", {
        where: WHERE,
        mend: "see CUDA_VISIBLE_DEVICES, or use --engine cpu",
      });
    try {
      driver.call("starting the NVIDIA driver", "cuInit", 0);
    } catch (error) {
      throw error instanceof CudaError && error.code === NO_DEVICE ? noCard() : error;
    }
    checkVersion(driver);
    const count = new Int32Array(1);
    driver.call("counting the cards", "cuDeviceGetCount", count);
    if (count[0] === 0) throw noCard();
    const rank = Number(process.env.LOCAL_RANK ?? 0);
    const chosen = index ?? (Number.isInteger(rank) && rank >= 0 ? rank % count[0]! : 0);
    if (!Number.isInteger(chosen) || chosen < 0 || chosen >= count[0]!) {
      throw new UsageError(`there is no card ${chosen}`, {
        where: WHERE,
        mend: `give a whole number below ${count[0]}`,
      });
    }
    const handle = new Int32Array(1);
    driver.call(`finding card ${chosen}`, "cuDeviceGet", handle, chosen);
    return new Device(driver, handle[0]!);
  }

  enter(context: number): void {
    this.driver.call("starting on the card", "cuCtxSetCurrent", context);
  }

  /** Zero-filled bytes, on a multiple of 256. Throws SaettaError when there is no room. */
  alloc(size: number, what: string): Address {
    if (this.recording) throw new NotRecordable(what);
    const bytes = Math.max(16, size);
    const { driver, stream } = this;
    const to = new BigUint64Array(1);
    const possible = Number.isSafeInteger(bytes) && bytes <= this.memory;
    // What was given back may still be in pieces: once more after all is collected.
    const fits = () =>
      possible && driver.fits(`allocating ${bytes} bytes (${what})`, "cuMemAllocAsync", to, bytes, stream);
    if (!fits()) {
      if (possible) {
        driver.call("waiting for the card", "cuStreamSynchronize", stream);
        driver.attempt("cuMemPoolTrimTo", this.#pool, 0);
      }
      if (!fits()) {
        const all = formatBytes(this.memory);
        throw new SaettaError(
          `no room for ${size} bytes (${what}): ${this.held} bytes are in use, ${this.name} has ${all}`,
          {
            where: WHERE,
            mend: "use fewer latents or a smaller batch",
          },
        );
      }
    }
    const address = Number(to[0]);
    driver.call("clearing memory", "cuMemsetD8Async", address, 0, bytes, stream);
    this.held += size;
    return address;
  }

  /** Gives memory back after every operation already called. */
  free(address: Address, size: number): void {
    this.driver.call("giving memory back", "cuMemFreeAsync", address, this.stream);
    this.held -= size;
  }

  fill(address: Address, byte: number, size: number): void {
    if (size > 0) this.driver.call("filling memory", "cuMemsetD8Async", address, byte, size, this.stream);
  }

  copy(to: Address, from: Address, size: number): void {
    if (size > 0) this.driver.call("copying memory", "cuMemcpyDtoDAsync_v2", to, from, size, this.stream);
  }

  event(): number {
    return this.driver.get("making an event", "cuEventCreate", QUIET_EVENT);
  }

  /** Bytes of this machine that the card reads and writes directly. */
  pinned(size: number): { readonly address: Address; readonly bytes: Uint8Array } {
    const address = this.driver.get(`allocating ${size} bytes of pinned memory`, "cuMemHostAlloc", size, 0);
    return { address, bytes: this.driver.view(address, size) };
  }

  unpin(address: Address): void {
    this.driver.call("giving pinned memory back", "cuMemFreeHost", address);
  }

  /** After everything called. Nothing may be used afterwards. */
  close(): void {
    const { driver } = this;
    for (const stream of [this.stream, this.uploads, this.exchange]) {
      driver.attempt("cuStreamSynchronize", stream);
      driver.attempt("cuStreamDestroy_v2", stream);
    }
    driver.attempt("cuMemPoolTrimTo", this.#pool, 0);
    driver.attempt("cuDevicePrimaryCtxRelease_v2", this.#index);
  }
}

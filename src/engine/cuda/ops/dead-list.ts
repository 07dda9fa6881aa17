/**
 * Which latents are dead, and for how many of them the host makes room. A product needs its size
 * when it is queued, long before the card knows how many are dead. So the card counts in each step
 * how many can be dead LAG steps later, and the host reads that count when that step is queued: a
 * lag of fixed length, not "when it arrives", for the size decides in which order numbers are
 * added.
 *
 * Where ages are read or written from outside the forecast starts again, with a wait. Saving
 * a state reads its ages and loading it writes them, so a run that resumes from a checkpoint
 * takes the same sizes as the run that wrote it.
 */

import { SaettaError } from "../../../util/errors.ts";
import type { CudaContext } from "../context.ts";
import { SIZES } from "../contract.ts";
import type { Address } from "../driver/driver.ts";
import { WHERE } from "../driver/libraries.ts";
import type { DeadAddresses } from "../memory/codes.ts";
import { PerTensor } from "../memory/per-tensor.ts";
import type { CudaTensor } from "../memory/tensor.ts";

/** Steps between a forecast and its use; the kernels count the step that is running too. */
const LAG = SIZES.FORECAST_STEPS - 1;
/** More than LAG counts can be on their way. */
const RING = 8;
/** How many are dead now, and how many can be dead LAG steps later. */
const COUNTS = 2;
const FEWEST = 512;

const lists = new PerTensor<DeadList>((list) => list.free());

/** The dead latents by these ages, u32 [n]. */
export function deadListOf(cuda: CudaContext, ages: CudaTensor): DeadList {
  return lists.get(ages) ?? lists.add(ages, new DeadList(cuda, ages.shape[0]!));
}

/** The ages are read or written from outside: the forecast starts again with the next step. */
export function restartForecast(ages: CudaTensor): void {
  lists.get(ages)?.restart();
}

export class DeadList implements DeadAddresses {
  readonly list: Address;
  readonly slot: Address;
  readonly counts: Address;
  readonly #cuda: CudaContext;
  readonly #n: number;
  readonly #parts: Address;
  readonly #memory: Address;
  readonly #size: number;
  readonly #ring: { readonly address: Address; readonly bytes: Uint8Array };
  readonly #events: readonly number[];
  /** Steps since the forecast began; undefined: it must begin. */
  #steps: number | undefined;
  /** Room that was made in each of the last steps. */
  readonly #made = new Array<number>(RING).fill(0);
  #begun = false;

  constructor(cuda: CudaContext, n: number) {
    const { device } = cuda;
    this.#cuda = cuda;
    this.#n = n;
    const rounded = 64 * Math.ceil(n / 64);
    this.#size = 4 * (2 * rounded + 64 + 2 * Math.ceil(n / SIZES.DEAD_BLOCK));
    this.#memory = device.alloc(this.#size, "the list of the dead");
    this.list = this.#memory;
    this.slot = this.list + 4 * rounded;
    this.counts = this.slot + 4 * rounded;
    this.#parts = this.counts + 4 * 64;
    this.#ring = device.pinned(4 * COUNTS * RING);
    this.#events = Array.from({ length: RING }, () => device.event());
  }

  /** Room for this many dead latents is made in the step that has begun; 0: none can be dead. */
  get capacity(): number {
    return this.#made[(this.#steps ?? 0) % RING]!;
  }

  /** The same for the step before. */
  get lastCapacity(): number {
    return this.#made[((this.#steps ?? 1) + RING - 1) % RING]!;
  }

  /** The forecast starts again with the next step. */
  restart(): void {
    this.#steps = undefined;
  }

  /** A step begins, unless that was said already; decides its capacity. */
  begin(ages: Address, hyper: Address): void {
    if (this.#begun) return;
    this.#begun = true;
    if (this.#steps === undefined) {
      this.#steps = 0;
      this.queue(ages, hyper, this.#cuda.scratch.get("sums of nobody", 64));
      this.#send(0);
    }
    const { driver } = this.#cuda.device;
    const source = Math.max(0, this.#steps - LAG) % RING;
    driver.call("waiting for the number of the dead", "cuEventSynchronize", this.#events[source]!);
    const [dead, forecast] = new Uint32Array(
      this.#ring.bytes.slice(4 * COUNTS * source, 4 * COUNTS * (source + 1)).buffer,
    ) as unknown as [number, number];
    if (this.#steps >= LAG && dead > this.#made[source]!) {
      throw new SaettaError(`${dead} latents were dead, where room was made for ${this.#made[source]}`, {
        where: WHERE,
      });
    }
    this.#made[this.#steps % RING] = this.#roomFor(forecast);
  }

  /** Queues the count and the list; sums[DEAD]. */
  queue(ages: Address, hyper: Address, sums: Address): void {
    const { kernels } = this.#cuda;
    const launch = { blocks: Math.ceil(this.#n / SIZES.DEAD_BLOCK), threads: 1024 };
    const of = { age: ages, hyper, parts: this.#parts, n: this.#n };
    kernels.launch("dead_count", launch, of);
    const { list, slot, counts } = this;
    kernels.launch("dead_list", launch, { ...of, sums, list, slot, counts });
  }

  /** The step's count is queued: it is sent on its way, for the step that is LAG later. */
  end(): void {
    this.#send((this.#steps ?? 0) % RING);
    this.#steps = (this.#steps ?? 0) + 1;
    this.#begun = false;
  }

  free(): void {
    const { device } = this.#cuda;
    const { driver } = device;
    // The ring may still be written.
    driver.call("waiting for the card", "cuStreamSynchronize", device.stream);
    for (const event of this.#events) driver.attempt("cuEventDestroy_v2", event);
    device.unpin(this.#ring.address);
    device.free(this.#memory, this.#size);
  }

  #send(to: number): void {
    const { driver, stream } = this.#cuda.device;
    const doing = "copying the number of the dead";
    driver.call(doing, "cuMemcpyDtoHAsync_v2", this.#ring.address + 4 * COUNTS * to, this.counts, 4 * COUNTS, stream);
    driver.call(doing, "cuEventRecord", this.#events[to]!, stream);
  }

  /** Few sizes, so that few graphs are recorded; a multiple of 8, as products like it. */
  #roomFor(count: number): number {
    if (count === 0) return 0;
    let room = FEWEST;
    while (room < count) room *= 2;
    return Math.min(room, 8 * Math.ceil(this.#n / 8));
  }
}

/** What the operations work with: the card, its kernels and products, working memory, and copies of matrices in the type that is computed in. */

import type { Collective } from "../../collective/collective.ts";
import { type Compute, SIZES } from "./contract.ts";
import { Cublas, WORKSPACE } from "./cublas.ts";
import type { Device } from "./device.ts";
import type { Address } from "./driver.ts";
import { type Grid, Kernels } from "./kernels.ts";
import type { CudaTensor, Derived } from "./memory.ts";
import { Ranks } from "./ranks.ts";

/** Working memory by name, which grows as it is asked for. */
export class Room {
  readonly #machine: Machine;
  readonly #pieces = new Map<string, { readonly address: Address; readonly size: number }>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** At least `size` bytes. They hold what was last written there, until more are asked for; new ones are 0. */
  get(name: string, size: number): Address {
    const piece = this.#pieces.get(name);
    if (piece !== undefined && piece.size >= size) return piece.address;
    const { device } = this.#machine;
    if (piece !== undefined && !device.recording) {
      device.free(piece.address, piece.size);
      this.#pieces.delete(name);
      // What was recorded knows the old address.
      this.#machine.generation++;
    }
    const address = device.alloc(size, name);
    this.#pieces.set(name, { address, size });
    return address;
  }

  free(): void {
    for (const { address, size } of this.#pieces.values()) this.#machine.device.free(address, size);
    this.#pieces.clear();
  }
}

export class Machine {
  readonly device: Device;
  readonly kernels: Kernels;
  readonly cublas: Cublas;
  readonly compute: Compute;
  /** Bytes of an element of the compute type. */
  readonly bytes: number;
  /** Elements of it in 16 bytes: WIDE in kernels/saetta.cuh. */
  readonly wide: number;
  readonly room: Room;
  readonly ranks: Ranks;
  /** Changes when recorded addresses are no longer right. */
  generation = 0;
  /** Changes when something recorded ran, which the versions of tensors do not tell. */
  epoch = 0;
  /** Told of each tensor whose copy an operation uses, while a step is recorded. */
  onCopy: ((t: CudaTensor) => void) | undefined;
  /** Whose gradient rows stand in the room "formed". */
  formedBy: object | undefined;

  private constructor(
    device: Device,
    kernels: Kernels,
    cublas: (room: Room) => Cublas,
    compute: Compute,
    collective: Collective,
  ) {
    this.device = device;
    this.kernels = kernels;
    this.compute = compute;
    this.bytes = compute === "f32" ? 4 : 2;
    this.wide = 16 / this.bytes;
    this.room = new Room(this);
    this.cublas = cublas(this.room);
    this.ranks = new Ranks(this, collective);
  }

  static async create(
    device: Device,
    cubins: ReadonlyMap<string, Uint8Array>,
    compute: Compute,
    collective: Collective,
  ): Promise<Machine> {
    const kernels = new Kernels(device.driver, device.stream, device.multiprocessors, cubins, compute);
    const make = await Cublas.load();
    return new Machine(
      device,
      kernels,
      (room) => make(compute, device.stream, room.get("products", WORKSPACE)),
      compute,
      collective,
    );
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

  /** The tensor [rows,d] or [d] in the compute type: itself, or a copy that is made or made anew where the tensor has changed since. */
  copyOf(t: CudaTensor): Address {
    if (this.compute === "f32") return t.address;
    const copy = this.copyRoom(t);
    this.onCopy?.(t);
    if (copy.from !== t.state) {
      this.#convert(t, copy.address);
      copy.from = t.state;
    }
    return copy.address;
  }

  /** The same for an operation that writes it together with the tensor. */
  copyRoom(t: CudaTensor): Derived {
    if (this.compute === "f32") return { address: t.address, size: 0, from: undefined };
    t.copy ??= this.#derived(t, "a copy in the compute type");
    return t.copy;
  }

  /** Tells that an operation wrote the tensor, and its copy too where `both`. */
  wrote(t: CudaTensor, both = false): void {
    t.version++;
    if (both && t.copy !== undefined) t.copy.from = t.state;
  }

  /** x - preBias in the compute type; bad when it is not finite. `fresh`: what stands there already will do, if it is of this x and preBias. */
  centred(x: CudaTensor, preBias: CudaTensor, bad: Address, fresh: boolean): Address {
    x.centred ??= this.#derived(x, "centred rows");
    const from = `${x.state} ${preBias.state} ${this.epoch}`;
    if (fresh && x.centred.from === from) return x.centred.address;
    const [B, d] = x.shape as [number, number];
    this.kernels.launch("center", centerGrid(B), {
      ...{ x: x.address, preBias: preBias.address, xc: x.centred.address, bad },
      ...{ B, d },
    });
    x.centred.from = from;
    return x.centred.address;
  }

  close(): void {
    this.ranks.close();
    this.room.free();
    this.cublas.close();
    this.kernels.unload();
  }

  #derived(t: CudaTensor, what: string): Derived {
    const size = (t.size / 4) * this.bytes;
    return { address: this.device.alloc(size, what), size, from: undefined };
  }

  #convert(t: CudaTensor, to: Address): void {
    const d = t.shape[t.shape.length - 1]!;
    const rows = t.size / 4 / d;
    // x - 0. Nobody asks whether it is finite: the next step will find out.
    const [zeros, nobody] = [this.room.get("zeros", 4 * d), this.room.get("nobody", 16)];
    this.kernels.launch("center", centerGrid(rows), { x: t.address, preBias: zeros, xc: to, bad: nobody, B: rows, d });
  }
}

function centerGrid(rows: number): Grid {
  return { blocks: Math.ceil(rows / SIZES.CENTER_ROWS), threads: 256 };
}

/** In whole warps, as many as take all columns at once, `width` at a time where d is a multiple of it; `most` at most. */
function threadsOf(d: number, width: number, most: number): number {
  const groups = d % width === 0 ? d / width : d;
  return Math.min(most, 32 * Math.ceil(groups / 32));
}

/** Working memory on the card, by name. */

import type { Device } from "./device.ts";
import type { Address } from "./driver.ts";

interface Buffer {
  readonly address: Address;
  readonly size: number;
}

/** Buffers that grow as more is asked of them. */
export class Buffers {
  readonly #device: Device;
  readonly #moved: () => void;
  readonly #buffers = new Map<string, Buffer>();

  /** `moved` is called when a buffer gets another address: what was recorded uses the old one. */
  constructor(device: Device, moved: () => void) {
    this.#device = device;
    this.#moved = moved;
  }

  /**
   * The address of at least `size` bytes. They hold what was last written there under this name;
   * new bytes are 0. Throws NotRecordable where memory is needed while a step is recorded.
   */
  get(name: string, size: number): Address {
    const buffer = this.#buffers.get(name);
    if (buffer !== undefined && buffer.size >= size) return buffer.address;
    const device = this.#device;
    if (buffer !== undefined && !device.recording) {
      device.free(buffer.address, buffer.size);
      this.#buffers.delete(name);
      this.#moved();
    }
    const address = device.alloc(size, name);
    this.#buffers.set(name, { address, size });
    return address;
  }

  free(): void {
    for (const { address, size } of this.#buffers.values()) this.#device.free(address, size);
    this.#buffers.clear();
  }
}

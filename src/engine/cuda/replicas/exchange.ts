/** How this card reaches the cards of other ranks, and how an exchange overlaps the operations. */

import { type Collective, groupOf, type Over } from "../../../collective/collective.ts";
import type { Device } from "../driver/device.ts";
import type { Address } from "../driver/driver.ts";

export class Exchange {
  readonly collective: Collective;
  readonly #device: Device;
  /** By the exchange's name: the events before it and after it. */
  readonly #events = new Map<string, readonly [before: number, after: number]>();

  constructor(device: Device, collective: Collective) {
    this.#device = device;
    this.collective = collective;
  }

  /** Ranks of the group that this one belongs to. */
  sizeOf(over: Over): number {
    return groupOf(this.collective.grid, over).size;
  }

  /** Calls `body`, which calls operations of the collective, so that they become one launch. */
  asOneLaunch(body: () => void): void {
    if (this.collective.together === undefined) body();
    else this.collective.together(body);
  }

  /**
   * Runs `body` on the exchange stream, after the operations already queued, so that it overlaps
   * later ones. Returns a function that makes the operations from then on wait for it.
   * `name`, for errors, must differ from that of every other exchange under way.
   */
  overlap(name: string, body: (stream: Address) => void): () => void {
    const { driver, stream, exchange } = this.#device;
    const events = this.#events.get(name) ?? [this.#device.event(), this.#device.event()];
    this.#events.set(name, events);
    const [before, after] = events;
    driver.call(`marking what comes before ${name}`, "cuEventRecord", before, stream);
    driver.call(`waiting to begin ${name}`, "cuStreamWaitEvent", exchange, before, 0);
    body(exchange);
    driver.call(`marking the end of ${name}`, "cuEventRecord", after, exchange);
    return () => driver.call(`waiting for ${name}`, "cuStreamWaitEvent", stream, after, 0);
  }

  close(): void {
    for (const event of [...this.#events.values()].flat()) this.#device.driver.attempt("cuEventDestroy_v2", event);
    this.#events.clear();
  }
}

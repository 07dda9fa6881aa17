/**
 * Bytes on their way between JavaScript and the card, through pinned memory: only from and to there
 * does a copy run beside everything else.
 */

import { SaettaError } from "../../../util/errors.ts";
import type { Device } from "./device.ts";
import type { Address } from "./driver.ts";
import { WHERE } from "./libraries.ts";

const RING = 64 * 1024 * 1024;
/**
 * A write is cut in pieces of this size, so that one is copied over while the next is put together.
 */
const PIECE = 8 * 1024 * 1024;
const ALIGNMENT = 256;

interface Segment {
  readonly start: number;
  readonly event: number;
}

/** A ring of pinned memory that writes go through. */
export class Uploads {
  readonly #device: Device;
  readonly #ring: { readonly address: Address; readonly bytes: Uint8Array };
  readonly #inFlight: Segment[] = [];
  readonly #events: number[] = [];
  #head = 0;

  constructor(device: Device) {
    this.#device = device;
    this.#ring = device.pinned(RING);
  }

  /**
   * Copies `bytes` to the card in the order of `stream`. They may be changed as soon as it returns.
   */
  send(stream: number, to: Address, bytes: Uint8Array): void {
    const { driver } = this.#device;
    for (let at = 0; at < bytes.length; at += PIECE) {
      const piece = bytes.subarray(at, Math.min(bytes.length, at + PIECE));
      const start = this.#reserve(piece.length);
      this.#ring.bytes.set(piece, start);
      driver.call(
        "copying to the card",
        "cuMemcpyHtoDAsync_v2",
        to + at,
        this.#ring.address + start,
        piece.length,
        stream,
      );
      const event = this.#events.pop() ?? this.#device.event();
      driver.call("copying to the card", "cuEventRecord", event, stream);
      this.#inFlight.push({ start, event });
    }
  }

  close(): void {
    for (const event of [...this.#events, ...this.#inFlight.map((segment) => segment.event)]) {
      this.#device.driver.attempt("cuEventDestroy_v2", event);
    }
    this.#device.unpin(this.#ring.address);
  }

  /** Where in the ring `size` bytes can be put: waits for the oldest writes where it is full. */
  #reserve(size: number): number {
    for (;;) {
      const oldest = this.#inFlight[0];
      if (oldest === undefined) this.#head = 0;
      // In use are the bytes from the oldest on, round the end, to the head.
      const wraps = oldest !== undefined && this.#head <= oldest.start;
      const room = (wraps ? oldest.start : RING) - this.#head;
      if (size < room || (oldest === undefined && size <= room)) {
        const start = this.#head;
        this.#head = Math.min(RING, Math.ceil((start + size) / ALIGNMENT) * ALIGNMENT);
        return start;
      }
      if (!wraps && oldest !== undefined && size < oldest.start) this.#head = 0;
      else this.#collect();
    }
  }

  #collect(): void {
    const oldest = this.#inFlight.shift();
    if (oldest === undefined) return;
    this.#device.driver.call("waiting for a copy to the card", "cuEventSynchronize", oldest.event);
    this.#events.push(oldest.event);
  }
}

interface Pending {
  readonly buffer: Buffer;
  readonly size: number;
  readonly event: number;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

interface Buffer {
  readonly address: Address;
  readonly bytes: Uint8Array;
}

/** Sizes of pinned buffers are powers of two from here; those up to KEPT are used again. */
const SMALLEST = 64 * 1024;
const KEPT = 16 * 1024 * 1024;
/**
 * Two numbers of 32 bits that follow what was asked for: whether an operation found fault with its
 * input, and a detail.
 */
const FAULT_BYTES = 8;

/** What is read from the card, in the order of the calls. */
export class Downloads {
  readonly #device: Device;
  /** Called with the fault numbers; says what went wrong, "" when nothing did. */
  readonly #explain: (fault: Uint32Array) => unknown;
  readonly #fault: Address;
  readonly #stream: number;
  readonly #deadline: number;
  readonly #free = new Map<number, Buffer[]>();
  readonly #events: number[] = [];
  readonly #pending: Pending[] = [];
  /** Resolves when no read is under way; never rejects. */
  drained: Promise<void> = Promise.resolve();

  /**
   * `fault`: FAULT_BYTES on the card, read with everything. `explain`: the error that they or
   * something else mean, undefined when all is well. `deadline`: seconds that a read may take.
   */
  constructor(
    device: Device,
    fault: Address,
    explain: (fault: Uint32Array) => unknown,
    deadline: number,
    stream = device.stream,
  ) {
    this.#device = device;
    this.#fault = fault;
    this.#explain = explain;
    this.#stream = stream;
    this.#deadline = deadline;
  }

  /** A copy as of this call. */
  receive(from: Address, size: number): Promise<Uint8Array> {
    const [{ driver }, stream] = [this.#device, this.#stream];
    const buffer = this.#take(size + FAULT_BYTES);
    if (size > 0)
      driver.call("copying from the card", "cuMemcpyDtoHAsync_v2", buffer.address + FAULT_BYTES, from, size, stream);
    driver.call("copying from the card", "cuMemcpyDtoHAsync_v2", buffer.address, this.#fault, FAULT_BYTES, stream);
    const event = this.#events.pop() ?? this.#device.event();
    driver.call("copying from the card", "cuEventRecord", event, stream);
    return new Promise((resolve, reject) => {
      this.#pending.push({ buffer, size, event, resolve, reject });
      if (this.#pending.length === 1) this.drained = this.#drain();
    });
  }

  close(): void {
    for (const event of this.#events) this.#device.driver.attempt("cuEventDestroy_v2", event);
    for (const buffers of this.#free.values()) for (const { address } of buffers) this.#device.unpin(address);
  }

  /** Cards wait for each other without end: where another does not come, somebody must say so. */
  async #within(wait: Promise<void>): Promise<void> {
    if (!Number.isFinite(this.#deadline)) return wait;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const message = `the card has waited ${this.#deadline} s for the cards of the other ranks; SAETTA_DEADLINE sets the seconds`;
      timer = setTimeout(() => reject(new SaettaError(message, { where: WHERE })), 1000 * this.#deadline);
    });
    return Promise.race([wait, late]).finally(() => clearTimeout(timer));
  }

  /**
   * Answers the reads, one wait at a time: each blocks a thread of libuv's pool, which others need
   * too.
   */
  async #drain(): Promise<void> {
    const { driver } = this.#device;
    for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
      const { buffer, size, event, resolve, reject } = next;
      try {
        if (!driver.passed("waiting for the card", event))
          await this.#within(driver.wait("waiting for the card", event));
        const error = this.#explain(new Uint32Array(buffer.bytes.slice(0, FAULT_BYTES).buffer));
        if (error === undefined) resolve(buffer.bytes.slice(FAULT_BYTES, FAULT_BYTES + size));
        else reject(error);
        this.#events.push(event);
        this.#give(buffer);
      } catch (error) {
        reject(error);
      }
      this.#pending.shift();
    }
  }

  #take(size: number): Buffer {
    const rounded = sizeClass(size);
    return this.#free.get(rounded)?.pop() ?? this.#device.pinned(rounded);
  }

  #give(buffer: Buffer): void {
    const size = buffer.bytes.length;
    if (size > KEPT) this.#device.unpin(buffer.address);
    else this.#free.set(size, [...(this.#free.get(size) ?? []), buffer]);
  }
}

function sizeClass(size: number): number {
  let rounded = SMALLEST;
  while (rounded < size) rounded *= 2;
  return rounded;
}

/** Bytes of a pipe or socket, read by the system into the memory where they are wanted. */

import { connect, Socket } from "node:net";

/** Reads bytes in their order. */
export interface ByteReader {
  /** Fills `into`; resolves with fewer bytes where the stream ends before. One read at a time. */
  read(into: Uint8Array): Promise<number>;
  close(): Promise<void>;
}

/** What comes first after a pause is read in here. */
const SPARE_BYTES = 65_536;

export class SocketBytes implements ByteReader {
  readonly #socket: Socket;
  readonly #spare = new Uint8Array(SPARE_BYTES);
  /** Bytes of `#spare` that nobody has read yet. */
  #left: Uint8Array = this.#spare.subarray(0, 0);
  #wanted: { readonly into: Uint8Array; have: number } | undefined;
  #ended = false;
  #error: unknown;
  #wake: () => void = () => undefined;

  private constructor(open: (onread: object) => Socket) {
    this.#socket = open({
      buffer: () => this.#memory(),
      callback: (count: number, buffer: Uint8Array) => this.#came(count, buffer),
    });
    const over = () => {
      this.#ended = true;
      this.#wake();
    };
    this.#socket.on("end", over);
    this.#socket.on("close", over);
    this.#socket.on("error", (error) => {
      this.#error ??= error;
      over();
    });
  }

  /** An open pipe or socket. */
  static of(fd: number): SocketBytes {
    // Node's types do not have `onread` here.
    return new SocketBytes((onread) => new Socket({ fd, readable: true, writable: false, onread } as object));
  }

  /** Connects to a Unix socket. */
  static async connect(path: string): Promise<SocketBytes> {
    const bytes = new SocketBytes((onread) => connect({ path, onread } as { path: string }));
    await new Promise<void>((resolve, reject) => {
      bytes.#socket.once("connect", resolve);
      bytes.#socket.once("error", reject);
    });
    return bytes;
  }

  async read(into: Uint8Array): Promise<number> {
    const first = this.#left.subarray(0, into.length);
    into.set(first);
    this.#left = this.#left.subarray(first.length);
    if (first.length === into.length) return into.length;
    const wanted = { into, have: first.length };
    this.#wanted = wanted;
    while (wanted.have < into.length && !this.#ended) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#socket.resume();
      await woken;
    }
    this.#wanted = undefined;
    if (wanted.have < into.length && this.#error !== undefined) throw this.#error;
    return wanted.have;
  }

  async close(): Promise<void> {
    this.#socket.destroy();
  }

  /** Where the system puts what comes next. */
  #memory(): Uint8Array {
    const wanted = this.#wanted;
    return wanted === undefined || wanted.have === wanted.into.length ? this.#spare : wanted.into.subarray(wanted.have);
  }

  /** Takes `count` bytes; false where no more are wanted for now. */
  #came(count: number, buffer: Uint8Array): boolean {
    const wanted = this.#wanted;
    if (buffer.buffer !== this.#spare.buffer) wanted!.have += count;
    else {
      const come = this.#spare.subarray(0, count);
      const taken = wanted === undefined ? 0 : Math.min(count, wanted.into.length - wanted.have);
      wanted?.into.set(come.subarray(0, taken), wanted.have);
      if (wanted !== undefined) wanted.have += taken;
      this.#left = come.subarray(taken);
    }
    if (wanted !== undefined && wanted.have < wanted.into.length) return true;
    this.#wake();
    return false;
  }
}

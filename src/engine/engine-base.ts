/**
 * What engines with held memory do alike: what they hold and give back, what they check, when they
 * close.
 */

import { BYTES } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import type { Codes, DType, Grads, Tensor } from "./engine.ts";
import { Fusion } from "./fuse.ts";
import { type Checks, HeldCodes, HeldGrads, type HeldTensor } from "./held-memory.ts";

export abstract class EngineBase<T extends HeldTensor, C extends HeldCodes<T>, G extends HeldGrads<T>> {
  abstract readonly name: string;
  readonly real = "f32";
  readonly numbers = "f64";
  protected readonly fusion = new Fusion();
  /** Everything not given back yet. */
  readonly #held = new Set<T | G>();
  readonly #checks: Pick<Checks<T>, "isOwn" | "ownTensor">;
  #closed: Promise<void> | undefined;

  constructor(checks: Pick<Checks<T>, "isOwn" | "ownTensor">) {
    this.#checks = checks;
  }

  /** Zero-filled memory for a tensor of `size` bytes. */
  protected abstract allocate(dtype: DType, shape: readonly number[], size: number): T;
  protected abstract allocateCodes(rows: number, capacity: number): C;
  /** Queues a fill of the whole tensor. */
  protected abstract fill(t: T, byte: number): void;
  /** Queues a write; the bytes fit. They are copied before it returns. */
  protected abstract queueWrite(t: T, bytes: Uint8Array, at: number): void;
  /** Gives the memory back, after every operation already queued. Called once for each. */
  protected abstract release(it: T | G): void;
  /** Queues what was held back. */
  protected abstract flush(): void;
  /** Ends what is under way and gives everything back. Called once. */
  protected abstract shutDown(): Promise<void>;

  alloc(dtype: DType, shape: readonly number[]): T {
    this.checkOpen();
    const size = shape.reduce((a, b) => a * b, BYTES[dtype]);
    return this.hold(this.allocate(dtype, shape, size));
  }

  /** All slots unused: their latents are NONE. */
  codes(rows: number, capacity: number): Codes {
    const codes = this.allocateCodes(rows, capacity);
    this.fill(codes.tensors.latent, 0xff);
    return codes;
  }

  free(it: Tensor | Codes | Grads): void {
    this.checkOpen();
    this.flush();
    const { isOwn, ownTensor } = this.#checks;
    if (it instanceof HeldCodes && isOwn(it.tensors.latent)) {
      for (const tensor of Object.values(it.tensors) as T[]) this.#free(tensor);
    } else if (it instanceof HeldGrads && isOwn(it.preBias)) {
      for (const tensor of it.tensors as T[]) this.#free(tensor);
      this.#free(it as G);
    } else {
      this.#free(ownTensor(it));
    }
  }

  write(t: Tensor, bytes: Uint8Array, at = 0): void {
    this.checkOpen();
    const tensor = this.#checks.ownTensor(t);
    const { size } = tensor;
    if (!Number.isInteger(at) || at < 0 || at + bytes.length > size) {
      throw new SaettaError(`${bytes.length} bytes at ${at} do not fit a tensor of ${size} bytes`, {
        where: `${this.name} engine`,
      });
    }
    this.queueWrite(tensor, bytes, at);
  }

  /**
   * After everything already called. Reads under way are answered first; all memory is given back.
   */
  close(): Promise<void> {
    this.#closed ??= this.shutDown();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** From now on it is given back when the engine closes, unless it was freed before. */
  protected hold<H extends T | G>(it: H): H {
    this.#held.add(it);
    return it;
  }

  protected freeAll(): void {
    for (const it of this.#held) this.#free(it);
  }

  protected checkOpen(): void {
    if (this.#closed !== undefined)
      throw new SaettaError("the engine was used after it was closed", { where: `${this.name} engine` });
  }

  #free(it: T | G): void {
    if (it.freed) return;
    it.freed = true;
    this.#held.delete(it);
    this.release(it);
  }
}

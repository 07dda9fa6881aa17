/** Tensors on the card, and how operations get at their addresses. */

import { SaettaError } from "../../../util/errors.ts";
import type { DType, Params, Step, Tensor } from "../../engine.ts";
import type { StructOf } from "../contract.ts";
import type { Device } from "../driver/device.ts";
import type { Address } from "../driver/driver.ts";
import { WHERE } from "../driver/libraries.ts";

let lastNumber = 0;

export class CudaTensor implements Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly size: number;
  readonly address: Address;
  /** No other tensor of this process has it. */
  readonly number = ++lastNumber;
  #freed = false;
  /** Changes whenever the content does. */
  #version = 0;
  readonly #beforeFree: ((device: Device) => void)[] = [];

  constructor(dtype: DType, shape: readonly number[], size: number, address: Address) {
    this.dtype = dtype;
    this.shape = [...shape];
    this.size = size;
    this.address = address;
  }

  get freed(): boolean {
    return this.#freed;
  }

  /** Tells this content from every other. */
  get state(): string {
    return `${this.number}.${this.#version}`;
  }

  /** The content has changed, or will by what is queued. */
  wrote(): void {
    this.#version++;
  }

  /** Calls `release` when the tensor is freed, before its memory is given back. */
  beforeFree(release: (device: Device) => void): void {
    this.#beforeFree.push(release);
  }

  /** Gives the memory back, after every operation already queued. Nothing if that was done. */
  free(device: Device): void {
    if (this.#freed) return;
    this.#freed = true;
    for (const release of this.#beforeFree) release(device);
    device.free(this.address, this.size);
  }
}

/** The tensor, checked to be what the operation will take it for. No shape: any. */
export function checked(t: Tensor, dtype: DType, ...shape: number[]): CudaTensor {
  const own = ownTensor(t);
  const fits =
    shape.length === 0 || (own.shape.length === shape.length && shape.every((size, i) => size === own.shape[i]));
  if (own.dtype !== dtype || !fits) {
    throw new SaettaError(`a tensor ${own.dtype} [${own.shape}] where ${dtype} [${shape}] is needed`, { where: WHERE });
  }
  return own;
}

/** Its address, likewise. */
export function at(t: Tensor, dtype: DType, ...shape: number[]): Address {
  return checked(t, dtype, ...shape).address;
}

export function paramAddresses(p: Params, n: number, d: number): StructOf<"Weights"> {
  return {
    encoder: at(p.encoder, "f32", n, d),
    latentBias: at(p.latentBias, "f32", n),
    decoder: at(p.decoder, "f32", n, d),
    preBias: at(p.preBias, "f32", d),
  };
}

/** What stands for parameters that are left out. */
export const NO_PARAMS: StructOf<"Weights"> = { encoder: 0, latentBias: 0, decoder: 0, preBias: 0 };

export interface StepAddresses {
  readonly hyper: Address;
  readonly sums: Address;
  readonly fired: Address;
  readonly bad: Address;
  readonly sq: Address;
}

export function stepAddresses(t: Step): StepAddresses {
  return {
    hyper: at(t.hyper, "f64"),
    sums: at(t.sums, "f64"),
    fired: at(t.fired, "u32"),
    bad: at(t.bad, "u32"),
    sq: at(t.sq, "f64"),
  };
}

export function ownTensor(t: object): CudaTensor {
  if (!(t instanceof CudaTensor)) throw new SaettaError("a tensor of another engine was given to the cuda engine");
  if (t.freed) throw new SaettaError("a tensor was used after it was freed", { where: WHERE });
  return t;
}

export function addressOf(t: CudaTensor): Address {
  return ownTensor(t).address;
}

/** Tensors on the card, and how operations get at their addresses. */

import { checksOf, HeldTensor } from "../../held-memory.ts";
import type { Device } from "../driver/device.ts";
import type { Address } from "../driver/driver.ts";

let lastNumber = 0;

export class CudaTensor extends HeldTensor {
  /** No other tensor of this process has it. */
  readonly #number = ++lastNumber;
  /** Changes whenever the content does. */
  #version = 0;
  readonly #beforeRelease: ((device: Device) => void)[] = [];

  /** Tells this content from every other. */
  get state(): string {
    return `${this.#number}.${this.#version}`;
  }

  /** The content has changed, or will by what is queued. */
  wrote(): void {
    this.#version++;
  }

  /** Calls `release` when the tensor is freed, before its memory is given back. */
  beforeRelease(release: (device: Device) => void): void {
    this.#beforeRelease.push(release);
  }

  /** Gives the memory back, after every operation already queued. */
  release(device: Device): void {
    for (const release of this.#beforeRelease) release(device);
    device.free(this.address, this.size);
  }
}

export const CHECKS = checksOf("cuda", (t): t is CudaTensor => t instanceof CudaTensor);
export const { ownTensor, checked, at, paramAddresses, stepAddresses, checkStep } = CHECKS;

/** The address of a tensor that is not freed. */
export function addressOf(t: CudaTensor): Address {
  return ownTensor(t).address;
}

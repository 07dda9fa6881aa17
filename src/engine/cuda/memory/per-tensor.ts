/** What a module keeps for tensors. */

import type { Device } from "../driver/device.ts";
import type { CudaTensor } from "./tensor.ts";

/** A value per tensor, which is released when the tensor is freed. */
export class PerTensor<V> {
  readonly #values = new WeakMap<CudaTensor, V>();
  readonly #release: (value: V, device: Device) => void;

  constructor(release: (value: V, device: Device) => void) {
    this.#release = release;
  }

  get(t: CudaTensor): V | undefined {
    return this.#values.get(t);
  }

  /** Precondition: the tensor has no value yet. Returns the value. */
  add(t: CudaTensor, value: V): V {
    this.#values.set(t, value);
    t.beforeRelease((device) => this.#release(value, device));
    return value;
  }
}

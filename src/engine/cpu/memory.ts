/** Tensors, codes and gradients of the cpu engine, and how operations get at their addresses. */

import { SaettaError } from "../../util/errors.ts";
import type { Codes, Grads } from "../engine.ts";
import { checksOf, type GradTensors, HeldCodes, HeldGrads, HeldTensor } from "../held-memory.ts";
import type { StructOf } from "./contract.ts";
import type { Address } from "./native.ts";

export const WHERE = "cpu engine";

export class CpuTensor extends HeldTensor {}

export class CpuCodes extends HeldCodes<CpuTensor> {
  /** As the kernels take them. */
  addresses(rows: number): StructOf<"Codes"> {
    if (this.rows !== rows)
      throw new SaettaError(`codes of ${this.rows} rows where ${rows} are needed`, { where: WHERE });
    const { latent, value, grad } = this.tensors;
    return { latent: at(latent, "u32"), value: at(value, "f32"), grad: at(grad, "f32"), k: this.capacity };
  }
}

export class CpuGrads extends HeldGrads<CpuTensor> {
  /** Bytes of the lists that the kernels keep. */
  readonly size: number;
  /** Where they are. */
  readonly address: Address;

  constructor(tensors: GradTensors<CpuTensor>, size: number, rows: number, address: Address) {
    super(tensors, rows);
    this.size = size;
    this.address = address;
  }

  /** The lists, for an operation. Throws SaettaError when they were freed. */
  get handle(): Address {
    if (this.freed) throw new SaettaError("gradients were used after they were freed", { where: WHERE });
    return this.address;
  }
}

export const CHECKS = checksOf("cpu", (t): t is CpuTensor => t instanceof CpuTensor);
export const { ownTensor, at, paramAddresses, stepAddresses, checkStep } = CHECKS;

/** Where codes and steps would be that are left out. */
export const NO_CODES: StructOf<"Codes"> = { latent: 0, value: 0, grad: 0, k: 0 };
export const NO_STEP: StructOf<"Step"> = { hyper: 0, sums: 0, fired: 0, bad: 0, sq: 0, cut: 0, active: 0 };

export function ownCodes(z: Codes): CpuCodes {
  if (!(z instanceof CpuCodes)) throw new SaettaError("codes of another engine were given to the cpu engine");
  return z;
}

export function ownGrads(g: Grads): CpuGrads {
  if (!(g instanceof CpuGrads)) throw new SaettaError("gradients of another engine were given to the cpu engine");
  return g;
}

/** What the tensors, codes and gradients of the cpu engine are made of, and how operations get at their addresses. */

import { SaettaError } from "../../util/errors.ts";
import type { Codes, DType, Grads, Params, Step, Tensor } from "../engine.ts";
import type { StructOf } from "./contract.ts";
import type { Address } from "./native.ts";

export class CpuTensor implements Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly size: number;
  readonly address: Address;
  freed = false;

  constructor(dtype: DType, shape: readonly number[], size: number, address: Address) {
    this.dtype = dtype;
    this.shape = [...shape];
    this.size = size;
    this.address = address;
  }
}

export class CpuCodes implements Codes {
  readonly rows: number;
  readonly capacity: number;
  readonly tensors: { readonly latent: CpuTensor; readonly value: CpuTensor; readonly grad: CpuTensor };

  constructor(rows: number, capacity: number, alloc: (dtype: DType, shape: readonly number[]) => CpuTensor) {
    this.rows = rows;
    this.capacity = capacity;
    const make = (dtype: DType) => alloc(dtype, [rows, capacity]);
    this.tensors = { latent: make("u32"), value: make("f32"), grad: make("f32") };
  }

  /** As the kernels take them. */
  addresses(rows: number): StructOf<"Codes"> {
    if (this.rows !== rows)
      throw new SaettaError(`codes of ${this.rows} rows where ${rows} are needed`, { where: "cpu engine" });
    const { latent, value, grad } = this.tensors;
    return { latent: at(latent, "u32"), value: at(value, "f32"), grad: at(grad, "f32"), k: this.capacity };
  }
}

export class CpuGrads implements Grads {
  readonly preBias: CpuTensor;
  readonly latentBias: CpuTensor;
  readonly encoder?: CpuTensor;
  readonly decoder?: CpuTensor;
  /** Bytes of the lists that the kernels keep. */
  readonly size: number;
  readonly rows: number;
  readonly #handle: Address;
  freed = false;

  constructor(
    tensors: Pick<CpuGrads, "preBias" | "latentBias" | "encoder" | "decoder">,
    size: number,
    rows: number,
    handle: Address,
  ) {
    this.preBias = tensors.preBias;
    this.latentBias = tensors.latentBias;
    if (tensors.encoder !== undefined) this.encoder = tensors.encoder;
    if (tensors.decoder !== undefined) this.decoder = tensors.decoder;
    this.size = size;
    this.rows = rows;
    this.#handle = handle;
  }

  get handle(): Address {
    if (this.freed) throw new SaettaError("gradients were used after they were freed", { where: "cpu engine" });
    return this.#handle;
  }
}

/** The tensor's address, checked to be what the operation will take it for. No shape: any. */
export function at(t: Tensor, dtype: DType, ...shape: number[]): Address {
  const own = ownTensor(t);
  if (
    own.dtype !== dtype ||
    (shape.length > 0 && (own.shape.length !== shape.length || !shape.every((size, i) => size === own.shape[i])))
  ) {
    throw new SaettaError(`a tensor ${own.dtype} [${own.shape}] where ${dtype} [${shape}] is needed`, {
      where: "cpu engine",
    });
  }
  return own.address;
}

export function paramAddresses(p: Params, n: number, d: number): StructOf<"Params"> {
  return {
    encoder: at(p.encoder, "f32", n, d),
    latentBias: at(p.latentBias, "f32", n),
    decoder: at(p.decoder, "f32", n, d),
    preBias: at(p.preBias, "f32", d),
  };
}

export function stepAddresses(t: Step): StructOf<"Step"> {
  return {
    hyper: at(t.hyper, "f64"),
    sums: at(t.sums, "f64"),
    fired: at(t.fired, "u32"),
    bad: at(t.bad, "u32"),
    sq: at(t.sq, "f64"),
  };
}

/** What stands for tensors that are left out. */
export const NO_PARAMS: StructOf<"Params"> = { encoder: 0, latentBias: 0, decoder: 0, preBias: 0 };
export const NO_CODES: StructOf<"Codes"> = { latent: 0, value: 0, grad: 0, k: 0 };
export const NO_STEP: StructOf<"Step"> = { hyper: 0, sums: 0, fired: 0, bad: 0, sq: 0 };

export function ownTensor(t: object): CpuTensor {
  if (!(t instanceof CpuTensor)) throw new SaettaError("a tensor of another engine was given to the cpu engine");
  if (t.freed) throw new SaettaError("a tensor was used after it was freed", { where: "cpu engine" });
  return t;
}

export function ownCodes(z: Codes): CpuCodes {
  if (!(z instanceof CpuCodes)) throw new SaettaError("codes of another engine were given to the cpu engine");
  return z;
}

export function ownGrads(g: Grads): CpuGrads {
  if (!(g instanceof CpuGrads)) throw new SaettaError("gradients of another engine were given to the cpu engine");
  return g;
}

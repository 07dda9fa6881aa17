/** What the tensors, codes and gradients of the cuda engine are made of, and how operations get at their addresses. */

import { SaettaError } from "../../util/errors.ts";
import type { Codes, DType, Params, Step, Tensor } from "../engine.ts";
import type { StructOf } from "./contract.ts";
import type { DeadList } from "./dead.ts";
import type { Address } from "./driver.ts";
import { WHERE } from "./libraries.ts";

/** A second form of a tensor, and the version of the tensor that it was made from. */
export interface Derived {
  readonly address: Address;
  readonly size: number;
  /** What it was made from; undefined: it must be made anew. */
  from: string | undefined;
}

/** Of a tensor that rows are gathered from: it is written in a stream of its own, beside the operations. */
export interface Inflow {
  /** After the last operation that read it. */
  readonly used: number;
  /** After the last write. */
  readonly written: number;
  /** Operations must wait for `written`. */
  pending: boolean;
  /** A byte a row, for `upload` to tell those that are not finite. */
  readonly flags: Address;
}

let lastNumber = 0;

export class CudaTensor implements Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly size: number;
  readonly address: Address;
  /** No other tensor of this process has it. */
  readonly number = ++lastNumber;
  freed = false;
  /** Changes whenever the content does. */
  version = 0;
  /** The same numbers in the compute type. */
  copy: Derived | undefined;
  /** Of rows x: x - preBias in the compute type. */
  centred: Derived | undefined;
  /** Of ages: the dead. */
  dead: DeadList | undefined;
  /** Of raw rows. */
  inflow: Inflow | undefined;
  /** Of a part of codes: those. */
  codes: CudaCodes | undefined;

  constructor(dtype: DType, shape: readonly number[], size: number, address: Address) {
    this.dtype = dtype;
    this.shape = [...shape];
    this.size = size;
    this.address = address;
  }

  /** Tells this content from every other. */
  get state(): string {
    return `${this.number}.${this.version}`;
  }
}

/** How the path of some codes is computed: pair by pair; over all dead latents at once, `capacity` of them at most; not at all, for no code can be on. */
export type Way =
  | { readonly kind: "pairs" }
  | { readonly kind: "dense"; readonly capacity: number; readonly dead: DeadList }
  | { readonly kind: "empty" };

export const PAIRS: Way = { kind: "pairs" };
export const EMPTY: Way = { kind: "empty" };

export class CudaCodes implements Codes {
  readonly rows: number;
  readonly capacity: number;
  readonly tensors: { readonly latent: CudaTensor; readonly value: CudaTensor; readonly grad: CudaTensor };
  way: Way = PAIRS;

  constructor(rows: number, capacity: number, alloc: (dtype: DType, shape: readonly number[]) => CudaTensor) {
    this.rows = rows;
    this.capacity = capacity;
    const make = (dtype: DType) => alloc(dtype, [rows, capacity]);
    this.tensors = { latent: make("u32"), value: make("f32"), grad: make("f32") };
    for (const tensor of Object.values(this.tensors)) tensor.codes = this;
  }

  /** Addresses from row `first` on. */
  from(first = 0): { readonly latent: Address; readonly value: Address; readonly grad: Address } {
    const { latent, value, grad } = this.tensors;
    const at = (t: CudaTensor) => addressOf(t) + 4 * first * this.capacity;
    return { latent: at(latent), value: at(value), grad: at(grad) };
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

export function ownCodes(z: Codes, rows: number): CudaCodes {
  if (!(z instanceof CudaCodes)) throw new SaettaError("codes of another engine were given to the cuda engine");
  if (z.rows !== rows) throw new SaettaError(`codes of ${z.rows} rows where ${rows} are needed`, { where: WHERE });
  return z;
}

export function addressOf(t: CudaTensor): Address {
  return ownTensor(t).address;
}

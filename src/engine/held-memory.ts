/**
 * Tensors, codes and gradients of engines whose memory is addressed by numbers (of the process, or
 * of a card), and the checks of what an operation is given.
 */

import { SaettaError } from "../util/errors.ts";
import { type Codes, type DType, type Grads, HYPER, type Params, type Step, type Tensor } from "./engine.ts";
import { sumsLength } from "./sums.ts";

type Address = number;

export class HeldTensor implements Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes. */
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

export class HeldCodes<T extends HeldTensor> implements Codes {
  readonly rows: number;
  readonly capacity: number;
  readonly tensors: { readonly latent: T; readonly value: T; readonly grad: T };

  constructor(rows: number, capacity: number, alloc: (dtype: DType, shape: readonly number[]) => T) {
    this.rows = rows;
    this.capacity = capacity;
    const make = (dtype: DType) => alloc(dtype, [rows, capacity]);
    this.tensors = { latent: make("u32"), value: make("f32"), grad: make("f32") };
  }
}

export type GradTensors<T extends HeldTensor> = Pick<
  HeldGrads<T>,
  "preBias" | "latentBias" | "encoder" | "decoder" | "threshold" | "skip"
>;

export class HeldGrads<T extends HeldTensor> implements Grads {
  readonly preBias: T;
  readonly latentBias: T;
  readonly encoder?: T;
  readonly decoder?: T;
  readonly threshold?: T;
  readonly skip?: T;
  /** Of the largest batch: of this replica, or of the one that has the most rows. */
  readonly rows: number;
  freed = false;

  constructor({ preBias, latentBias, encoder, decoder, threshold, skip }: GradTensors<T>, rows: number) {
    this.preBias = preBias;
    this.latentBias = latentBias;
    if (encoder !== undefined) this.encoder = encoder;
    if (decoder !== undefined) this.decoder = decoder;
    if (threshold !== undefined) this.threshold = threshold;
    if (skip !== undefined) this.skip = skip;
    this.rows = rows;
  }

  get tensors(): T[] {
    const { preBias, latentBias, encoder, decoder, threshold, skip } = this;
    return [preBias, latentBias, encoder, decoder, threshold, skip].filter((t) => t !== undefined);
  }

  /** Throws SaettaError for a batch that is larger than the gradients have room for. */
  checkRows(rows: number, where: string): void {
    if (rows > this.rows)
      throw new SaettaError(`a batch of ${rows} rows, the gradients have room for ${this.rows}`, { where });
  }
}

/**
 * The checks of the engine of this name, whose tensors `isOwn` recognises. All throw SaettaError.
 */
export function checksOf<T extends HeldTensor>(engine: string, isOwn: (t: object) => t is T) {
  const where = `${engine} engine`;

  /** A tensor of this engine that is not freed. */
  function ownTensor(t: object): T {
    if (!isOwn(t)) throw new SaettaError(`a tensor of another engine was given to the ${where}`);
    if (t.freed) throw new SaettaError("a tensor was used after it was freed", { where });
    return t;
  }

  /** The tensor, checked to be what the operation takes it for. No shape: any. */
  function checked(t: Tensor, dtype: DType, ...shape: number[]): T {
    const own = ownTensor(t);
    const fits =
      shape.length === 0 || (own.shape.length === shape.length && shape.every((size, i) => size === own.shape[i]));
    if (own.dtype !== dtype || !fits)
      throw new SaettaError(`a tensor ${own.dtype} [${own.shape}] where ${dtype} [${shape}] is needed`, { where });
    return own;
  }

  /** Its address, likewise. */
  function at(t: Tensor, dtype: DType, ...shape: number[]): Address {
    return checked(t, dtype, ...shape).address;
  }

  /** 0 where there is no such parameter. */
  function paramAddresses(p: Params, n: number, dIn: number, dOut = dIn) {
    const optional = (t: Tensor | undefined, ...shape: number[]) => (t === undefined ? 0 : at(t, "f32", ...shape));
    return {
      encoder: at(p.encoder, "f32", n, dIn),
      latentBias: at(p.latentBias, "f32", n),
      decoder: at(p.decoder, "f32", n, dOut),
      preBias: at(p.preBias, "f32", dOut),
      threshold: optional(p.threshold, n),
      cut: optional(p.cut, 1),
      sparsity: optional(p.sparsity, 2),
      skip: optional(p.skip, dOut, dIn),
    };
  }

  function stepAddresses(t: Step) {
    return {
      hyper: at(t.hyper, "f64"),
      sums: at(t.sums, "f64"),
      fired: at(t.fired, "u32"),
      bad: at(t.bad, "u32"),
      sq: at(t.sq, "f64"),
      cut: at(t.cut, "f32"),
      active: at(t.active, "f64"),
    };
  }

  /**
   * The small tensors of a step, checked to be those of n latents and, where they are given, dOut
   * outputs and the prefixes.
   */
  function checkStep(t: Step, n: number, dOut?: number, prefixes = 1): void {
    at(t.hyper, "f64", HYPER.length);
    if (dOut !== undefined) at(t.sums, "f64", sumsLength(dOut, prefixes));
    at(t.fired, "u32", n);
    at(t.bad, "u32", 1);
    at(t.sq, "f64", 1);
    at(t.cut, "f32", 1);
    at(t.active, "f64", 1);
  }

  return { isOwn, ownTensor, checked, at, paramAddresses, stepAddresses, checkStep };
}

export type Checks<T extends HeldTensor> = ReturnType<typeof checksOf<T>>;

/** Where parameters would be that are left out. */
export const NO_PARAMS = {
  ...{ encoder: 0, latentBias: 0, decoder: 0, preBias: 0 },
  ...{ threshold: 0, cut: 0, sparsity: 0, skip: 0 },
} as const;

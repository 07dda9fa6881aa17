/** The reference engine's memory: bytes with typed views. */

import type { Elements } from "../collective/collective.ts";
import type { Pairs } from "../sae/math.ts";
import { CORE_PARAMS, type ParamName, type PerParam, perParam } from "../sae/params.ts";
import { BYTES, bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import {
  type Codes,
  type DType,
  FULL,
  type Grads,
  type GradsPlan,
  HYPER,
  NONE,
  type Step,
  type Tensor,
} from "./engine.ts";

const FREED = new Uint8Array(0);

export class ReferenceTensor implements Tensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  bytes: Uint8Array;
  #f64: Float64Array | undefined;
  #u32: Uint32Array | undefined;

  constructor(dtype: DType, shape: readonly number[]) {
    const elements = shape.reduce((a, b) => a * b, 1);
    const size = elements * BYTES[dtype];
    this.dtype = dtype;
    this.shape = [...shape];
    try {
      this.bytes = new Uint8Array(size);
    } catch (cause) {
      throw new SaettaError(`no room for a tensor of ${size} bytes (${dtype} [${shape.join(", ")}])`, {
        where: "reference engine",
        cause,
      });
    }
  }

  get f64(): Float64Array {
    this.#expect("f64");
    this.#f64 ??= new Float64Array(this.bytes.buffer);
    return this.#f64;
  }

  get u32(): Uint32Array {
    this.#expect("u32");
    this.#u32 ??= new Uint32Array(this.bytes.buffer);
    return this.#u32;
  }

  free(): void {
    this.bytes = FREED;
    this.#f64 = undefined;
    this.#u32 = undefined;
  }

  #expect(dtype: DType): void {
    if (this.dtype !== dtype) {
      throw new SaettaError(`a tensor of ${dtype} is needed here, this one is ${this.dtype}`, {
        where: "reference engine",
      });
    }
    if (this.bytes === FREED)
      throw new SaettaError("a tensor was used after it was freed", { where: "reference engine" });
  }
}

export class ReferenceCodes implements Codes, Pairs {
  readonly rows: number;
  readonly capacity: number;
  readonly tensors: {
    readonly latent: ReferenceTensor;
    readonly value: ReferenceTensor;
    readonly grad: ReferenceTensor;
  };

  constructor(rows: number, capacity: number) {
    this.rows = rows;
    this.capacity = capacity;
    const make = (dtype: DType) => new ReferenceTensor(dtype, [rows, capacity]);
    this.tensors = { latent: make("u32"), value: make("f64"), grad: make("f64") };
    this.latent.fill(NONE);
  }

  get latent(): Uint32Array {
    return this.tensors.latent.u32;
  }
  get value(): Float64Array {
    return this.tensors.value.f64;
  }
  get grad(): Float64Array {
    return this.tensors.grad.f64;
  }
}

/** Always dense inside; `encoder` and `decoder` are shown only to those who asked for them. */
export class ReferenceGrads implements Grads {
  readonly all: PerParam<ReferenceTensor>;
  readonly preBias: Tensor;
  readonly latentBias: Tensor;
  readonly encoder?: Tensor;
  readonly decoder?: Tensor;
  readonly threshold?: Tensor;
  readonly skip?: Tensor;

  constructor({ dims, selections, skip = false }: GradsPlan, dense: boolean) {
    const names: ParamName[] = [...CORE_PARAMS];
    if (selections.some(({ rule }) => rule.kind === "band")) names.push("threshold");
    if (skip) names.push("skip");
    this.all = perParam(names, (_, { shape }) => new ReferenceTensor("f64", shape(dims)));
    this.preBias = this.all.preBias;
    this.latentBias = this.all.latentBias;
    if (dense) {
      this.encoder = this.all.encoder;
      this.decoder = this.all.decoder;
    }
    if (this.all.threshold !== undefined) this.threshold = this.all.threshold;
    if (this.all.skip !== undefined) this.skip = this.all.skip;
  }
}

export function own(t: object): ReferenceTensor {
  if (t instanceof ReferenceTensor) return t;
  throw new SaettaError("a tensor of another engine was given to the reference engine");
}

export function ownCodes(z: Codes): ReferenceCodes {
  if (z instanceof ReferenceCodes) return z;
  throw new SaettaError("codes of another engine were given to the reference engine");
}

export function ownGrads(g: Grads): ReferenceGrads {
  if (g instanceof ReferenceGrads) return g;
  throw new SaettaError("gradients of another engine were given to the reference engine");
}

/** Numbers of JavaScript for a collective. */
export function elementsOf(values: Float64Array | Uint32Array): Elements {
  return { at: bytesOf(values), count: values.length, dtype: values instanceof Float64Array ? "f64" : "u32" };
}

export type AllHyper = Readonly<Record<(typeof HYPER)[number], number>>;

export function hyperOf(t: Step): AllHyper {
  const values = own(t.hyper).f64;
  return Object.fromEntries(HYPER.map((name, i) => [name, values[i]])) as AllHyper;
}

export function isFull(t: Step): boolean {
  return (own(t.bad).u32[0]! & FULL) !== 0;
}

export function markFull(t: Step): void {
  own(t.bad).u32[0]! |= FULL;
}

export function markBad(t: Step): void {
  own(t.bad).u32[0]! |= 1;
}

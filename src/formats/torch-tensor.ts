/** Tensors as PyTorch stores them: views of storages. */

import { BYTES } from "../util/bytes.ts";

export type TorchDType = "f64" | "f32" | "f16" | "bf16" | "i64" | "i32" | "i16" | "i8" | "u8" | "bool";

/** Elements in a file of their own in the archive; several tensors may share one. */
export class TorchStorage {
  readonly key: string;
  readonly dtype: TorchDType;
  readonly elements: number;

  constructor(key: string, dtype: TorchDType, elements: number) {
    this.key = key;
    this.dtype = dtype;
    this.elements = elements;
  }
}

/**
 * A view of a storage: element [i, j, ...] is element offset + i strides[0] + j strides[1] + ... of
 * it, which is in bounds.
 */
export class TorchTensor {
  readonly storage: TorchStorage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];

  constructor(storage: TorchStorage, offset: number, shape: readonly number[], strides: readonly number[]) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
  }

  get dtype(): TorchDType {
    return this.storage.dtype;
  }

  get elements(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }
}

/** Whether the elements stand one after the other in row-major order. */
export function isContiguous({ shape, strides }: TorchTensor): boolean {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return false;
    step *= shape[axis]!;
  }
  return true;
}

/**
 * -> into: the view's elements one after the other, from `touched`, which starts with its first.
 */
export function gathered(touched: Uint8Array, { shape, strides, dtype }: TorchTensor, into: Uint8Array): Uint8Array {
  const [from, to] = [wordsOf(touched, BYTES[dtype]), wordsOf(into, BYTES[dtype])];
  const axes = shape.length;
  const [inner, step] = axes === 0 ? [1, 0] : [shape[axes - 1]!, strides[axes - 1]!];
  const index = new Array<number>(Math.max(0, axes - 1)).fill(0);
  let at = 0;
  for (let done = 0; done < to.length; done += inner) {
    for (let i = 0; i < inner; i++) to[done + i] = from[at + i * step]!;
    for (let axis = axes - 2; axis >= 0; axis--) {
      index[axis]!++;
      at += strides[axis]!;
      if (index[axis]! < shape[axis]!) break;
      at -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return into;
}

/**
 * Elements as words of `width` bytes, which are copied and not looked at. Those of 8 bytes are
 * bigints, for a copy of a float may change the bits of a NaN.
 */
function wordsOf({ buffer }: Uint8Array, width: number): Uint32Array {
  if (width === 8) return new BigUint64Array(buffer) as unknown as Uint32Array;
  if (width === 4) return new Uint32Array(buffer);
  return (width === 2 ? new Uint16Array(buffer) : new Uint8Array(buffer)) as unknown as Uint32Array;
}

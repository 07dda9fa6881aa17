/**
 * The tensors of a torch file under names: of nested dicts "layers.3.resid", of a list of tensors
 * one array, and each of them by its number.
 */

import { TorchTuple, type TorchValue } from "./torch-pickle.ts";
import { type TorchDType, TorchTensor } from "./torch-tensor.ts";

/** Tensors of one type seen as one array: the elements of each, one after the other. */
export interface TorchArray {
  readonly shape: readonly number[];
  readonly dtype: TorchDType;
  readonly tensors: readonly TorchTensor[];
  /** Whether it is one of the tensors of a list that has a name itself. */
  readonly inList: boolean;
}

/** The name of what the file holds itself, without a dict around it. */
export const ALONE = "";

/** Limits for hostile files, which can make dicts hold themselves. */
const [MOST_ARRAYS, MOST_VALUES, DEEPEST] = [10_000, 100_000, 16];

/**
 * All tensors of the file, and its lists of tensors of equal width, in the order in which they are
 * stored.
 */
export function arraysOf(root: TorchValue): ReadonlyMap<string, TorchArray> {
  const found = new Map<string, TorchArray>();
  let values = 0;
  const add = (name: string, array: TorchArray): void => {
    if (found.size < MOST_ARRAYS && !found.has(name)) found.set(name, array);
  };
  const visit = (value: TorchValue, name: string, depth: number, inList: boolean): void => {
    if (depth > DEEPEST || ++values > MOST_VALUES) return;
    const child = (key: unknown): string => (name === ALONE ? String(key) : `${name}.${String(key)}`);
    if (value instanceof TorchTensor) {
      add(name, { shape: value.shape, dtype: value.dtype, tensors: [value], inList });
    } else if (value instanceof Map) {
      for (const [key, inner] of value) visit(inner, child(key), depth + 1, false);
    } else if (Array.isArray(value)) {
      // The items of a tuple are different things, such as the layers of a model.
      const joined = value instanceof TorchTuple ? undefined : joinedList(value);
      if (joined !== undefined) add(name, joined);
      for (const [i, inner] of value.entries()) visit(inner, child(i), depth + 1, joined !== undefined);
    }
  };
  visit(root, ALONE, 0, false);
  return found;
}

/**
 * A list of tensors as one array: [T, width] along the first axis, [n, T, width] too where all have
 * the same T, else as rows; of vectors, floats are rows and integers one vector. Undefined where
 * they are of different types or widths.
 */
function joinedList(list: readonly TorchValue[]): TorchArray | undefined {
  const tensors = list.filter((item) => item instanceof TorchTensor).filter(({ elements }) => elements > 0);
  const [first] = tensors;
  if (first === undefined || list.some((item) => !(item instanceof TorchTensor))) return undefined;
  const { dtype } = first;
  if (tensors.some((each) => each.dtype !== dtype || each.shape.length === 0)) return undefined;
  const isFloat = /^b?f/.test(dtype);
  const sum = (count: (shape: readonly number[]) => number): number =>
    tensors.reduce((total, { shape }) => total + count(shape), 0);
  const product = (sizes: readonly number[]): number => sizes.reduce((total, size) => total * size, 1);
  const inner = first.shape.slice(1);
  const sameInner = tensors.every(({ shape }) => shape.slice(1).join() === inner.join());
  let shape: number[];
  if (isFloat) {
    const width = first.shape.at(-1)!;
    if (tensors.some((each) => each.shape.at(-1) !== width)) return undefined;
    shape =
      inner.length >= 2 && sameInner
        ? [sum(([n]) => n!), ...inner]
        : [sum((each) => product(each.slice(0, -1))), width];
  } else shape = inner.length >= 1 && sameInner ? [sum(([n]) => n!), ...inner] : [sum(product)];
  return { shape, dtype, tensors, inList: false };
}

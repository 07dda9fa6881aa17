/**
 * Arguments with names, put into memory as C lays them out. A contract gives each field its C type;
 * from that follow its place and size, the TypeScript type of what is passed, and the declaration
 * that the kernels are compiled with (header.ts).
 */

import type { Enum } from "./names.ts";

/**
 * Name and C type of each field, in the order in memory: a pointer, a number, an enum, a struct, or
 * an array of pointers or numbers.
 */
export type Fields = Readonly<Record<string, string>>;

/** What one engine and its kernels agree on. */
export interface Contract {
  readonly enums: Readonly<Record<string, Enum>>;
  readonly constants: Readonly<Record<string, number>>;
  /** A struct comes after those it holds. */
  readonly structs: Readonly<Record<string, Fields>>;
}

/**
 * Numbers by field name: an address for a pointer, a nested object for a struct, a list for an
 * array.
 */
export type ArgumentsOf<F extends Fields, S extends Readonly<Record<string, Fields>>> = {
  readonly [K in keyof F]: F[K] extends keyof S
    ? ArgumentsOf<S[F[K]], S>
    : F[K] extends `${string}]`
      ? readonly number[]
      : number;
};

type Put = (view: DataView, at: number, value: unknown) => void;

export interface Layout {
  /** Bytes, without padding at the end. */
  readonly size: number;
  readonly alignment: number;
  readonly put: Put;
}

const NUMBERS: Readonly<Record<string, Layout>> = {
  u32: { size: 4, alignment: 4, put: (view, at, value) => view.setUint32(at, value as number, true) },
  u64: { size: 8, alignment: 8, put: (view, at, value) => view.setBigUint64(at, BigInt(value as number), true) },
  size_t: { size: 8, alignment: 8, put: (view, at, value) => view.setBigUint64(at, BigInt(value as number), true) },
  float: { size: 4, alignment: 4, put: (view, at, value) => view.setFloat32(at, value as number, true) },
  double: { size: 8, alignment: 8, put: (view, at, value) => view.setFloat64(at, value as number, true) },
};

/** Where each field is, and what writes them all. Throws where a type is unknown. */
export function layoutOf(fields: Fields, contract: Contract): Layout {
  const parts: { readonly name: string; readonly at: number; readonly put: Put }[] = [];
  let [size, alignment] = [0, 1];
  for (const [name, type] of Object.entries(fields)) {
    const own = layoutOfType(type, contract);
    const at = up(size, own.alignment);
    parts.push({ name, at, put: own.put });
    size = at + own.size;
    alignment = Math.max(alignment, own.alignment);
  }
  const put: Put = (view, base, value) => {
    const values = value as Readonly<Record<string, unknown>>;
    for (const part of parts) part.put(view, base + part.at, values[part.name]);
  };
  return { size, alignment, put };
}

/** Bytes of a struct in C, where arrays of it could stand. */
export function sizeOfStruct(fields: Fields, contract: Contract): number {
  const { size, alignment } = layoutOf(fields, contract);
  return up(size, alignment);
}

function layoutOfType(type: string, contract: Contract): Layout {
  const array = /^(.*)\[(\d+)\]$/.exec(type);
  if (array !== null) return arrayOf(layoutOfType(array[1]!, contract), Number(array[2]));
  if (type.includes("*")) return NUMBERS.u64!;
  if (Object.hasOwn(contract.enums, type)) return NUMBERS.u32!;
  const struct = contract.structs[type];
  if (struct !== undefined) return { ...layoutOf(struct, contract), size: sizeOfStruct(struct, contract) };
  const number = NUMBERS[type];
  if (number === undefined) throw new Error(`the contract has no type ${type}`);
  return number;
}

function arrayOf(each: Layout, count: number): Layout {
  const put: Put = (view, at, value) => {
    const values = value as readonly unknown[];
    for (let i = 0; i < count; i++) each.put(view, at + i * each.size, values[i]);
  };
  return { size: count * each.size, alignment: each.alignment, put };
}

function up(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** Arrays of weights, out of the files that have them and in the orders that formats want. */

import { rowsToFloat32 } from "../data/convert.ts";
import { isRowDType } from "../data/source.ts";
import { type Safetensors, writeSafetensors } from "../formats/safetensors.ts";
import type { TorchValue } from "../formats/torch-pickle.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { BYTES, bytesOf, float64Of } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";
import { firstNonFinite } from "../util/float16.ts";
import type { JsonObject } from "../util/json.ts";
import type { Floats, OutputFile } from "./format.ts";

/**
 * A float tensor of a safetensors file; `says`: what says that it must have this shape. Throws
 * FormatError when it has another, is missing or not finite.
 */
export async function safetensorsFloats(
  file: Safetensors,
  name: string,
  shape: readonly number[],
  says = "cfg.json",
): Promise<Floats> {
  const entry = file.entry(name);
  checkShape(name, entry.shape, shape, says, file.path);
  return finiteFloats(name, await file.read(name), entry.dtype.toLowerCase(), file.path);
}

export function torchTensor(name: string, value: TorchValue | undefined, path: string): TorchTensor {
  if (value instanceof TorchTensor) return value;
  throw new FormatError(value === undefined ? `has no tensor "${name}"` : `"${name}" is no tensor`, { where: path });
}

/** The sizes [n, d] of a matrix. Throws FormatError when it is none or too large. */
export function matrixShape(name: string, shape: readonly number[], path: string): readonly [number, number] {
  const [rows, columns] = shape;
  if (shape.length !== 2 || !rows || !columns) {
    throw new FormatError(`tensor "${name}" is [${shape.join(", ")}], not a matrix`, { where: path });
  }
  return [rows, columns];
}

/** Throws FormatError unless the shape is the one that `says` says. */
export function checkShape(
  name: string,
  found: readonly number[],
  shape: readonly number[],
  says: string,
  where: string,
): void {
  if (found.join() === shape.join()) return;
  throw new FormatError(`tensor "${name}" is [${found.join(", ")}], but ${says} says [${shape.join(", ")}]`, { where });
}

/**
 * The elements of a tensor.
 * Throws FormatError for a dtype that is no float, and for what is not finite.
 */
export function finiteFloats(name: string, bytes: Uint8Array, dtype: string | undefined, where: string): Floats {
  if (!isRowDType(dtype))
    throw new FormatError(`tensor "${name}" is ${dtype}; weights are f64, f32, f16 or bf16`, { where });
  const count = bytes.byteLength / BYTES[dtype];
  const bad = firstNonFinite(bytes, dtype, 0, count);
  if (bad >= 0) throw new FormatError(`tensor "${name}", element ${bad} is not finite`, { where });
  return dtype === "f64" ? float64Of(bytes) : rowsToFloat32(bytes, dtype, count);
}

/**
 * Elements that fit a cache line, so that neither side of a transposition is read or written one
 * element a line.
 */
const BLOCK = 16;

/** values [rows, columns] -> [columns, rows]. */
export function transposed(values: Floats, rows: number, columns: number): Floats {
  const out = values instanceof Float32Array ? new Float32Array(values.length) : new Float64Array(values.length);
  // Written in order: twice as fast as read in order.
  for (let c0 = 0; c0 < columns; c0 += BLOCK) {
    const c1 = Math.min(columns, c0 + BLOCK);
    for (let r0 = 0; r0 < rows; r0 += BLOCK) {
      const r1 = Math.min(rows, r0 + BLOCK);
      for (let c = c0; c < c1; c++) {
        let from = r0 * columns + c;
        for (let to = c * rows + r0; to < c * rows + r1; to++) {
          out[to] = values[from]!;
          from += columns;
        }
      }
    }
  }
  return out;
}

/** bias [n] + W x, W [n,d], x [d]: summed in float64 and rounded once. */
export function plusProduct(bias: Floats, w: Floats, x: Floats): Floats {
  return plusTimes(bias, w, x, 1);
}

/** bias [n] - W x, likewise. */
export function minusProduct(bias: Floats, w: Floats, x: Floats): Floats {
  return plusTimes(bias, w, x, -1);
}

function plusTimes(bias: Floats, w: Floats, x: Floats, sign: number): Floats {
  const d = x.length;
  const sums = Float64Array.from(bias);
  for (let j = 0; j < sums.length; j++) for (let i = 0; i < d; i++) sums[j]! += sign * w[j * d + i]! * x[i]!;
  return bias instanceof Float32Array ? Float32Array.from(sums) : sums;
}

/** Norms of the rows of `width`. */
export function rowNorms(values: Floats, width: number): Float64Array {
  return Float64Array.from({ length: values.length / width }, (_, row) => {
    let square = 0;
    for (let i = row * width; i < (row + 1) * width; i++) square += values[i]! * values[i]!;
    return Math.sqrt(square);
  });
}

/** Rows of `width`, each times its factor, in place. */
export function timesRows(values: Floats, factors: Float64Array, width: number): Floats {
  for (let i = 0; i < values.length; i++) values[i] = values[i]! * factors[Math.floor(i / width)]!;
  return values;
}

/** The values as f32 where the first are f32, each rounded once. */
export function likeFirst(first: Floats, values: Floats): Floats {
  return first instanceof Float32Array && values instanceof Float64Array ? Float32Array.from(values) : values;
}

/** The bytes of the values in the dtype that is written. */
export function as(dtype: "f32" | "f64", values: Floats): Uint8Array {
  if (dtype === "f32") return bytesOf(values instanceof Float32Array ? values : Float32Array.from(values));
  return bytesOf(values instanceof Float64Array ? values : Float64Array.from(values));
}

/** What a file has beside the names that are used, in one note; none where it has nothing else. */
export function unusedNote(names: Iterable<string>, used: readonly string[], where: string): string[] {
  const rest = [...names].filter((name) => !used.includes(name));
  if (rest.length === 0) return [];
  const shown = rest.slice(0, 6).map((name) => `"${name.slice(0, 40)}"`);
  return [
    `${where} also holds ${shown.join(", ")}${rest.length > 6 ? ` and ${rest.length - 6} more` : ""}, which the autoencoder does not use`,
  ];
}

/**
 * A safetensors file of arrays in one dtype, each read when its turn comes, so that only one is
 * held at a time.
 */
export function safetensorsFile(
  name: string,
  dtype: "f32" | "f64",
  arrays: readonly { readonly name: string; readonly shape: readonly number[]; readonly read: () => Promise<Floats> }[],
): OutputFile {
  const parts = arrays.map(({ name: each, shape, read }) => ({
    name: each,
    dtype: dtype === "f32" ? ("F32" as const) : ("F64" as const),
    shape,
    bytes: async () => as(dtype, await read()),
  }));
  return { name, content: (write) => writeSafetensors(write, parts, { format: "pt" }) };
}

export function jsonFile(name: string, value: JsonObject): OutputFile {
  return { name, content: (write) => write(new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`)) };
}

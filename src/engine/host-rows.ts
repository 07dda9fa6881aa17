/** Rows on their way into an engine whose memory is the host's. */

import { BYTES } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { nonFiniteRows } from "../util/float16.ts";
import { screenedMemory } from "../util/screen.ts";
import type { DType, Engine, Tensor } from "./engine.ts";

export function hostMemory(bytes: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(screenedMemory(bytes), 0, bytes);
}

/** `upload` by `write`. */
export function writeRows(engine: Engine, raw: Tensor, bytes: Uint8Array, row: number): Promise<readonly number[]> {
  const { dtype, d, rows } = rowsOf(raw, bytes, row);
  engine.write(raw, bytes, row * d * BYTES[dtype]);
  return Promise.resolve(nonFiniteRows(bytes, dtype, d, 0, rows));
}

/**
 * What `bytes` are as rows of raw from `row` on. Throws SaettaError when they are not rows of it.
 */
export function rowsOf(raw: Tensor, bytes: Uint8Array, row: number) {
  const [m, d] = raw.shape;
  const { dtype } = raw;
  if (raw.shape.length !== 2 || m === undefined || d === undefined || !isRow(dtype)) {
    throw new SaettaError(`rows cannot be brought into a tensor ${dtype} [${raw.shape}]`);
  }
  const rows = bytes.length / (d * BYTES[dtype]);
  if (!Number.isInteger(rows) || !Number.isInteger(row) || row < 0 || row + rows > m) {
    throw new SaettaError(`${bytes.length} bytes are no rows of a tensor ${dtype} [${raw.shape}] from row ${row} on`);
  }
  return { dtype, d, rows };
}

function isRow(dtype: DType): dtype is "f16" | "bf16" | "f32" | "f64" {
  return dtype === "f16" || dtype === "bf16" || dtype === "f32" || dtype === "f64";
}

/** Rows in memory as a Source, with a count of what was read. */

import type { Origin, RowDType, Source } from "../../src/data/source.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { encodeFloat16 } from "../../src/util/float16.ts";
import { Rng } from "../../src/util/rng.ts";

export interface MemorySource extends Source {
  /** Every read so far: [first, count]. */
  readonly reads: (readonly [number, number])[];
  closed: boolean;
}

export interface MemoryOptions {
  readonly dtype?: RowDType;
  readonly sequence?: number;
  readonly grain?: number;
  readonly tokens?: readonly number[];
  readonly origin?: Origin;
  /** Fails when this row is read. */
  readonly broken?: number;
}

/** `values` [rows, dIn]. */
export function memorySource(values: Float32Array, dIn: number, options: MemoryOptions = {}): MemorySource {
  const { dtype = "f32", sequence, grain = 1, tokens, origin = {}, broken } = options;
  const rows = values.length / dIn;
  const bytes = encode(values, dtype);
  const rowBytes = bytes.length / rows;
  const reads: (readonly [number, number])[] = [];
  return {
    description: `memory: ${rows} x ${dIn} ${dtype}`,
    paths: ["memory.h5"],
    dIn,
    rows,
    dtype,
    sequence,
    grain,
    origin,
    reads,
    closed: false,
    async read(first, count, into) {
      if (first < 0 || first + count > rows) throw new RangeError(`rows ${first} to ${first + count} of ${rows}`);
      if (broken !== undefined && first <= broken && broken < first + count) throw new Error("the disk is gone");
      reads.push([first, count]);
      into.set(bytes.subarray(first * rowBytes, (first + count) * rowBytes));
    },
    tokens: tokens && (async (first, count) => Int32Array.from(tokens.slice(first, first + count))),
    locate: (row) => `memory.h5, row ${row}`,
    async close() {
      this.closed = true;
    },
  };
}

function encode(values: Float32Array, dtype: RowDType): Uint8Array {
  if (dtype === "f32") return bytesOf(values);
  if (dtype === "f64") return bytesOf(Float64Array.from(values));
  if (dtype === "bf16") throw new RangeError("not needed so far");
  const halves = new Uint16Array(values.length);
  encodeFloat16(values, halves);
  return bytesOf(halves);
}

/** Row r holds r in all its `dIn` places, so that a row says where it comes from. */
export function numberedRows(rows: number, dIn = 1): Float32Array {
  return Float32Array.from({ length: rows * dIn }, (_, at) => Math.floor(at / dIn));
}

/**
 * Sparse sums of `features` hidden directions with a little noise: what an autoencoder can learn.
 */
export function learnableRows(rows: number, dIn: number, features: number, seed = 1): Float32Array {
  const rng = new Rng(seed, 99);
  const directions = Float32Array.from({ length: features * dIn }, () => rng.normal());
  const values = new Float32Array(rows * dIn);
  for (let row = 0; row < rows; row++) {
    for (let pick = 0; pick < 3; pick++) {
      const feature = rng.below(features);
      const strength = 0.5 + rng.uniform();
      for (let i = 0; i < dIn; i++) values[row * dIn + i]! += strength * directions[feature * dIn + i]!;
    }
    for (let i = 0; i < dIn; i++) values[row * dIn + i]! += 0.05 * rng.normal() + 1;
  }
  return values;
}

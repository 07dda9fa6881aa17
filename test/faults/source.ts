/** Rows in memory as a Source, for tests. */

import type { RowDType, Source } from "../../src/data/source.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { encodeBfloat16, encodeFloat16 } from "../../src/util/float16.ts";

export interface MemoryOptions {
  readonly dtype?: RowDType;
  readonly grain?: number;
  readonly sequence?: number;
  readonly tokens?: readonly number[];
  readonly startToken?: number;
  readonly path?: string;
  /** Told of every read. */
  readonly onRead?: (first: number, count: number) => void;
}

export function memorySource(rows: readonly (readonly number[])[], options: MemoryOptions = {}): Source {
  const { dtype = "f32", grain = 1, sequence, tokens, startToken, path = "memory", onRead } = options;
  const dIn = rows[0].length;
  const bytes = encode(rows.flat(), dtype);
  const rowBytes = bytes.length / rows.length;
  return {
    description: `${path}: ${rows.length} x ${dIn} ${dtype}`,
    paths: [path],
    dIn,
    rows: rows.length,
    dtype,
    sequence,
    grain,
    origin: startToken === undefined ? {} : { startToken },
    read: async (first, count, into) => {
      onRead?.(first, count);
      into.set(bytes.subarray(first * rowBytes, (first + count) * rowBytes));
    },
    tokens: tokens && (async (first, count) => Int32Array.from(tokens.slice(first, first + count))),
    locate: (row) => `${path}, row ${row}`,
    close: async () => undefined,
  };
}

function encode(values: readonly number[], dtype: RowDType): Uint8Array {
  if (dtype === "f64") return bytesOf(Float64Array.from(values));
  if (dtype === "f32") return bytesOf(Float32Array.from(values));
  const bits = new Uint16Array(values.length);
  (dtype === "f16" ? encodeFloat16 : encodeBfloat16)(Float32Array.from(values), bits);
  return bytesOf(bits);
}

/** Raw rows -> numbers. */

import { float32Of, float64Of } from "../util/bytes.ts";
import { decodeBfloat16, decodeFloat16 } from "../util/float16.ts";
import type { RowDType } from "./source.ts";

/** The first `count` elements of raw rows as f32; f64 is rounded. */
export function rowsToFloat32(bytes: Uint8Array, dtype: RowDType, count: number): Float32Array {
  if (dtype === "f64") return Float32Array.from(float64Of(bytes.subarray(0, count * 8)));
  if (dtype === "f32") return float32Of(bytes.subarray(0, count * 4));
  const part = bytes.subarray(0, count * 2);
  const aligned = part.byteOffset % 2 === 0 ? part : part.slice();
  const bits = new Uint16Array(aligned.buffer, aligned.byteOffset, count);
  return dtype === "f16" ? decodeFloat16(bits) : decodeBfloat16(bits);
}

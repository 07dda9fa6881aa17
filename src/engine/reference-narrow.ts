/** A sum over ranks with 16-bit numbers on the wire (engine.ts, Narrowing), in float64. */

import { type Collective, groupOf, type Over } from "../collective/collective.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { decodeBfloat16, decodeFloat16, encodeBfloat16, encodeFloat16 } from "../util/float16.ts";
import { type Narrowing, OVERFLOW } from "./engine.ts";
import { hyperOf, own } from "./reference-memory.ts";

/** Every rank sums one part of the values, which the others send it, and sends the sums to them. */
export function narrowSum(
  collective: Collective,
  values: Float64Array,
  over: Over,
  { as, t, scaled }: Narrowing,
): void {
  if (collective.allToAll === undefined) throw new SaettaError("these ranks exchange no 16-bit numbers");
  const { rank, size } = groupOf(collective.grid, over);
  const each = Math.ceil(values.length / size);
  const scale = scaled ? hyperOf(t).lossScale : 1;
  const [encode, decode] = as === "fp16" ? [encodeFloat16, decodeFloat16] : [encodeBfloat16, decodeBfloat16];
  const [out, got] = [new Uint16Array(size * each), new Uint16Array(size * each)];
  const own16 = out.subarray(rank * each, (rank + 1) * each);
  const elements = (bits: Uint16Array) => ({ at: bytesOf(bits), count: bits.byteLength, dtype: "u8" }) as const;
  let overflows =
    encode(
      Float32Array.from(values, (value) => value * scale),
      out,
    ) >= 0;
  collective.allToAll(elements(out), elements(got), over);
  const parts = decode(got);
  const sums = new Float32Array(each);
  for (let i = 0; i < each; i++) {
    let sum = 0;
    for (let r = 0; r < size; r++) sum += parts[r * each + i]!;
    sums[i] = sum;
  }
  overflows = encode(sums, own16) >= 0 || overflows;
  collective.allGather(elements(own16), elements(out), over);
  const all = decode(out);
  for (let i = 0; i < values.length; i++) values[i] = all[i]! / scale;
  if (overflows) own(t.bad).u32[0]! |= scaled ? OVERFLOW : 1;
}

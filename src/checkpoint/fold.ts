/**
 * Rows multiplied by one factor s in training leave no trace in the saved weights. With x' = s x, W
 * (x' - b_pre) + b_lat = s (W (x - b_pre / s) + b_lat / s), and top-k and relu let a positive
 * factor through: biases divided by s give the codes z / s and the reconstruction x_hat / s, the
 * same function of the rows as they are. Encoder and decoder stay as they are, with unit decoder
 * rows.
 */

import type { Tensor } from "../engine/engine.ts";
import { bytesOf, float32Of, float64Of } from "../util/bytes.ts";

/** Elements of the tensor's dtype (f32 or f64), each divided by the factor and rounded once. */
export function divided(bytes: Uint8Array, dtype: Tensor["dtype"], factor: number): Uint8Array {
  return bytesOf(
    dtype === "f64" ? float64Of(bytes).map((value) => value / factor) : float32Of(bytes).map((value) => value / factor),
  );
}

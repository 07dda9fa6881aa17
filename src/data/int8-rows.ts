/** Rows as int8 with one scale per row: a number is its byte times the scale of its row. */

/** The name of the array of scales next to the rows of a file. */
export const SCALES = "scales";

const MOST = 127;

/**
 * Rounds rows [rows, width] to int8; `scales` gets one number per row. A row that is not finite
 * gets a scale that is not, so that it is read as NaN.
 */
export function encodeInt8(values: Float32Array, width: number, into: Int8Array, scales: Float32Array): void {
  for (let row = 0, at = 0; at < values.length; row++, at += width) {
    let largest = 0;
    for (let i = at; i < at + width; i++) largest = Math.max(largest, Math.abs(values[i]!));
    const scale = Math.fround(largest / MOST);
    scales[row] = scale;
    const times = scale === 0 ? 0 : 1 / scale;
    for (let i = at; i < at + width; i++) {
      const rounded = Math.round(values[i]! * times);
      into[i] = rounded > MOST ? MOST : rounded < -MOST ? -MOST : rounded;
    }
  }
}

/** The rows again, as f32. */
export function decodeInt8(values: Int8Array, width: number, scales: Float32Array, into: Float32Array): void {
  for (let row = 0, at = 0; row < scales.length; row++, at += width) {
    const scale = scales[row]!;
    for (let i = at; i < at + width; i++) into[i] = values[i]! * scale;
  }
}

/** Some rows of activations taken out, and others put in their place. */

/** The rows of x [.., width] whose flag is 1, one after the other. */
export function gather(x: Float32Array, flags: Uint8Array, width: number): Float32Array {
  const rows = new Float32Array(flags.reduce((sum, flag) => sum + flag, 0) * width);
  let at = 0;
  for (const [row, flag] of flags.entries()) {
    if (flag === 0) continue;
    rows.set(x.subarray(row * width, (row + 1) * width), at);
    at += width;
  }
  return rows;
}

/** x [.., width] with the rows whose flag is 1 taken from `rows`. */
export function scattered(x: Float32Array, flags: Uint8Array, width: number, rows: Float32Array): Float32Array {
  const result = x.slice();
  let at = 0;
  for (const [row, flag] of flags.entries()) {
    if (flag === 0) continue;
    result.set(rows.subarray(at, at + width), row * width);
    at += width;
  }
  return result;
}

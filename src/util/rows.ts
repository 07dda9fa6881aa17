/**
 * What all that read rows demand of a caller; it is a mistake of the program otherwise, and no
 * fault of a file.
 */

/** Throws RangeError unless [first, first + count) are some of `rows`. */
export function checkRows(first: number, count: number, rows: number): void {
  if (!(first >= 0 && count >= 0 && first + count <= rows))
    throw new RangeError(`rows ${first} to ${first + count} of ${rows}`);
}

/** Throws RangeError unless `into` has room for `count` rows. */
export function checkRoom(into: Uint8Array, count: number, rowBytes: number): void {
  if (into.byteLength < count * rowBytes) throw new RangeError(`${count} rows do not fit ${into.byteLength} bytes`);
}

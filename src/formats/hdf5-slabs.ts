/**
 * How a range of rows of a chunked dataset is cut into slabs, each read by one call of the library:
 * in whole chunks, so that none is decompressed twice, and of a few MiB, so that the event loop is
 * not held for long.
 */

/**
 * What one call of the library reads: about 4 MiB where chunks are smaller, and not more than 256
 * MiB, even if chunks that span all rows are then read again.
 */
const SLAB_BYTES = 4 << 20;
const MAX_SLAB_BYTES = 256 << 20;

/**
 * The axes that number the rows: row = outer index * inner + inner index. A single axis is the
 * inner one.
 */
export interface SlabLayout {
  readonly rank: number;
  /** 1 where no axis is left for the width. */
  readonly unused: 0 | 1;
  readonly inner: number;
  readonly width: number;
  readonly grain: number;
  /**
   * Rows of a slab along each axis, where the request is large enough. Whole chunks, unless those
   * are too large.
   */
  readonly outerStep: number;
  readonly innerStep: number;
}

/** How to read a dataset of this shape and these chunks whose first `axes` axes number the rows. */
export function slabLayout(
  shape: readonly number[],
  chunk: readonly number[],
  axes: 1 | 2,
  elementBytes: number,
): SlabLayout {
  const inner = shape[axes - 1] as number;
  const width = shape[axes] ?? 1;
  const innerChunk = Math.max(1, Math.min(inner, chunk[axes - 1] as number));
  const outerChunk = axes === 1 ? 1 : Math.max(1, Math.min(shape[0] as number, chunk[0] as number));
  const grain =
    axes === 1
      ? innerChunk
      : outerChunk === 1 && inner % innerChunk === 0
        ? innerChunk
        : Math.max(1, outerChunk * inner);
  const rowsIn = (bytes: number): number => Math.max(1, Math.floor(bytes / (Math.max(1, width) * elementBytes)));
  const most = rowsIn(MAX_SLAB_BYTES);
  const wanted = rowsIn(SLAB_BYTES);
  let outerStep = Math.min(outerChunk, most);
  let innerStep = Math.max(1, Math.min(innerChunk, Math.floor(most / outerStep)));
  innerStep *= Math.max(1, Math.floor(wanted / (outerStep * innerStep)));
  if (innerStep >= inner) outerStep *= Math.max(1, Math.floor(wanted / (outerStep * inner)));
  return { rank: shape.length, unused: shape.length === axes ? 1 : 0, inner, width, grain, outerStep, innerStep };
}

export interface Slab {
  readonly outer: readonly [number, number];
  readonly inner: readonly [number, number];
}

/**
 * Slabs of the layout that together are the rows [first, first + count). Each ends at a multiple of
 * the steps where it can, so that a chunk is read once.
 */
export function* slabs({ inner, outerStep, innerStep }: SlabLayout, first: number, count: number): Generator<Slab> {
  const end = first + count;
  for (let row = first; row < end; ) {
    const o = Math.floor(row / inner);
    const i = row - o * inner;
    const whole = i === 0 ? Math.floor((end - row) / inner) : 0;
    const oEnd = whole > 1 ? Math.min(o + whole, (Math.floor(o / outerStep) + 1) * outerStep) : o + 1;
    const iEnd = Math.min(inner, i + end - row);
    for (let from = i; from < iEnd; ) {
      const to = Math.min(iEnd, (Math.floor(from / innerStep) + 1) * innerStep);
      yield { outer: [o, oEnd], inner: [from, to] };
      from = to;
    }
    row += (oEnd - o - 1) * inner + iEnd - i;
  }
}

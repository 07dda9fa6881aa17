import { describe, expect, it } from "vitest";
import { slabLayout, slabs } from "./hdf5-slabs.ts";

const MIB = 1 << 20;

/** Rows of every slab, in order, and the chunks of the two row axes that each touches. */
function spelled(
  shape: number[],
  chunk: number[],
  first: number,
  count: number,
): { rows: number[]; chunks: Set<string>[]; most: number } {
  const layout = slabLayout(shape, chunk, 2, 4);
  const rows: number[] = [];
  const chunks: Set<string>[] = [];
  let most = 0;
  for (const { outer, inner } of slabs(layout, first, count)) {
    const touched = new Set<string>();
    for (let o = outer[0]; o < outer[1]; o++) {
      for (let i = inner[0]; i < inner[1]; i++) {
        rows.push(o * layout.inner + i);
        touched.add(`${Math.floor(o / (chunk[0] as number))},${Math.floor(i / (chunk[1] as number))}`);
      }
    }
    chunks.push(touched);
    most = Math.max(most, (outer[1] - outer[0]) * (inner[1] - inner[0]) * layout.width * 4);
  }
  return { rows: rows.sort((a, b) => a - b), chunks, most };
}

describe("slabs", () => {
  // Rows of 64 KiB: 64 of them make the 4 MiB of a slab.
  const width = 16384;
  it.each([
    [[1, 1], 64],
    [[1, 3], 63],
    [[1, 40], 40],
    [[2, 3], 60],
    [[3, 40], 120],
    [[7, 9], 63],
    [[1, 100], 100],
  ])("cut chunks of %j x width into whole chunks, each read once, of at most %i rows", (rowChunk, most) => {
    const shape = [9, 40, width];
    const chunk = [...rowChunk, width];
    for (const [first, count] of [
      [0, 360],
      [0, 1],
      [39, 2],
      [40, 80],
      [17, 300],
      [359, 1],
      [120, 0],
    ] as const) {
      const got = spelled(shape, chunk, first, count);
      expect(got.rows).toEqual(Array.from({ length: count }, (_, i) => first + i));
      expect(got.most).toBeLessThanOrEqual(most * 65536);
    }
    for (const [first, count] of [
      [0, 360],
      [40, 320],
    ] as const) {
      const seen = spelled(shape, chunk, first, count).chunks.flatMap((touched) => [...touched]);
      expect(seen.length).toBe(new Set(seen).size);
    }
  });

  it("stay below 256 MiB where one chunk of every column holds more", () => {
    for (const [sequences, length] of [
      [300, 20],
      [5000, 1],
    ] as const) {
      const { rows, most } = spelled([sequences, length, width], [sequences, length, 1], 0, sequences * length);
      expect(rows).toHaveLength(sequences * length);
      expect(most).toBeLessThanOrEqual(256 * MIB);
      expect(most).toBeGreaterThan(128 * MIB);
    }
  });

  it.each([
    [[9, 40, 8], [1, 40, 8], 2, 40],
    [[9, 40, 8], [1, 20, 4], 2, 20],
    [[9, 40, 8], [1, 30, 8], 2, 40],
    [[9, 40, 8], [4, 10, 8], 2, 160],
    [[9, 40, 8], [64, 64, 8], 2, 360],
    [[100, 8], [7, 8], 1, 7],
    [[9, 40], [2, 5], 2, 80],
  ] as const)("give shape %j in chunks of %j the right grain", (shape, chunk, axes, grain) => {
    expect(slabLayout(shape, chunk, axes, 4).grain).toBe(grain);
  });
});

import { deflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type Filter, fletcher32, parseFilters, unfiltered } from "./hdf5-filters.ts";

const DEFLATE: Filter = { id: 1, values: [6] };
const FLETCHER32: Filter = { id: 3, values: [] };
const shuffle = (size: number): Filter => ({ id: 2, values: [size] });

const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7) % 251);

/** As HDF5 shuffles: first the first byte of every element, then the second. */
function shuffled(data: Uint8Array, size: number): Uint8Array {
  const elements = Math.floor(data.length / size);
  const out = Uint8Array.from(data);
  for (let i = 0; i < elements; i++) for (let j = 0; j < size; j++) out[j * elements + i] = data[i * size + j]!;
  return out;
}

describe("filters", () => {
  it.each([1, 2, 3, 4, 8])("unshuffle elements of %i bytes, and keep what is no element", async (size) => {
    for (const length of [0, 1, size * 5, size * 5 + size - 1]) {
      expect(await unfiltered(shuffled(bytes(length), size), [shuffle(size)], 0, length)).toEqual(bytes(length));
    }
  });

  it("are undone from the last to the first, without those of the mask", async () => {
    const packed = deflateSync(shuffled(bytes(40), 4));
    const filters = [shuffle(4), DEFLATE];
    expect(Buffer.from(await unfiltered(packed, filters, 0, 40))).toEqual(Buffer.from(bytes(40)));
    expect(await unfiltered(bytes(40), filters, 0b11, 40)).toEqual(bytes(40));
    expect(Buffer.from(await unfiltered(deflateSync(bytes(40)), filters, 0b01, 40))).toEqual(Buffer.from(bytes(40)));
  });

  it("compare checksums, as new and as old versions wrote them", async () => {
    for (const length of [7, 40, 5000]) {
      const sum = Buffer.alloc(4);
      sum.writeUInt32LE(fletcher32(bytes(length)));
      const data = Buffer.concat([bytes(length), sum]);
      expect(Buffer.from(await unfiltered(data, [FLETCHER32], 0, length))).toEqual(Buffer.from(bytes(length)));
      const swapped = Buffer.concat([bytes(length), Buffer.of(sum[1]!, sum[0]!, sum[3]!, sum[2]!)]);
      expect(Buffer.from(await unfiltered(swapped, [FLETCHER32], 0, length))).toEqual(Buffer.from(bytes(length)));
      data[3]! ^= 1;
      await expect(unfiltered(data, [FLETCHER32], 0, length)).rejects.toThrow("its checksum is wrong");
    }
    await expect(unfiltered(bytes(3), [FLETCHER32], 0, 3)).rejects.toThrow("its checksum is missing");
  });

  it("give neither more nor fewer bytes than the chunk has", async () => {
    await expect(unfiltered(deflateSync(bytes(41)), [DEFLATE], 0, 36)).rejects.toThrow(
      "it unpacks to more than 40 bytes",
    );
    await expect(unfiltered(deflateSync(bytes(40)), [DEFLATE], 0, 36)).rejects.toThrow("it holds 40 bytes, not 36");
    await expect(unfiltered(deflateSync(bytes(35)), [DEFLATE], 0, 36)).rejects.toThrow("it holds 35 bytes, not 36");
    await expect(unfiltered(bytes(36), [DEFLATE], 0, 36)).rejects.toThrow("no deflate stream (");
    await expect(unfiltered(bytes(35), [], 0, 36)).rejects.toThrow("it holds 35 bytes, not 36");
  });

  it("that are not known are named, and what makes no sense is called damaged", () => {
    const message = (id: number): Buffer => Buffer.of(2, 1, id & 255, id >> 8, ...(id < 256 ? [] : [0, 0]), 0, 0, 0, 0);
    expect(parseFilters(message(2))).toEqual([{ id: 2, values: [] }]);
    expect(parseFilters(message(5))).toContain("(n-bit)");
    expect(parseFilters(message(32000))).toContain("(lzf)");
    expect(parseFilters(message(999))).toContain("(number 999)");
    for (const bad of [
      Buffer.of(),
      Buffer.of(3, 1),
      Buffer.of(2, 33),
      Buffer.of(2, 1, 1),
      Buffer.of(2, 1, 1, 0, 0, 0, 9, 0),
    ]) {
      expect(parseFilters(bad)).toBe("its description of filters is damaged");
    }
  });
});

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Hdf5File, openHdf5 } from "../../src/formats/hdf5-read.ts";
import { resealHdf5 } from "../fuzz/hdf5-checksums.ts";
import { place, refusal } from "./attack.ts";

/** Made by fixtures/hdf5.py. */
const fixture = (name: string): string => `test/attacks/fixtures/hdf5-${name}.h5`;

async function opened<T>(path: string, use: (file: Hdf5File) => T | Promise<T>): Promise<T> {
  const file = await openHdf5(path);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** Reads the first rows of the dataset x. */
function readX(path: string): Promise<void> {
  return opened(path, async (file) => {
    const { rows, width, read } = file.rows("x", 1);
    const count = Math.min(rows, 1024);
    await read(0, count, new Uint8Array(count * width * 4));
  });
}

const MEND = "write the file again or check it with h5py";

describe("an HDF5 file", () => {
  it.each([
    // Sizes and addresses
    ["address-outside", "FILE, byte 920: address 2184 is outside of the file"],
    ["address-near-2-64", "FILE, byte 920: address 18446744073709551552 is outside of the file"],
    ["length-outside", "FILE, byte 920: a length of 4611686018427387904"],
    ["huge-contiguous", "FILE, byte 2048: x of 281474976710656 bytes is stored in 128"],
    ["huge-beyond-2-53", "FILE: x of shape [1099511627776, 1099511627776] is too large"],
    ["dimension-2-63", "FILE, byte 824: a length of 9223372036854775808"],
    [
      "huge-chunk",
      "FILE: x of shape [512, 4] is stored in chunks of [268435456, 4]; write it with chunks of a few MiB",
    ],
    // Chunks that do not hold what they must
    ["bomb", `FILE, byte 4016: chunk [0,0] of x is damaged: it unpacks to more than 524292 bytes; ${MEND}`],
    ["long-chunk", `FILE, byte 4016: chunk [0,0] of x is damaged: it unpacks to more than 132 bytes; ${MEND}`],
    ["short-chunk", `FILE, byte 4016: chunk [0,0] of x is damaged: it holds 16 bytes, not 128; ${MEND}`],
    ["short-plain-chunk", `FILE, byte 4016: chunk [0,0] of x is damaged: it holds 16 bytes, not 128; ${MEND}`],
    [
      "not-deflate",
      `FILE, byte 4016: chunk [0,0] of x is damaged: no deflate stream (incorrect header check); ${MEND}`,
    ],
    [
      "unknown-filter",
      "FILE: x cannot be read: it is compressed with a filter that is not known here (lzf); write it as plain little-endian numbers in this file, uncompressed or with gzip",
    ],
    // Structures that do not end
    ["cyclic-chunk-index", "FILE: the B-tree of the chunks comes back to address 1400"],
    ["cyclic-group", `FILE: opening failed: Maximum call stack size exceeded; ${MEND}`],
    ["attribute-outside", `FILE: opening failed: unable to offset into local heap data block; ${MEND}`],
  ])("is refused: %s", async (name, line) => {
    expect(await refusal(fixture(name), readX)).toBe(line);
  });

  it("that unpacks to far more than it says takes little memory", async () => {
    const before = process.memoryUsage().rss;
    await refusal(fixture("bomb"), readX);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 2 ** 20);
  });

  it("whose groups hold each other is walked once", async () => {
    await opened(fixture("self-groups"), (file) => expect(file.datasets.map(({ name }) => name)).toEqual(["x"]));
    await opened(fixture("group-maze"), (file) => expect(file.datasets).toEqual([]));
  });

  it("that points at other files opens none of them", async () => {
    await opened(fixture("links"), (file) => {
      expect(file.datasets.map(({ name, problem }) => [name, problem])).toEqual([
        ["pieced", "its data is in other files (virtual dataset)"],
        ["stolen", "its data is in another file (external storage)"],
        ["itself", "it is a link to /itself, which is not in the file"],
        ["soft", "it is a link to /hard/../soft, which is not in the file"],
        ["other", "it is a link into another file, hdf5-self-groups.h5, which is not followed"],
        ["passwd", "it is a link into another file, /etc/passwd, which is not followed"],
      ]);
      expect(() => file.rows("stolen", 1)).toThrow(
        /^.*hdf5-links\.h5: stolen cannot be read: its data is in another file/,
      );
    });
  });

  it("of elements that are no numbers says so", async () => {
    await opened(fixture("types"), (file) => {
      expect(file.datasets.map(({ name, problem }) => [name, problem])).toEqual([
        ["pairs", "its elements are of type compound"],
        ["ragged", "it was never written"],
        ["words", "its elements are of type variable-length"],
      ]);
      expect([...file.attributes]).toEqual([]);
    });
  });

  // libhdf5 reads the object header of a group for ever: it goes on in itself.
  it("with which the library does not come back is given up, and the next one is read", async () => {
    const sample = readFileSync("src/formats/fixtures/hdf5-newest.h5");
    const bytes = Buffer.from(sample);
    bytes.writeBigUInt64LE(1089n, 2144);
    resealHdf5(sample, bytes);
    const path = place("cyclic.h5", bytes);
    const lines = await Promise.all([refusal(path, openHdf5), readX(fixture("self-groups")), refusal(path, openHdf5)]);
    const line = `FILE: opening failed: the HDF5 library did not come back; ${MEND}`;
    expect(lines).toEqual([line, undefined, line]);
    await readX(fixture("self-groups"));
  });
});

import { describe, expect, it } from "vitest";
import { END, frameBytes, headerBytes } from "../../test/support/frames.ts";
import { FrameReader } from "./row-frames.ts";

/** The bytes in pieces of `size`. */
async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const HEADER = { width: 3, dtype: "f32", tokens: true, mask: true };
const frame = (rows: number, begin: number) =>
  frameBytes(rows, {
    values: Float32Array.from({ length: 3 * rows }, (_, i) => begin + i),
    tokens: Int32Array.from({ length: rows }, (_, i) => begin - i),
    mask: Uint8Array.from({ length: rows }, (_, i) => i % 2),
  });
const stream = Buffer.concat([headerBytes(HEADER), frame(1, 7), frame(4, 100), END]);

async function failure(bytes: Uint8Array): Promise<string> {
  const reader = new FrameReader(pieces(bytes, 16), "rows");
  try {
    await reader.header();
    while ((await reader.next()) !== undefined);
  } catch (thrown) {
    return (thrown as Error).message;
  }
  return "read";
}

describe("frames of rows", () => {
  it.each([1, 2, 7, 8, 1000])("are read in pieces of %i bytes", async (size) => {
    const reader = new FrameReader(pieces(stream, size), "rows");
    expect(await reader.header()).toMatchObject({
      width: 3,
      dtype: "f32",
      tokens: true,
      mask: true,
      context: undefined,
    });
    for (const [rows, begin] of [
      [1, 7],
      [4, 100],
    ] as const) {
      const { rows: count, values, tokens, mask } = (await reader.next())!;
      expect(count).toBe(rows);
      expect([...new Float32Array(values.slice().buffer)]).toEqual(
        Array.from({ length: 3 * rows }, (_, i) => begin + i),
      );
      expect([...tokens!]).toEqual(Array.from({ length: rows }, (_, i) => begin - i));
      expect([...mask!]).toEqual(Array.from({ length: rows }, (_, i) => i % 2));
    }
    expect(await reader.next()).toBeUndefined();
    expect(await reader.next()).toBeUndefined();
  });

  it("that are cut anywhere are known to be cut", async () => {
    for (let end = 1; end < stream.length; end++) {
      const message = await failure(stream.subarray(0, end));
      expect(message).toMatch(/cut off after byte|begin with SAETTA|size is missing/);
    }
    expect(await failure(stream)).toBe("read");
    expect(await failure(Buffer.alloc(0))).toContain("nothing came");
  });

  it("of another width or size are refused with their place", async () => {
    const header = headerBytes({ width: 3, dtype: "f16" });
    const other = frameBytes(2, { values: new Uint16Array(8) });
    expect(await failure(Buffer.concat([header, frameBytes(1, { values: new Uint16Array(3) }), other]))).toBe(
      `rows: byte ${header.length + 14}: a frame of 2 rows has 16 bytes, but rows of 3 f16 numbers take 12: another width?`,
    );
    expect(await failure(Buffer.concat([header, frameBytes(2 ** 31, { values: new Uint16Array(0) }, 12)]))).toContain(
      "frames have 1 to 16777216 rows",
    );
    const contexts = headerBytes({ width: 3, dtype: "f16", context: 4 });
    expect(await failure(Buffer.concat([contexts, frameBytes(6, { values: new Uint16Array(18) })]))).toContain(
      "no whole contexts of 4",
    );
  });

  it.each([
    [[], "no JSON object"],
    [{ dtype: "f16" }, "width is missing"],
    [{ width: 0, dtype: "f16" }, "header: width must be a whole number from 1"],
    [{ width: 1e9, dtype: "f16" }, "header: width must be"],
    [{ width: 3, dtype: "int8" }, 'header: dtype must be f16, bf16 or f32, but is "int8"'],
    [{ width: 3, dtype: "f16", tokens: 1 }, "header: tokens must be true or false, but is 1"],
    [{ width: 3, dtype: "f16", model: 1 }, "header: model must be a text"],
  ])("with the header %j are refused", async (header, message) => {
    expect(await failure(Buffer.concat([headerBytes(header), END]))).toContain(message);
  });

  it("with a header of 4 GiB are refused before memory is taken", async () => {
    const bytes = Buffer.concat([headerBytes({}).subarray(0, 8), Buffer.from([255, 255, 255, 255]), Buffer.alloc(64)]);
    expect(await failure(bytes)).toContain("above 1 MiB");
  });
});

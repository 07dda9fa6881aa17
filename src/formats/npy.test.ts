import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FormatError, SaettaError } from "../util/errors.ts";
import { type Npy, openNpy } from "./npy.ts";

const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/npy-${name}.npy`, import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-npy-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function opened(path: string): Promise<Npy> {
  const npy = await openNpy(path);
  await npy.handle.close();
  return npy;
}

/** A file of version 1.0 with this header and so many bytes of data. */
async function make(header: string, data: number, { version = [1, 0], length = header.length } = {}): Promise<string> {
  const path = join(folder, "made.npy");
  const wide = version[0] !== 1;
  const prefix = Buffer.from([...Buffer.from("\x93NUMPY", "latin1"), ...version, ...Buffer.alloc(wide ? 4 : 2)]);
  if (wide) prefix.writeUInt32LE(length, 8);
  else prefix.writeUInt16LE(length, 8);
  await writeFile(path, Buffer.concat([prefix, Buffer.from(header, "latin1"), Buffer.alloc(data)]));
  return path;
}

describe("openNpy", () => {
  it.each([
    ["f16", [3, 4, 5]],
    ["f32", [12, 5]],
    ["f64", [12, 5]],
    ["bf16", [3, 4, 5]],
  ] as const)("reads the header of %s as NumPy writes it, in each version", async (dtype, shape) => {
    const npy = await opened(fixture(dtype));
    expect(npy).toMatchObject({ dtype, type: dtype, shape, problem: undefined });
    const bytes = await readFile(fixture(dtype));
    // The first element is -3: with sign, exponent and leading mantissa bits it ends the
    // little-endian element.
    const size = { f16: 2, bf16: 2, f32: 4, f64: 8 }[dtype];
    expect([...bytes.subarray(npy.position, npy.position + size)].slice(-2)).toEqual(
      { f16: [0x00, 0xc2], bf16: [0x40, 0xc0], f32: [0x40, 0xc0], f64: [0x08, 0xc0] }[dtype],
    );
  });

  it.each([
    ["fortran", "its elements are stored column by column (Fortran order)", "save np.ascontiguousarray(array)"],
    ["big", "its elements are big-endian f32", 'save array.astype("<f4")'],
    ["integers", "its elements are of type '<i8', not f16, bf16, f32 or f64", "save an array of floats"],
    ["objects", "it holds Python objects, which only unpickling could read", "save an array of plain floats"],
    ["fields", "its elements have several fields", "save one field as a plain array"],
  ])("says why %s cannot be used, and how to mend it", async (name, what, mend) => {
    const { problem } = await opened(fixture(name));
    expect(problem?.what).toContain(what);
    expect(problem?.mend).toBe(mend);
  });

  it("takes a dict in any order, with quotes of either kind and numbers of Python 2", async () => {
    const path = await make(`{"shape": (2L, 3L), 'fortran_order':False,'descr' : "<f4"} \n`, 24);
    expect(await opened(path)).toMatchObject({ shape: [2, 3], dtype: "f32" });
    expect(await opened(await make("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", 8))).toMatchObject({
      shape: [],
    });
    expect(await opened(await make("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", 24))).toMatchObject({
      shape: [3],
    });
    // One row is the same by rows and by columns.
    expect(
      (await opened(await make("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 3), }", 12))).problem,
    ).toBeUndefined();
  });

  it.each([
    ["", "{ is missing"],
    ["{'descr': '<f4', 'fortran_order': False}", "descr, fortran_order or shape is missing"],
    ["{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", "the name 'descr' is not expected"],
    ["{'descr': '<f4', 'more': 1, 'fortran_order': False, 'shape': (2, 3)}", "the name 'more' is not expected"],
    ["{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}", "True or False is missing"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2)}", "a comma or ) is missing"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3)}", "a length is missing"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3.5)}", "a comma or ) is missing"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (94906267, 94906267)}", "the shape is too large"],
    [
      "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
      "a length is missing or beyond 2^53",
    ],
    ["{'descr': '<f4' 'fortran_order': False, 'shape': (2, 3)}", "a comma or } is missing"],
    ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} + exit()", "something follows the dict"],
    ["{'descr': __import__('os'), 'fortran_order': False, 'shape': (2, 3)}", "a string is missing"],
    [`{'descr': '<f4', 'fortran_order': False, 'shape': (${"1, ".repeat(65)})}`, "more than 64 axes"],
  ])("refuses the header %j", async (header, what) => {
    await expect(openNpy(await make(header, 24))).rejects.toThrow(what);
    await expect(openNpy(await make(header, 24))).rejects.toThrow(FormatError);
  });

  it("refuses lengths that do not fit, and versions and files that it does not know", async () => {
    const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    await expect(openNpy(await make(header, 23))).rejects.toThrow(
      "f32 [2, 3] takes 24 bytes, but 23 follow the header; the file is cut off",
    );
    await expect(openNpy(await make(header, 25))).rejects.toThrow("25 follow the header; save one array a file");
    await expect(openNpy(await make(header, 0, { length: 200 }))).rejects.toThrow(
      "byte 8: states a header of 200 bytes, but the file ends",
    );
    await expect(openNpy(await make(header, 24, { version: [2, 0], length: 0xffff_ffff }))).rejects.toThrow(
      "more than the 65536 allowed",
    );
    await expect(openNpy(await make(header, 24, { version: [4, 0] }))).rejects.toThrow(
      "byte 6: .npy version 4.0 is not known",
    );
    const path = join(folder, "other.npy");
    for (const text of ["", "\x93NUMPY\x01", "some text, long enough"]) {
      await writeFile(path, text, "latin1");
      await expect(openNpy(path)).rejects.toThrow(/too few for an \.npy file|is no \.npy file/);
    }
    await expect(openNpy(join(folder, "none.npy"))).rejects.toThrow("none.npy: no such file; check the path");
    await expect(openNpy(folder)).rejects.toThrow(SaettaError);
  });

  it("meets damage anywhere in a header with a clear error, or what the header then says", async () => {
    const bytes = await readFile(fixture("f32"));
    const path = join(folder, "damaged.npy");
    for (let at = 0; at < 140; at++) {
      for (const value of [0, 39, 40, 57, 255]) {
        const damaged = Buffer.from(bytes);
        damaged[at] = value;
        await writeFile(path, damaged);
        const npy = await opened(path).catch((error: unknown) => error);
        if (npy instanceof Error) expect(npy).toBeInstanceOf(SaettaError);
      }
    }
  });
});

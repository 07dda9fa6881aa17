import { describe, expect, it } from "vitest";
import { openNpySource } from "../../src/data/npy-source.ts";
import { place, refusal } from "./attack.ts";

/** Version 1.0 with this header; `stated`: the length that it states of it. */
function file(header: string, data = 0, stated = header.length): Buffer {
  const prefix = Buffer.from("\x93NUMPY\x01\x00\x00\x00", "latin1");
  prefix.writeUInt16LE(stated, 8);
  return Buffer.concat([prefix, Buffer.from(header, "latin1"), Buffer.alloc(data)]);
}

const dict = (shape: string, descr = "'<f4'", fortran = "False"): string =>
  `{'descr': ${descr}, 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;
const SAVE = "save it again with np.save";
const long = (header: string): Buffer => {
  const bytes = file(header);
  bytes[6] = 2; // four bytes of length
  return Buffer.concat([bytes.subarray(0, 8), Buffer.from("ffffff7f", "hex"), bytes.subarray(10)]);
};

describe("an npy file is refused", () => {
  it.each<[string, Buffer, string]>([
    [
      "that states a longer header than it has",
      file(dict("(2, 2)"), 0, 5000),
      `FILE: byte 8: states a header of 5000 bytes, but the file ends at byte ${10 + dict("(2, 2)").length}; ${SAVE}`,
    ],
    [
      "that states a shorter header than it has",
      file(dict("(2, 2)"), 16, 30),
      `FILE, the header: character 16: a string is missing; ${SAVE}`,
    ],
    [
      "that states a header of 2 GiB",
      long(dict("(2, 2)")),
      `FILE: byte 8: states a header of 2147483647 bytes, more than the 65536 allowed; ${SAVE}`,
    ],
    [
      "with an expression",
      file(dict("(2, 2)", "__import__('os').system('touch pwned')")),
      `FILE, the header: character 9: a string is missing; ${SAVE}`,
    ],
    [
      "with an expression for a length",
      file(dict("(2**70, 2)")),
      `FILE, the header: character 52: a comma or ) is missing; ${SAVE}`,
    ],
    [
      "of objects",
      file(dict("(2, 2)", "'|O'"), 40),
      "FILE: it holds Python objects, which only unpickling could read; save an array of plain floats",
    ],
    [
      "of fields",
      file(dict("(2, 2)", "[('a', '<f4'), ('b', '|O')]"), 16),
      "FILE: its elements have several fields; save one field as a plain array",
    ],
    [
      "with a length beyond 2^53",
      file(dict("(9007199254740993, 2)")),
      `FILE, the header: character 67: a length is missing or beyond 2^53; ${SAVE}`,
    ],
    [
      "with a shape whose product overflows",
      file(dict("(4294967296, 4294967296)")),
      `FILE, the header: character 74: the shape is too large; ${SAVE}`,
    ],
    [
      "with more than 64 axes",
      file(dict(`(${"1, ".repeat(65)})`), 4),
      expect.stringMatching(/^FILE, the header: character \d+: more than 64 axes; /) as string,
    ],
    [
      "with a negative length",
      file(dict("(-2, 2)")),
      `FILE, the header: character 51: a length is missing or beyond 2^53; ${SAVE}`,
    ],
    [
      "stored column by column",
      file(dict("(2, 2)", "'<f4'", "True"), 16),
      "FILE: its elements are stored column by column (Fortran order); save np.ascontiguousarray(array)",
    ],
    [
      "with less data than it says",
      file(dict("(2, 2)"), 12),
      "FILE: f32 [2, 2] takes 16 bytes, but 12 follow the header; the file is cut off: save it again",
    ],
    [
      "with more data than it says",
      file(dict("(2, 2)"), 20),
      "FILE: f32 [2, 2] takes 16 bytes, but 20 follow the header; save one array a file",
    ],
    [
      "with a name twice",
      file("{'descr': '<f4', 'descr': '<f2', 'fortran_order': False, 'shape': (2, 2), }", 16),
      `FILE, the header: character 25: the name 'descr' is not expected; ${SAVE}`,
    ],
    [
      "with text after the dict",
      file(`${dict("(2, 2)")} + evil()`, 16),
      `FILE, the header: character 61: something follows the dict; ${SAVE}`,
    ],
  ])("%s", async (_, bytes, line) => {
    expect(await refusal(place("a.npy", bytes), (path) => openNpySource(path))).toEqual(line);
  });
});

import { appendFile, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bytesOf } from "../util/bytes.ts";
import { FormatError } from "../util/errors.ts";
import { openSafetensors, type SafetensorsPart, writeSafetensors } from "./safetensors.ts";

let folder: string;
let count = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function written(parts: readonly SafetensorsPart[], metadata?: Record<string, string>): Promise<string> {
  const pieces: Uint8Array[] = [];
  const write = async (bytes: Uint8Array) => {
    pieces.push(bytes);
  };
  await writeSafetensors(write, parts, metadata);
  const path = join(folder, `${count++}.safetensors`);
  await writeFile(path, Buffer.concat(pieces));
  return path;
}

/** A file with this header and so many zero bytes after it. */
async function forged(header: string | Uint8Array, data: number, stated?: bigint): Promise<string> {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, stated ?? BigInt(text.byteLength), true);
  const path = join(folder, `${count++}.safetensors`);
  await writeFile(path, Buffer.concat([prefix, text, new Uint8Array(data)]));
  return path;
}

async function refusal(path: string): Promise<string> {
  const thrown = await openSafetensors(path).then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(FormatError);
  const message = (thrown as Error).message;
  expect(message.startsWith(`${path}: `)).toBe(true);
  return message.slice(path.length + 2).replace("; this is no whole safetensors file", "");
}

const floats: SafetensorsPart = {
  name: "a",
  dtype: "F32",
  shape: [2, 2],
  bytes: async () => bytesOf(Float32Array.of(1, -2, 3.5, 4)),
};
const empty: SafetensorsPart = { name: "nothing", dtype: "I64", shape: [0, 7], bytes: async () => new Uint8Array(0) };
const scalar: SafetensorsPart = {
  name: "ü",
  dtype: "F64",
  shape: [],
  bytes: async () => bytesOf(Float64Array.of(Math.PI)),
};

describe("safetensors", () => {
  it("gives back what was written, bit for bit", async () => {
    const file = await openSafetensors(await written([floats, empty, scalar], { by: "saetta" }));
    expect([...file.tensors.keys()].sort()).toEqual(["a", "nothing", "ü"]);
    expect(file.metadata.get("by")).toBe("saetta");
    expect(file.tensors.get("a")).toMatchObject({ dtype: "F32", shape: [2, 2] });
    expect(await file.read("a")).toEqual(await floats.bytes());
    expect(await file.read("ü")).toEqual(await scalar.bytes());
    expect(await file.read("nothing")).toEqual(new Uint8Array(0));
    await expect(file.read("b")).rejects.toThrow('has no tensor "b", only "a", "nothing", "ü"');
    await file.close();
  });

  it("starts the data on a multiple of 8", async () => {
    for (const name of ["n", "na", "nam", "name"]) {
      const file = await openSafetensors(await written([{ ...floats, name }]));
      expect((file.tensors.get(name)?.begin ?? 1) % 8).toBe(0);
      await file.close();
    }
  });

  it("writes exactly the bytes of the format", async () => {
    const text = '{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}';
    const expected = Buffer.concat([
      Uint8Array.of(64, 0, 0, 0, 0, 0, 0, 0),
      Buffer.from(text.padEnd(64)),
      await floats.bytes(),
    ]);
    expect(await readFile(await written([floats]))).toEqual(expected);
  });

  it("refuses bytes that do not make the tensor", async () => {
    await expect(written([{ ...floats, shape: [3] }])).rejects.toThrow('tensor "a" has 16 bytes, not 12');
    await expect(written([floats, floats])).rejects.toThrow('tensor "a" cannot be written twice');
  });

  it("refuses a truncated file wherever it ends, and bytes after the end", async () => {
    const whole = await written([floats, scalar]);
    const size = (await readFile(whole)).byteLength;
    for (const end of [0, 7, 8, 9, size - 40, size - 1]) {
      const path = await written([floats, scalar]);
      await truncate(path, end);
      await refusal(path);
    }
    await appendFile(whole, "x");
    expect(await refusal(whole)).toBe(`the tensors end at byte ${size}, but 1 more bytes follow`);
  });

  const entry = (dtype: string, shape: string, offsets: string) =>
    `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
  it.each<[string, string, number, string]>([
    [
      "a repeated name",
      `{"a":${entry("U8", "[1]", "[0,1]")},"a":${entry("U8", "[1]", "[0,1]")}}`,
      1,
      'the name "a" stands twice in one JSON object',
    ],
    [
      "a name repeated through an escape",
      `{"a":${entry("U8", "[1]", "[0,1]")},"\\u0061":${entry("U8", "[1]", "[0,1]")}}`,
      1,
      'the name "a" stands twice',
    ],
    [
      "an overlap",
      `{"a":${entry("U8", "[4]", "[0,4]")},"b":${entry("U8", "[4]", "[3,7]")}}`,
      7,
      'tensor "b" starts at byte',
    ],
    [
      "a hole",
      `{"a":${entry("U8", "[4]", "[0,4]")},"b":${entry("U8", "[4]", "[5,9]")}}`,
      9,
      'before tensor "b", belong to no tensor',
    ],
    [
      "a length that is not dtype x shape",
      `{"a":${entry("F32", "[4]", "[0,15]")}}`,
      15,
      'tensor "a": F32 [4] takes 16 bytes, but data_offsets span 15',
    ],
    [
      "a size beyond all bounds",
      `{"a":${entry("F32", "[9007199254740991,9007199254740991]", "[0,4]")}}`,
      4,
      "data_offsets span 4",
    ],
    [
      "an offset that is no safe integer",
      `{"a":${entry("U8", "[1]", "[9007199254740993,9007199254740994]")}}`,
      1,
      'tensor "a": data_offsets must be two',
    ],
    [
      "a negative size",
      `{"a":${entry("U8", "[-1]", "[0,1]")}}`,
      1,
      'tensor "a": shape must be a list of whole numbers',
    ],
    ["a reversed span", `{"a":${entry("U8", "[1]", "[1,0]")}}`, 1, 'tensor "a": ends at byte'],
    ["an unknown dtype", `{"a":${entry("F31", "[1]", "[0,1]")}}`, 1, 'tensor "a": unknown dtype "F31"'],
    ["a dtype of the prototype", `{"a":${entry("toString", "[1]", "[0,1]")}}`, 1, 'unknown dtype "toString"'],
    ["metadata that are no strings", '{"__metadata__":{"a":1}}', 0, '"a" must be a string, but is 1'],
    ["a header that is no object", "[]", 0, 'byte 8: the header does not start with "{"'],
    ["broken JSON", "{", 0, "not valid JSON"],
    ["JSON nested without end", `{"a":${"[".repeat(1000)}${"]".repeat(1000)}}`, 0, "JSON nested deeper than 64"],
  ])("refuses %s", async (_, header, data, message) => {
    expect(await refusal(await forged(header, data))).toContain(message);
  });

  it("refuses a header that is not UTF-8, or longer than the file or than allowed", async () => {
    expect(await refusal(await forged(Uint8Array.of(0x7b, 0xff, 0x7d), 0))).toBe("not valid UTF-8");
    expect(await refusal(await forged("{}", 0, 3n))).toBe(
      "byte 0: states a header of 3 bytes, but the file ends at byte 10",
    );
    expect(await refusal(await forged("{}", 0, 1n << 63n))).toContain("more than the 16777216 allowed");
  });

  it("keeps a tensor named __proto__ a tensor", async () => {
    const file = await openSafetensors(await forged(`{"__proto__":${entry("U8", "[1]", "[0,1]")}}`, 1));
    expect([...file.tensors.keys()]).toEqual(["__proto__"]);
    await file.close();
  });
});

import { describe, expect, it } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { place, refusal } from "./attack.ts";

/**
 * A file with this header, which may be no JSON, and so many bytes of data. `stated`: the length
 * that it states of its header.
 */
function file(header: string, data: number, stated: bigint = BigInt(Buffer.byteLength(header))): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(stated);
  return Buffer.concat([prefix, Buffer.from(header), Buffer.alloc(data)]);
}

const tensor = (begin: number, end: number, more = ""): string =>
  `{"dtype":"F32","shape":[${(end - begin) / 4}],"data_offsets":[${begin},${end}]${more}}`;

describe("a safetensors file is refused", () => {
  it.each<[string, Buffer, string]>([
    [
      "with a header of more than 16 MiB",
      file("{}", 0, 16_777_217n),
      "FILE: byte 0: states a header of 16777217 bytes, more than the 16777216 allowed; this is no whole safetensors file",
    ],
    [
      "with a header of 2^64 - 1 bytes",
      file("{}", 0, 2n ** 64n - 1n),
      "FILE: byte 0: states a header of 18446744073709551615 bytes, more than the 16777216 allowed; this is no whole safetensors file",
    ],
    [
      "with a header past its end",
      file("{}", 0, 3n),
      "FILE: byte 0: states a header of 3 bytes, but the file ends at byte 10; this is no whole safetensors file",
    ],
    [
      "of which the header is a list",
      file("[]", 0),
      'FILE: byte 8: the header does not start with "{"; this is no whole safetensors file',
    ],
    [
      "with tensors that overlap",
      file(`{"a":${tensor(0, 8)},"b":${tensor(4, 12)}}`, 12),
      'FILE: tensor "b" starts at byte 120, inside the one before, which ends at 124; this is no whole safetensors file',
    ],
    [
      "with a hole",
      file(`{"a":${tensor(0, 4)},"b":${tensor(8, 12)}}`, 12),
      'FILE: bytes 120 to 124, before tensor "b", belong to no tensor; this is no whole safetensors file',
    ],
    [
      "with bytes at its end",
      file(`{"a":${tensor(0, 4)}}`, 5),
      "FILE: the tensors end at byte 66, but 1 more bytes follow; this is no whole safetensors file",
    ],
    [
      "that is cut",
      file(`{"a":${tensor(0, 8)}}`, 4),
      "FILE: the tensors end at byte 70, but the file at byte 66; this is no whole safetensors file",
    ],
    [
      "with one name twice",
      file(`{"a":${tensor(0, 4)},"a":${tensor(0, 4)}}`, 4),
      'FILE: the name "a" stands twice in one JSON object (character 54)',
    ],
    [
      "with one name twice, spelled otherwise",
      file(`{"a":${tensor(0, 4)},"\\u0061":${tensor(0, 4)}}`, 4),
      'FILE: the name "a" stands twice in one JSON object (character 54)',
    ],
    [
      "with an offset beyond safe integers",
      file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[9007199254740992,9007199254740993]}}', 1),
      'FILE: tensor "a": data_offsets must be two whole numbers',
    ],
    [
      "with a negative offset",
      file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}', 1),
      'FILE: tensor "a": data_offsets must be two whole numbers',
    ],
    [
      "with a shape whose product overflows",
      file('{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', 0),
      'FILE: tensor "a": U8 [4294967296, 4294967296] takes 18446744073709552000 bytes, but data_offsets span 0',
    ],
    [
      "with a shape beyond all numbers",
      file(`{"a":{"dtype":"U8","shape":[${"9007199254740991,".repeat(30)}1],"data_offsets":[0,0]}}`, 0),
      expect.stringMatching(/^FILE: tensor "a": U8 \[9007199254740991, .*\] takes Infinity bytes/) as string,
    ],
    [
      "with a dtype that does not fit its bytes",
      file('{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,4]}}', 4),
      'FILE: tensor "a": F64 [1] takes 8 bytes, but data_offsets span 4',
    ],
    [
      "with a dtype that is a name of all objects",
      file('{"a":{"dtype":"toString","shape":[0],"data_offsets":[0,0]}}', 0),
      'FILE: tensor "a": unknown dtype "toString"',
    ],
    [
      "with a field that nobody knows",
      file(`{"a":${tensor(0, 4, ',"__proto__":{"dtype":"U8"}')}}`, 4),
      'FILE: tensor "a": unknown field "__proto__"',
    ],
    [
      "that ends before it begins",
      file('{"a":{"dtype":"U8","shape":[0],"data_offsets":[4,0]}}', 4),
      'FILE: tensor "a": ends at byte 61, before it starts at 65',
    ],
    [
      "nested without end",
      file(`{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`, 0),
      "FILE: JSON nested deeper than 64 (character 68)",
    ],
    ["with metadata that is no text", file('{"__metadata__":{"a":{}}}', 0), 'FILE: "a" must be a string, but is {}'],
    ["that is no UTF-8", Buffer.concat([file("{", 0, 3n), Buffer.of(0xff, 0x7d)]), "FILE: not valid UTF-8"],
  ])("%s", async (_, bytes, line) => {
    expect(await refusal(place("a.safetensors", bytes), openSafetensors)).toEqual(line);
  });

  it("when a tensor of the name __proto__ is no tensor, and pollutes nothing", async () => {
    const path = place("a.safetensors", file(`{"__proto__":${tensor(0, 4)},"constructor":${tensor(4, 8)}}`, 8));
    const opened = await openSafetensors(path);
    expect([...opened.tensors.keys()]).toEqual(["__proto__", "constructor"]);
    expect((await opened.read("__proto__")).length).toBe(4);
    expect(await refusal(path, () => opened.read("toString"))).toBe(
      'FILE: has no tensor "toString", only "__proto__", "constructor"',
    );
    await opened.close();
    expect(({} as { dtype?: string }).dtype).toBeUndefined();
  });
});

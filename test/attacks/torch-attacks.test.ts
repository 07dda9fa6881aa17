import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openTorch } from "../../src/formats/torch-read.ts";
import { TorchTensor } from "../../src/formats/torch-tensor.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { FormatError, type SaettaError } from "../../src/util/errors.ts";
import { code, int, pickled, tensor, text, torchFile, u32, u64, zip } from "./torch-files.ts";

let folder: string;
let path: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-attacks-"));
  path = join(folder, "a.pt");
});
afterAll(() => rm(folder, { recursive: true }));

/** Opens the file and reads every tensor at its top. */
async function read(bytes: Uint8Array): Promise<Uint8Array[]> {
  await writeFile(path, bytes);
  const file = await openTorch(path);
  try {
    const values = file.root instanceof Map ? [...file.root.values()] : [file.root];
    const out: Uint8Array[] = [];
    for (const value of values) if (value instanceof TorchTensor) out.push(await file.read(value));
    return out;
  } finally {
    await file.close();
  }
}

async function refused(bytes: Uint8Array, message: RegExp): Promise<void> {
  const error = await read(bytes).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(FormatError);
  expect((error as SaettaError).message).toMatch(message);
  expect((error as SaettaError).message).toMatch(/a\.pt: (byte \d+: |the storage)/);
}

const dictOf = (...items: readonly (string | number | Uint8Array)[]) => pickled("}(", ...items, "u");
const good = dictOf(text("x"), tensor([2, 2], [2, 1]));

it("the file that the attacks are made from is read", async () => {
  expect(await read(torchFile(good))).toEqual([new Uint8Array(16)]);
});

describe("archives", () => {
  const [pkl, data] = ["a/data.pkl", "a/data/0"];
  const elements = new Uint8Array(16);
  const wide = (...values: bigint[]) => code(1, 0, values.length * 8, 0, ...values.map(u64));

  it.each<[string, () => Buffer, RegExp]>([
    ["nothing after the first bytes", () => Buffer.from("PK\x03\x04"), /byte 4: the archive has no end record/],
    [
      "a comment that hides the end",
      () =>
        zip([{ name: pkl, data: good }], { comment: Buffer.from("PK\x05\x06 and more than 22 bytes of it") }).subarray(
          0,
          -3,
        ),
      /no end record/,
    ],
    [
      "a directory beyond the file",
      () => zip([{ name: pkl, data: good }], { begin: 0x7fffffff }),
      /the directory, bytes 2147483647 to \d+, passes byte/,
    ],
    [
      "a directory of another length",
      () => zip([{ name: pkl, data: good }], { size: 20 }),
      /entry 0 of 1 is not in the directory/,
    ],
    [
      "more entries than there are",
      () => zip([{ name: pkl, data: good }], { entries: 9 }),
      /entry 1 of 9 is not in the directory/,
    ],
    [
      "a zip64 record that is not there",
      () => zip([{ name: pkl, data: good }], { entries: 0xffff }),
      /refers to a zip64 record, which is not there/,
    ],
    [
      "a zip64 record beyond the file",
      () =>
        zip([{ name: pkl, data: good }], {
          entries: 0xffff,
          before: () => code(u32(0x07064b50), u32(0), u64(2n ** 63n), u32(1)),
        }),
      /the zip64 end record at byte \d+ would pass its locator/,
    ],
    [
      "a zip64 record that is none",
      () =>
        zip([{ name: pkl, data: good }], {
          entries: 0xffff,
          before: () => code(u32(0x07064b50), u32(0), u64(4n), u32(1)),
        }),
      /no zip64 end record/,
    ],
    [
      "a billion entries",
      () =>
        zip([{ name: pkl, data: good }], {
          entries: 0xffff,
          before: (at) =>
            code(
              u32(0x06064b50),
              new Uint8Array(20),
              u64(10n ** 9n),
              u64(10n ** 9n),
              u64(10n),
              u64(0n),
              u32(0x07064b50),
              u32(0),
              u64(BigInt(at)),
              u32(1),
            ),
        }),
      /the archive has 1000000000 entries, too many/,
    ],
    [
      "a name twice",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements },
          { name: data, data: elements },
        ]),
      /entry "a\/data\/0" stands twice/,
    ],
    [
      "an entry inside another",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, header: 0, localName: pkl },
        ]),
      /is not "a\/data\/0", as the directory says|starts inside/,
    ],
    [
      "entries that share their bytes",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements },
          { name: "a/b", data: elements, header: 0, listedOnly: true },
        ]),
      /is not "a\/b"/,
    ],
    [
      "an entry within the bytes of another",
      () => {
        const inner = zip([{ name: "a/b", data: elements }]).subarray(0, 30 + 3 + 16);
        const first = zip([{ name: pkl, data: good }]).indexOf("PK\x01\x02");
        const entries = [
          { name: pkl, data: good },
          { name: "a/c", data: inner },
          { name: "a/b", data: elements, header: first + 30 + 3, listedOnly: true },
        ];
        return zip(entries);
      },
      /entry "a\/b" starts inside "a\/c"/,
    ],
    [
      "an entry that ends beyond the entries",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, size: 1000 },
        ]),
      /ends at byte \d+, beyond the entries/,
    ],
    [
      "an entry that starts beyond them",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, header: 0x7ffffff0 },
        ]),
      /starts at byte 2147483632, beyond the entries/,
    ],
    [
      "an entry that does not start there",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, header: 3 },
        ]),
      /does not start here/,
    ],
    [
      "sizes that differ",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, stored: 15 },
        ]),
      /has 16 bytes but 15 are stored/,
    ],
    [
      "zip64 sizes that are not there",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, size: 0xffffffff },
        ]),
      /lacks its zip64 sizes/,
    ],
    [
      "zip64 sizes beyond the file",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, size: 0xffffffff, extra: wide(2n ** 62n, 2n ** 62n) },
        ]),
      /ends at byte \d+, beyond the entries/,
    ],
    ["an encrypted entry", () => zip([{ name: pkl, data: good, flags: 1 }]), /is encrypted/],
    [
      "a compressed pickle",
      () =>
        zip([
          {
            name: pkl,
            data: deflateRawSync(Buffer.alloc(1 << 20)),
            size: 1 << 20,
            stored: deflateRawSync(Buffer.alloc(1 << 20)).byteLength,
            method: 8,
          },
        ]),
      /is compressed \(method 8\), which torch\.save never does/,
    ],
    [
      "compressed elements",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, method: 8 },
        ]),
      /"a\/data\/0" is compressed/,
    ],
    ["a wrong checksum of the pickle", () => zip([{ name: pkl, data: good, crc: 1 }]), /"a\/data\.pkl" is damaged/],
    [
      "a wrong checksum of elements",
      () =>
        zip([
          { name: pkl, data: good },
          { name: data, data: elements, crc: 1 },
        ]),
      /"a\/data\/0" is damaged/,
    ],
    [
      "arrays of NumPy",
      () => zip([{ name: "x.npy", data: elements }]),
      /byte 0: is a zip archive of arrays, as np\.savez writes them/,
    ],
    [
      "two pickles",
      () =>
        zip([
          { name: pkl, data: good },
          { name: "b/data.pkl", data: good },
        ]),
      /is a zip archive with 2 data\.pkl, not one/,
    ],
    [
      "numbers of the other end",
      () =>
        zip([
          { name: pkl, data: good },
          { name: "a/byteorder", data: Buffer.from("big") },
        ]),
      /numbers are big-endian/,
    ],
    [
      "a storage that is not there",
      () => zip([{ name: pkl, data: good }]),
      /the storage "a\/data\/0" is not in the archive/,
    ],
    [
      "a storage that leaves its folder",
      () => torchFile(dictOf(text("x"), tensor([4], [1], { key: "../../etc/passwd" }))),
      /the storage "a\/data\/\.\.\/\.\.\/etc\/passwd" is not in/,
    ],
    [
      "a storage of another size",
      () => torchFile(good, [{ name: data, data: new Uint8Array(12) }]),
      /storage "a\/data\/0" has 12 bytes, but 4 f32 take 16/,
    ],
  ])("%s", async (_, bytes, message) => {
    await refused(bytes(), message);
  });
});

describe("pickles", () => {
  const call = (module: string, name: string, argument: string) =>
    pickled(`c${module}\n${name}\n`, "(", text(argument), "tR");

  it.each<[string, Buffer, RegExp]>([
    ["a command to run", call("posix", "system", "touch /tmp/owned"), /needs posix\.system, which is not run/],
    ["code to evaluate", call("builtins", "eval", "1"), /needs builtins\.eval, which is not run/],
    ["the same by the old name", call("__builtin__", "eval", "1"), /needs builtins\.eval, which is not run/],
    ["the same from the stack", pickled(text("os"), text("system"), 0x93), /needs os\.system, which is not run/],
    ["a name of what is known, called", pickled("ctorch\nfloat32\n", ")R"), /calls torch\.float32/],
    ["a storage type, called", pickled("ctorch\nFloatStorage\n", ")R"), /calls torch\.FloatStorage/],
    ["a name that looks like one", pickled("ctorch\nfloat32.__class__\n", ")R"), /needs torch\.float32\.__class__/],
    [
      "an instruction that makes an object",
      pickled("ccollections\nOrderedDict\n)", 0x81),
      /instruction 0x81 has no place in weights/,
    ],
    ["an object of an old kind", pickled("(icollections\nOrderedDict\n"), /instruction 0x69 \("i"\) has no place/],
    ["no end", code(0x80, 2, "}"), /the pickle ends 1 bytes too early/],
    ["text beyond the end", pickled("X", u32(0xffffffff)), /the pickle ends \d+ bytes too early/],
    ["text of 2^63 bytes", pickled(0x8d, u64(2n ** 63n)), /the pickle ends \d+ bytes too early/],
    ["text that is not UTF-8", pickled("X", u32(2), 0xff, 0xfe), /text that is not UTF-8/],
    ["a number of 255 bytes", pickled(0x8a, 255, new Uint8Array(255)), /a whole number of 255 bytes is too large/],
    ["an empty stack", pickled(), /takes something that is not there/],
    ["an empty stack below a mark", pickled("(", 0x85), /takes something that is not there/],
    ["no mark", pickled("}u"), /takes all since a mark, but there is none/],
    ["an object that was never stored", pickled("h", 9), /refers to object 9, which there is not/],
    ["a key without a value", pickled("}(", text("a"), "u"), /a key without a value/],
    ["a key that is a dict", pickled("}(", "}", "}", "u"), /a dict whose key is neither text nor a number/],
    ["an item of text", pickled(text("a"), text("b"), text("c"), "s"), /sets an item of something that is no dict/],
    ["an item of a dict, appended", pickled("}", text("c"), "a"), /appends to something that is no list/],
    ["attributes of text", pickled(text("c"), "}b"), /sets attributes of something that is no dict/],
    [
      "an OrderedDict of text",
      pickled("ccollections\nOrderedDict\n", text("c"), 0x85, "R"),
      /an OrderedDict of something that is no list/,
    ],
    ["a call of text", pickled(text("a"), ")R"), /calls something that is no function/],
    ["an external object", pickled(text("a"), "Q"), /an external object that is no storage/],
    [
      "a storage of a type that is not known",
      dictOf(text("x"), tensor([4], [1], { type: "float32" })),
      /a storage of a type that is not read/,
    ],
    [
      "a storage of less than nothing",
      dictOf(text("x"), tensor([4], [1], { elements: -4 })),
      /a storage without key or size/,
    ],
    [
      "a tensor beyond its storage",
      dictOf(text("x"), tensor([5], [1])),
      /a tensor \[5\] whose last element is number 4 of a storage of 4/,
    ],
    [
      "a tensor whose offset is beyond it",
      dictOf(text("x"), tensor([1], [1], { offset: 4 })),
      /whose last element is number 4 of a storage of 4/,
    ],
    [
      "a tensor whose strides are beyond it",
      dictOf(text("x"), tensor([2, 2], [1, 3])),
      /whose last element is number 4/,
    ],
    ["negative sizes", dictOf(text("x"), tensor([-1], [1])), /offset, sizes and strides make no sense/],
    [
      "negative strides",
      dictOf(text("x"), tensor([2], [-1], { offset: 3 })),
      /offset, sizes and strides make no sense/,
    ],
    ["sizes without strides", dictOf(text("x"), tensor([2, 2], [1])), /offset, sizes and strides make no sense/],
    ["sizes beyond 2^53", dictOf(text("x"), tensor([2n ** 62n], [1])), /offset, sizes and strides make no sense/],
    [
      "sizes whose product overflows",
      dictOf(text("x"), tensor([2n ** 50n, 2n ** 50n], [0, 0])),
      /that repeats a storage of 4; save it contiguous/,
    ],
    [
      "a tensor that repeats one number for ever",
      dictOf(text("x"), tensor([10 ** 12], [0])),
      /that repeats a storage of 4/,
    ],
    [
      "17 axes",
      dictOf(
        text("x"),
        tensor(
          Array.from({ length: 17 }, () => 1),
          Array.from({ length: 17 }, () => 1),
        ),
      ),
      /make no sense/,
    ],
    ["elements beyond the archive", dictOf(text("x"), tensor([1], [1], { elements: 2n ** 53n - 1n })), /take \d+/],
    ["a protocol of the future", Buffer.of(0x80, 9, 0x2e), /pickle protocol 9 is not read/],
    [
      "a million lists",
      pickled(Buffer.alloc(1_000_001, "]")),
      /more than 1000000 instructions are too many for weights/,
    ],
  ])("%s", async (_, pickle, message) => {
    await refused(torchFile(pickle), message);
  });

  it("a list in itself, a dict in itself, and lists nested 100,000 deep are no danger", async () => {
    expect(await read(torchFile(pickled("]q", 0, "h", 0, "a")))).toEqual([]);
    expect(await read(torchFile(pickled("}q", 0, text("a"), "h", 0, "s")))).toEqual([]);
    expect(await read(torchFile(pickled(Buffer.alloc(100_000, "]"), Buffer.alloc(99_999, "a"))))).toEqual([]);
  });

  it("a million marks are no danger", async () => {
    expect(await read(torchFile(pickled(Buffer.alloc(999_990, "("), "t")))).toEqual([]);
  });

  it("doubling lists cost nothing, as they are shared", async () => {
    const doublings = Array.from({ length: 60 }, (_, i) => code("q", i, 0x30, "h", i, "h", i, 0x86));
    expect(await read(torchFile(pickled("]", ...doublings)))).toEqual([]);
  });

  it("values that would take for ever to spell out are not spelt out", async () => {
    const doublings = [code("]"), ...Array.from({ length: 60 }, (_, i) => code("q", i, 0x30, "h", i, "h", i, 0x86))];
    const deep = [Buffer.alloc(50_000, "]"), Buffer.alloc(49_999, "a")];
    for (const value of [doublings, deep, [code("]q", 200, "h", 200, "a")]]) {
      const items = [text("pre_bias"), 0x4e, text("latent_bias"), 0x4e, text("encoder.weight"), tensor([2, 2], [2, 1])];
      await writeFile(path, torchFile(dictOf(...items, text("activation"), ...value)));
      await expect(loadSae(path)).rejects.toThrow(
        'a.pt: activation an object is not computed by Saetta (it computes "TopK")',
      );
      const state = [
        text("activation"),
        text("TopK"),
        text("activation_state_dict"),
        "}(",
        text("postact_fn"),
        text("ReLU"),
        text("k"),
        ...value,
        "u",
      ];
      await writeFile(path, torchFile(dictOf(...items, ...state)));
      await expect(loadSae(path)).rejects.toThrow("a.pt: k must be a whole number of at least 1, but is an object");
    }
  });

  it("names of an object's insides are plain keys", async () => {
    await writeFile(path, torchFile(dictOf(text("__proto__"), int(1), text("constructor"), int(2))));
    const file = await openTorch(path);
    expect([...(file.root as Map<string, unknown>)]).toEqual([
      ["__proto__", 1],
      ["constructor", 2],
    ]);
    await file.close();
  });
});

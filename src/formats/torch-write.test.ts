import { execFile } from "node:child_process";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { python } from "../../test/support/python.ts";
import { bytesOf } from "../util/bytes.ts";
import type { TorchValue } from "./torch-pickle.ts";
import { openTorch } from "./torch-read.ts";
import type { TorchTensor } from "./torch-tensor.ts";
import { type TorchDict, writeTorch } from "./torch-write.ts";

const run = promisify(execFile);
const torch = await python("torch");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-torch-"));
});
afterEach(() => rm(folder, { recursive: true }));

const bytes = (view: ArrayBufferView) => () => Promise.resolve(bytesOf(view));
const DICT: TorchDict = {
  matrix: { dtype: "f32", shape: [2, 3], bytes: bytes(Float32Array.of(1, 2, 3, 4, 5, 6.5)) },
  transposed: { dtype: "f32", shape: [3, 2], strides: [1, 3], bytes: bytes(Float32Array.of(1, 2, 3, 4, 5, 6.5)) },
  half: { dtype: "f16", shape: [2], bytes: bytes(Uint16Array.of(0x3c00, 0xc000)) },
  k: { dtype: "i32", shape: [], bytes: bytes(Int32Array.of(7)) },
  many: { dtype: "i64", shape: [2], bytes: bytes(BigInt64Array.of(-1n, 2n ** 40n)) },
  activation: "TopK é",
  state: { k: 32, large: 2 ** 40, negative: -(2 ** 40), small: -5, post: "ReLU" },
};

async function write(dict: TorchDict, largest?: number): Promise<string> {
  const path = join(folder, "a.pt");
  const file = await open(path, "w");
  await writeTorch((piece) => file.writeFile(piece), dict, "a", largest).finally(() => file.close());
  return path;
}

/** Sizes and offsets above `largest`, which is near 4 GiB, go into zip64 records. */
describe.each([
  ["as it is", undefined],
  ["with zip64 records", -1],
])("a file written %s", (_, largest) => {
  it("is read back", async () => {
    const file = await openTorch(await write(DICT, largest));
    const root = file.root as Map<string, TorchValue>;
    const values = async (name: string) => new Float32Array((await file.read(root.get(name) as TorchTensor)).buffer);
    expect([...(await values("matrix"))]).toEqual([1, 2, 3, 4, 5, 6.5]);
    expect([...(await values("transposed"))]).toEqual([1, 4, 2, 5, 3, 6.5]);
    expect(root.get("activation")).toBe("TopK é");
    expect(Object.fromEntries(root.get("state") as Map<string, TorchValue>)).toEqual(DICT.state);
    await file.close();
  });

  it.skipIf(torch !== undefined)(
    `is read by torch.load, without running anything${torch === undefined ? "" : ` (${torch})`}`,
    async () => {
      const path = await write(DICT, largest);
      const code = `
import sys, torch, zipfile
a = torch.load(sys.argv[1], weights_only=True)
assert a["matrix"].tolist() == [[1, 2, 3], [4, 5, 6.5]] and a["matrix"].dtype == torch.float32
assert a["transposed"].tolist() == [[1, 4], [2, 5], [3, 6.5]]
assert a["half"].tolist() == [1, -2] and a["half"].dtype == torch.float16
assert a["k"].item() == 7 and a["k"].shape == () and a["k"].dtype == torch.int32
assert a["many"].tolist() == [-1, 2**40]
assert a["activation"] == "TopK é"
assert a["state"] == {"k": 32, "large": 2**40, "negative": -(2**40), "small": -5, "post": "ReLU"}
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
data = open(sys.argv[1], "rb").read()
assert data.index(torch.tensor([1.0, 2, 3]).numpy().tobytes()) % 64 == 0
print("read")`;
      expect((await run("/usr/bin/python3", ["-c", code, path])).stdout).toBe("read\n");
    },
  );
});

it("refuses to write a storage of another size than its shape", async () => {
  await expect(write({ a: { dtype: "f32", shape: [3], bytes: bytes(Float32Array.of(1)) } })).rejects.toThrow(
    "storage 0 has 4 bytes, not 12",
  );
});

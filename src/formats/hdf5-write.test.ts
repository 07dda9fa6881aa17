import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ready } from "h5wasm/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError } from "../util/errors.ts";
import { encodeFloat16 } from "../util/float16.ts";
import { openHdf5 } from "./hdf5-read.ts";
import { createHdf5, type Hdf5Layout } from "./hdf5-write.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-hdf5-write-"));
});
afterEach(() => rm(folder, { recursive: true }));

const LAYOUT: Hdf5Layout = {
  datasets: [
    { name: "hidden_states", dtype: "f16", shape: [3, 4, 5] },
    { name: "tokens", dtype: "i32", shape: [3, 4] },
    { name: "f32", dtype: "f32", shape: [2100] },
  ],
  attributes: { model: "modèle", empty: "", start_token: -7, size: 2 ** 40, edge: 2 ** 31 },
};
const values = Float32Array.from({ length: 60 }, (_, i) => i / 4 - 3);
const halves = new Uint16Array(60);
encodeFloat16(values, halves);
const tokens = Int32Array.from({ length: 12 }, (_, i) => i * 1000 - 5);
const floats = Float32Array.from({ length: 2100 }, (_, i) => Math.fround(Math.sin(i)));

/** The file of LAYOUT, its activations written in three pieces out of order. */
async function write(path: string): Promise<void> {
  const writer = await createHdf5(path, LAYOUT);
  await writer.write("tokens", 0, bytesOf(tokens));
  await writer.write("hidden_states", 40, bytesOf(halves.subarray(40)));
  await writer.write("hidden_states", 0, bytesOf(halves.subarray(0, 10)));
  await writer.write("f32", 0, bytesOf(floats));
  await writer.write("hidden_states", 10, bytesOf(halves.subarray(10, 40)));
  await writer.close();
}

describe("createHdf5", () => {
  it("is read back by our reader, each dataset at a multiple of 4096 bytes", async () => {
    const path = join(folder, "a.h5");
    await write(path);
    expect(await readdir(folder)).toEqual(["a.h5"]);
    const file = await openHdf5(path);
    expect(Object.fromEntries(file.attributes)).toEqual(LAYOUT.attributes);
    const byName = [...LAYOUT.datasets].sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(file.datasets).toMatchObject(
      byName.map((dataset) => ({ ...dataset, layout: "contiguous", problem: undefined })),
    );
    const content = await readFile(path);
    for (const [name, axes, data] of [
      ["hidden_states", 2, bytesOf(halves)],
      ["tokens", 2, bytesOf(tokens)],
      ["f32", 1, bytesOf(floats)],
    ] as const) {
      const into = new Uint8Array(data.length);
      const rows = file.rows(name, axes);
      await rows.read(0, rows.rows, into);
      expect(into).toEqual(data);
      expect(content.indexOf(data) % 4096).toBe(0);
    }
    await file.close();
  });

  it("is read back by libhdf5", async () => {
    const path = join(folder, "a.h5");
    await write(path);
    const library = await ready;
    const id = library.open(path, library.H5F_ACC_RDONLY, false, -1, -1);
    for (const [name, data] of [
      ["hidden_states", bytesOf(halves)],
      ["tokens", bytesOf(tokens)],
      ["f32", bytesOf(floats)],
    ] as const) {
      const at = library._malloc(data.length);
      expect(library.get_dataset_data(id, name, null, null, null, BigInt(at))).toBe(0);
      expect(library.HEAPU8.slice(at, at + data.length)).toEqual(data);
      library._free(at);
    }
    library.close_file(id);
  });

  const python = ["python3", "/usr/bin/python3"].find(
    (command) => spawnSync(command, ["-c", "import h5py"]).status === 0,
  );
  it.skipIf(python === undefined)(
    `is read back by h5py${python === undefined ? " (skipped: no python3 with h5py here)" : ""}`,
    async () => {
      const path = join(folder, "a.h5");
      await write(path);
      const script = `
import h5py, json, sys
f = h5py.File(sys.argv[1], "r")
text = lambda v: v.decode() if isinstance(v, bytes) else int(v)
print(json.dumps({
  "attributes": {k: text(v) for k, v in f.attrs.items()},
  "datasets": {k: [str(f[k].dtype), list(f[k].shape), f[k].chunks, f[k][()].ravel().tolist()] for k in f},
}))`;
      const { stdout, stderr } = spawnSync(python ?? "", ["-c", script, path], { encoding: "utf8" });
      expect(stderr).toBe("");
      expect(JSON.parse(stdout)).toEqual({
        attributes: LAYOUT.attributes,
        datasets: {
          hidden_states: ["float16", [3, 4, 5], null, [...values]],
          tokens: ["int32", [3, 4], null, [...tokens]],
          f32: ["float32", [2100], null, [...floats]],
        },
      });
    },
  );

  it("does not finish a file that lacks a byte, and discards it", async () => {
    const path = join(folder, "a.h5");
    const writer = await createHdf5(path, { datasets: [{ name: "x", dtype: "f32", shape: [3] }], attributes: {} });
    await writer.write("x", 0, new Uint8Array(4));
    await writer.write("x", 2, new Uint8Array(4));
    await expect(writer.close()).rejects.toThrow(`${path}: x has 8 of its 12 bytes`);
    expect(await readdir(folder)).toHaveLength(1);
    await writer.discard();
    expect(await readdir(folder)).toEqual([]);
  });

  it("refuses bytes outside of a dataset, twice the same, and parts of elements", async () => {
    const writer = await createHdf5(join(folder, "a.h5"), {
      datasets: [{ name: "x", dtype: "f32", shape: [3] }],
      attributes: {},
    });
    await writer.write("x", 1, new Uint8Array(4));
    for (const [at, bytes] of [
      [0, 16],
      [3, 4],
      [-1, 4],
      [0, 3],
      [1, 4],
      [0, 8],
      [0.5, 4],
    ] as const) {
      await expect(writer.write("x", at, new Uint8Array(bytes))).rejects.toThrow(RangeError);
    }
    await expect(writer.write("y", 0, new Uint8Array(4))).rejects.toThrow("no dataset y");
    await writer.discard();
  });

  it("never overwrites a file, and says where it cannot write", async () => {
    const path = join(folder, "a.h5");
    const layout: Hdf5Layout = { datasets: [{ name: "x", dtype: "i32", shape: [1] }], attributes: {} };
    const writer = await createHdf5(path, layout);
    await writer.write("x", 0, new Uint8Array(4));
    await writeFile(path, "mine");
    await expect(writer.close()).rejects.toThrow(`${path}: exists already; remove it or choose another name`);
    await writer.discard();
    await expect(createHdf5(path, layout)).rejects.toThrow("exists already");
    await expect(createHdf5(join(folder, "none", "a.h5"), layout)).rejects.toThrow(SaettaError);
    await mkdir(join(folder, "b.h5"));
    await expect(createHdf5(join(folder, "b.h5"), layout)).rejects.toThrow("exists already");
    expect((await readdir(folder)).sort()).toEqual(["a.h5", "b.h5"]);
    expect(await readFile(path, "utf8")).toBe("mine");
  });
});

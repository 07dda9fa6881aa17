import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { FLOAT, INT64, node, model as onnxModel, tensor, valueInfo } from "../../test/support/onnx.ts";
import { inspect } from "../inspect/inspect.ts";
import { bytesOf } from "../util/bytes.ts";
import { loadModel } from "./load.ts";
import { cutAt } from "./onnx-graph.ts";
import { openSession } from "./session.ts";
import { openSpliced } from "./spliced.ts";
import { listTensors } from "./tensors.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-external-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const TABLE = Float32Array.of(1, 2, 3, 4, 5, 6);
const IDS = Int32Array.of(0, 2, 1);
const DOUBLED = [2, 4, 10, 12, 6, 8];

/**
 * A folder with a model that looks tokens up and doubles them; its table [rows, 2] is in another
 * file, as `entries` say.
 */
function written(name: string, entries: Readonly<Record<string, string>>, rows = 3): string {
  const path = join(folder, name);
  mkdirSync(path);
  const bytes = onnxModel({
    nodes: [node("Gather", ["table", "input_ids"], ["embedded"]), node("Add", ["embedded", "embedded"], ["doubled"])],
    initializers: [tensor("table", [rows, 2], Float32Array.of(), entries)],
    inputs: [valueInfo("input_ids", INT64, ["b", "s"])],
    outputs: [valueInfo("doubled", FLOAT, ["b", "s", 2])],
  });
  writeFileSync(join(path, "model.onnx"), bytes);
  return path;
}

async function doubled(path: string): Promise<number[]> {
  const { graph, path: file } = await loadModel(path);
  const session = await openSession(cutAt(graph, ["doubled"]), file, 1);
  const { values } = (await session.run(IDS, 1, ["doubled"])).get("doubled")!;
  await session.close();
  return [...values];
}

describe("a model with its weights in another file", () => {
  it("computes what it does with them inside, in a session, in two halves and where its tensors are listed", async () => {
    const path = written("plain", { location: "model.onnx_data", offset: "8", length: "24" });
    const data = join(path, "model.onnx_data");
    writeFileSync(data, Buffer.concat([Buffer.alloc(8), bytesOf(TABLE), Buffer.alloc(3)]));
    expect(await doubled(path)).toEqual(DOUBLED);
    const model = await loadModel(path);
    expect((await listTensors(model.graph)).map(({ name }) => name)).toEqual(["embedded", "doubled"]);
    expect(model.structure).toMatchObject({ tokens: 3, width: 2 });
    const spliced = await openSpliced(model, "embedded", 1, IDS);
    expect([...(await spliced.spliced(IDS, 1, TABLE))]).toEqual([...TABLE].map((value) => 2 * value));
    await spliced.close();
    expect(await inspect(join(path, "model.onnx"))).toMatchObject({ kind: "ONNX model", facts: { parameters: 6 } });
    // The weights are part of what the model is.
    writeFileSync(data, Buffer.concat([Buffer.alloc(8), bytesOf(TABLE.map((value) => value + 1))]));
    const { sha256 } = await loadModel(path);
    expect(sha256).not.toBe(model.sha256);
    truncateSync(data, 31);
    const words = "model.onnx_data: the weights of 'table' are bytes 8 to 32, but it has 31; copy it again, whole";
    await expect(loadModel(path)).rejects.toThrow(words);
    await expect(inspect(join(path, "model.onnx"))).rejects.toThrow(words);
  });

  it("may have them in a folder below its own, from the start of the file on", async () => {
    const path = written("below", { location: "weights/table.bin" });
    mkdirSync(join(path, "weights"));
    writeFileSync(join(path, "weights", "table.bin"), bytesOf(TABLE));
    expect(await doubled(path)).toEqual(DOUBLED);
  });

  it("may have them in a cache of Hugging Face, where files of a snapshot are links to blobs of its repository", async () => {
    const repository = join(folder, "hub", "models--org--tiny");
    const snapshot = join(repository, "snapshots", "0a1b");
    const blobs = join(repository, "blobs");
    for (const path of [snapshot, blobs, join(folder, "hub", "models--org--other", "blobs")])
      mkdirSync(path, { recursive: true });
    renameSync(join(written("cached", { location: "model.onnx_data" }), "model.onnx"), join(blobs, "c0"));
    writeFileSync(join(blobs, "c1"), bytesOf(TABLE));
    const data = join(snapshot, "model.onnx_data");
    const link = (target: string, path: string) => {
      rmSync(path, { force: true, recursive: true });
      symlinkSync(target, path);
    };
    link("../../blobs/c0", join(snapshot, "model.onnx"));
    link("../../blobs/c1", data);
    expect(await doubled(snapshot)).toEqual(DOUBLED);
    expect(await inspect(join(snapshot, "model.onnx"))).toMatchObject({ kind: "ONNX model" });
    const whole = await loadModel(snapshot);
    const spliced = await openSpliced(whole, "embedded", 1, IDS);
    await spliced.close();
    // A folder of the snapshot, and a link to the snapshot itself.
    mkdirSync(join(snapshot, "onnx"));
    link("../../../blobs/c0", join(snapshot, "onnx", "model.onnx"));
    link("../../../blobs/c1", join(snapshot, "onnx", "model.onnx_data"));
    expect(await doubled(join(snapshot, "onnx"))).toEqual(DOUBLED);
    link(snapshot, join(folder, "way"));
    expect(await doubled(join(folder, "way"))).toEqual(DOUBLED);
    // Anything else stays refused: another repository, the cache's other folders, and files outside
    // it.
    writeFileSync(join(folder, "hub", "models--org--other", "blobs", "c1"), bytesOf(TABLE));
    writeFileSync(join(repository, "c1"), bytesOf(TABLE));
    writeFileSync(join(folder, "c1"), bytesOf(TABLE));
    const outside = ["../../../models--org--other/blobs/c1", "../../c1", join(folder, "c1")];
    for (const target of outside) {
      link(target, data);
      await expect(loadModel(snapshot)).rejects.toThrow(
        /model\.onnx_data: a link to a file outside the model's folder/,
      );
    }
    // Blobs next to a folder that is no snapshot of a repository, and a folder that is a link out
    // of the model's.
    for (const name of ["plain-models", "models--org--x"]) {
      const own = join(folder, name, "revisions", "0a1b");
      mkdirSync(join(folder, name, "blobs"), { recursive: true });
      mkdirSync(own, { recursive: true });
      writeFileSync(join(folder, name, "blobs", "c1"), bytesOf(TABLE));
      copyFileSync(join(blobs, "c0"), join(own, "model.onnx"));
      link("../../blobs/c1", join(own, "model.onnx_data"));
      await expect(loadModel(own)).rejects.toThrow(/outside the model's folder/);
    }
    renameSync(join(written("below-cache", { location: "weights/c1" }), "model.onnx"), join(blobs, "c2"));
    link("../../blobs/c2", join(snapshot, "model.onnx"));
    link("../../blobs", join(snapshot, "weights"));
    await expect(loadModel(snapshot)).rejects.toThrow(/outside the model's folder/);
  });

  it("may have more than 4 GiB of them", async ({ skip }) => {
    const offset = 5 * 2 ** 30 + 4096;
    const path = written("large", { location: "model.onnx.data", offset: String(offset), length: "24" });
    const file = await open(join(path, "model.onnx.data"), "w");
    // A sparse file takes no room where the file system knows them.
    const made = await file.truncate(offset).then(
      () => file.write(bytesOf(TABLE), 0, 24, offset),
      () => undefined,
    );
    await file.close();
    if (made === undefined) skip("the file system takes no file of 5 GiB");
    expect(await doubled(path)).toEqual(DOUBLED);
  });
});

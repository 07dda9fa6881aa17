import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saveCheckpoint } from "../checkpoint/save.ts";
import { COUNTERS, type Params, paramShapes, type Shape } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { createHdf5 } from "../formats/hdf5-write.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import { inspect } from "./inspect.ts";
import { inspectionText } from "./inspect-print.ts";

const EXAMPLE = join(import.meta.dirname, "../../examples/brown-gpt");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-inspect-"));
});
afterAll(() => rm(folder, { recursive: true }));

const text = async (path: string) => inspectionText(await inspect(path)).split("\n");

describe("inspect", () => {
  it("shows the datasets and attributes of an HDF5 file", async () => {
    const path = join(folder, "acts.h5");
    const file = await createHdf5(path, {
      datasets: [{ name: "hidden_states", dtype: "f16", shape: [2, 3, 4] }],
      attributes: { model: "m.onnx", start_token: 0 },
    });
    await file.write("hidden_states", 0, new Uint8Array(48));
    await file.close();
    expect((await text(path)).slice(1)).toEqual([
      "  datasets",
      "    hidden_states  [2, 3, 4]  f16  contiguous",
      "  attributes",
      "    model        m.onnx",
      "    start_token  0",
    ]);
  });

  it("shows the tensors of a safetensors file, whatever its name", async () => {
    for (const name of ["a.safetensors", "a.bin"]) {
      const path = join(folder, name);
      const pieces: Uint8Array[] = [];
      const bytes = async () => new Uint8Array(24);
      await writeSafetensors(async (piece) => void pieces.push(piece), [{ name: "w", dtype: "F32", shape: [2, 3], bytes }], { by: "me" });
      await writeFile(path, Buffer.concat(pieces));
      expect(await text(path)).toEqual([
        `${path}: safetensors file, ${Buffer.concat(pieces).length} B`,
        "  tensors",
        "    w  F32  [2, 3]  24 B",
        "  metadata",
        "    by  me",
      ]);
    }
  });

  it("shows a model and its tokenizer", async () => {
    expect(await inspect(join(EXAMPLE, "model.onnx"))).toMatchObject({
      kind: "ONNX model",
      facts: { inputs: ["input_ids"], outputs: ["logits"], nodes: 618, parameters: 6_901_760 },
    });
    expect(await text(join(EXAMPLE, "model.onnx"))).toContain("  inputs      input_ids");
    expect(await inspect(join(EXAMPLE, "tokenizer.json"))).toMatchObject({
      kind: "tokenizer",
      facts: { model: "BPE", vocabulary: 8192, start_token: 0, start_token_text: "<|endoftext|>" },
    });
  });

  it("shows a checkpoint, its cfg.json and its run", async () => {
    const run = join(folder, "run");
    await mkdir(run);
    await writeFile(join(run, "config.json"), '{"k": 2, "data": ["acts.h5"]}');
    const engine = createReferenceEngine();
    const shape: Shape = { d: 3, n: 5, k: 2, auxk: 1 };
    const shapes = paramShapes(shape);
    const params = (): Params => ({
      encoder: engine.alloc("f64", shapes.encoder),
      latentBias: engine.alloc("f64", shapes.latentBias),
      decoder: engine.alloc("f64", shapes.decoder),
      preBias: engine.alloc("f64", shapes.preBias),
    });
    const rest = { age: engine.alloc("u32", [5]), counters: engine.alloc("f64", [COUNTERS.length]) };
    const state = { params: params(), m: params(), v: params(), ...rest };
    const saetta = { version: "0.1.0", engine: "reference", normalization: "none" } as const;
    const path = await saveCheckpoint(run, { engine, state, step: 12, description: { shape, saetta }, progress: {} });
    const found = await inspect(path);
    expect(found).toMatchObject({ kind: "checkpoint, whole", facts: { step: 12, inputs: 3, latents: 5, k: 2, average: false } });
    expect(inspectionText(found)).toContain("    encoder.weight  F64  [5, 3]  120 B");
    expect(await inspect(join(path, "cfg.json"))).toMatchObject({ facts: { latents: 5, engine: "reference" } });
    expect(await text(run)).toEqual([
      `${run}: run folder`,
      "  config",
      "    k     2",
      '    data  ["acts.h5"]',
      "  checkpoints",
      "    12  complete",
    ]);
    await writeFile(join(path, "state.json"), "{}");
    expect((await text(run)).at(-1)).toContain("state.json: damaged: has 2 bytes");
    await expect(inspect(path)).rejects.toThrow("state.json: damaged: has 2 bytes");
  });

  it("refuses what it does not know, in one line", async () => {
    const path = join(folder, "thing");
    await expect(inspect(path)).rejects.toThrow(`${path}: there is no such file or folder`);
    await writeFile(path, "");
    await expect(inspect(path)).rejects.toThrow(`${path}: the file is empty; it reads HDF5, safetensors`);
    await writeFile(path, "some words that are nothing");
    await expect(inspect(path)).rejects.toThrow(`${path}: is of no kind that Saetta knows; it reads HDF5, safetensors`);
    await writeFile(path, "{ broken");
    await expect(inspect(path)).rejects.toThrow(`${path}: not valid JSON`);
    await expect(inspect(folder)).rejects.toThrow(`${folder}: is no run folder (config.json, metrics.jsonl), and no autoencoder`);
    await writeFile(join(folder, "empty.h5"), "");
    await expect(inspect(join(folder, "empty.h5"))).rejects.toThrow(/empty\.h5: /);
  });
});

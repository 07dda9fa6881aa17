import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { described, paramShapes, type TopkSizes } from "../../test/topk.ts";
import { saveCheckpoint } from "../checkpoint/save.ts";
import { COUNTERS, type Params } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { createHdf5 } from "../formats/hdf5-write.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import { Rng } from "../util/rng.ts";
import { inspect } from "./inspect.ts";
import type { Facts } from "./inspection.ts";
import { inspectionText } from "./print.ts";

const EXAMPLE = join(import.meta.dirname, "../../examples/brown-gpt");

const FIXTURES = join(import.meta.dirname, "../formats/fixtures");

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
    expect((await text(path)).slice(1, 6)).toEqual([
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
      await writeSafetensors(
        async (piece) => void pieces.push(piece),
        [{ name: "w", dtype: "F32", shape: [6], bytes }],
        { by: "me" },
      );
      await writeFile(path, Buffer.concat(pieces));
      expect(await text(path)).toEqual([
        `${path}: safetensors file, ${Buffer.concat(pieces).length} B`,
        "  tensors",
        "    w  F32  [6]  24 B",
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
    const shape: TopkSizes = { d: 3, n: 5, k: 2, auxk: 1 };
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
    const path = await saveCheckpoint(run, {
      engine,
      state,
      step: 12,
      description: { ...described(shape), saetta },
      progress: {},
    });
    const found = await inspect(path);
    expect(found).toMatchObject({
      kind: "checkpoint, whole",
      facts: { step: 12, inputs: 3, latents: 5, k: 2, average: false },
    });
    expect(inspectionText(found)).toContain("    encoder.weight  F64  [5, 3]  120 B");
    expect(await inspect(join(path, "cfg.json"))).toMatchObject({ facts: { latents: 5, engine: "reference" } });
    expect(await text(run)).toEqual([
      `${run}: run folder`,
      "  checkpoints",
      "    12  complete",
      "  config",
      "    k     2",
      "    data  acts.h5",
    ]);
    const line = { step: 12, l0: 2, holdout_l0: 2.25, prefix_fvu: [0.5, 0.25], threshold_quantiles: [0, 1], odd: [1] };
    await writeFile(join(run, "metrics.jsonl"), `${JSON.stringify({ ...line, sparsity_coef: "?" })}\n`);
    expect((await text(run)).slice(0, 6)).toEqual([
      `${run}: run folder`,
      "  step                 12",
      "  prefix_fvu           [0.5, 0.25]",
      "  l0                   2",
      "  holdout_l0           2.25",
      "  threshold_quantiles  [0, 1]",
    ]);
    const { facts } = await inspect(run);
    expect(facts.config, "values, not text of JSON").toEqual({ data: ["acts.h5"], k: 2 });
    await writeFile(join(path, "state.json"), "{}");
    expect((await text(run)).join("\n")).toContain("state.json: damaged: has 2 bytes");
    await expect(inspect(path)).rejects.toThrow("state.json: damaged: has 2 bytes");
  });

  it("refuses what it does not know, in one line", async () => {
    const path = join(folder, "thing");
    await expect(inspect(path)).rejects.toThrow(`${path}: there is no such file or folder`);
    await writeFile(path, "");
    await expect(inspect(path)).rejects.toThrow(`${path}: the file is empty; it reads HDF5, npy, safetensors`);
    await writeFile(path, "some words that are nothing");
    await expect(inspect(path)).rejects.toThrow(
      `${path}: is of no kind that Saetta knows; it reads HDF5, npy, safetensors`,
    );
    await writeFile(path, "{ broken");
    await expect(inspect(path)).rejects.toThrow(`${path}: not valid JSON`);
    const empty = join(folder, "empty");
    await mkdir(empty);
    await expect(inspect(empty)).rejects.toThrow(
      `${empty}: is no run folder (config.json, metrics.jsonl), no autoencoder (cfg.json and`,
    );
    await writeFile(join(folder, "empty.h5"), "");
    await expect(inspect(join(folder, "empty.h5"))).rejects.toThrow(/empty\.h5: /);
  });

  it("says of activations what training will meet, with a word of advice", async () => {
    // 40 sequences of 8: rows with an outlier in variance (5) and one in mean (7), start tokens of
    // norm 80, one row spoilt and one repeated.
    const rng = new Rng(1, 1);
    const [rows, d] = [320, 64];
    const values = Float32Array.from(
      { length: rows * d },
      (_, at) => rng.normal() * (at % d === 5 ? 12 : 1) + (at % d === 7 ? 30 : 0),
    );
    for (let row = 0; row < rows; row += 8) for (let i = 0; i < d; i++) values[row * d + i] = 10;
    values[100 * d + 3] = Number.NaN;
    values.copyWithin(201 * d, 202 * d, 203 * d);
    const tokens = Int32Array.from({ length: rows }, (_, row) => row % 8);
    const path = await writeActivations(join(folder, "preflight.h5"), values, [40, 8, d], { tokens });
    const { facts, advice = [] } = await inspect(path);
    expect(facts.activations).toMatchObject({
      rows,
      width: d,
      dtype: "f32",
      sequence: 8,
      sampled_rows: rows,
      non_finite_rows: 1,
    });
    const found = facts.activations as {
      duplicate_share: number;
      outlier_dimensions: { dimension: number }[];
      start_tokens: Facts;
    };
    expect(found.duplicate_share).toBeCloseTo(1 / 279, 5);
    expect(found.outlier_dimensions.map(({ dimension }) => dimension)).toEqual([5, 7]);
    expect(found.start_tokens).toMatchObject({ rows: 40, norms: { mean: 80, median: 80, p99: 80, max: 80 } });
    expect(advice[0]).toBe(
      `1 of 320 sampled rows hold NaN or Inf, first ${path}, row 100 (sequence 12, position 4): training stops there unless --non-finite skip is given`,
    );
    expect(advice[1]).toMatch(/^start tokens have 2\.\d\d x the norm of the others: they are left out by default$/);
    expect(advice.at(-1)).toMatch(/^2 dimensions are outliers \(.*\); 5 has \d\d % of the variance, /);
    expect((await text(path)).at(-1)).toBe(`  note: ${advice.at(-1)}`);
  });

  it("looks at the shards of a folder or of a pattern together, and says why a file cannot be trained on", async () => {
    const shards = join(folder, "shards");
    await mkdir(shards);
    await copyFile(join(FIXTURES, "npy-f16.npy"), join(shards, "s-2.npy"));
    // The same rows but one element: a file with the same bytes would be read once.
    const bytes = await readFile(join(FIXTURES, "npy-f16.npy"));
    bytes.writeUInt16LE(0x3c00, bytes.length - 2);
    await writeFile(join(shards, "s-10.npy"), bytes);
    for (const path of [shards, join(shards, "s-*.npy")]) {
      const found = await inspect(path);
      expect(found).toMatchObject({
        kind: "activations in 2 files",
        facts: { activations: { rows: 24, width: 5, dtype: "f16", duplicate_share: expect.closeTo(11 / 24, 5) } },
      });
      expect(found.facts.files).toEqual([join(shards, "s-2.npy"), join(shards, "s-10.npy")]);
      expect(found.advice?.at(-1)).toBe("46 % of the sampled rows repeat another one: check how the file was made");
    }
    const fortran = await inspect(join(FIXTURES, "npy-fortran.npy"));
    expect(fortran).toMatchObject({ kind: "npy file", facts: { shape: [12, 5], dtype: "f32" } });
    expect(fortran.advice?.[0]).toMatch(/^cannot be trained on: .*Fortran order/);
    const filters = join(FIXTURES, "hdf5-filters-old.h5");
    expect((await inspect(filters)).advice?.[0]).toContain("name one with --dataset");
    expect((await inspect(filters, { dataset: "gzip" })).facts.activations).toMatchObject({ rows: 12, width: 5 });
    await expect(inspect(filters, { dataset: "lzf" })).rejects.toThrow("(lzf)");
  });
});

/**
 * Transcoders, with and without a skip connection: what PyTorch wrote by the rules of SAELens,
 * sparsify and circuit-tracer, what Saetta writes for them, and what is refused.
 */

import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pairSources } from "../../src/data/pair.ts";
import { fromRows } from "../../src/data/rows-source.ts";
import { createCpuEngine } from "../../src/engine/cpu/index.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { type ExportOptions, exportSae, importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { inspect } from "../../src/inspect/inspect.ts";
import type { ArchitectureSpec } from "../../src/sae/architectures/index.ts";
import type { SaeDescription } from "../../src/sae/description.ts";
import { transcoderDims } from "../../src/sae/dims.ts";
import { train } from "../../src/train/train.ts";
import { PYTHON, python } from "../support/python.ts";
import { answer, d, differences, expected, FIXTURES, k, n, ROWS, ROWS_FILE, TRANSCODERS } from "./fixtures.ts";
import { bitsAt, stored } from "./stored.ts";

const torch = await python("torch");

let folder: string;
let engine: Engine;
let f32: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-transcoders-"));
  engine = createReferenceEngine();
  f32 = await createCpuEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await f32[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

let made = 0;
const fresh = () => join(folder, `out-${made++}`);

async function offOf(path: string, fixture: string, at = FIXTURES): Promise<number> {
  await using sae = await loadSae(path, { engine });
  const off = differences(await answer(sae), expected(fixture, at));
  return Math.max(off.latents, off.output);
}

describe("a transcoder that PyTorch wrote", () => {
  it.each(
    TRANSCODERS,
  )("%s gives the latents and outputs of its own rules, read and imported", async (name, at, dOut, skip) => {
    const path = join(FIXTURES, at);
    expect(await offOf(path, name)).toBeLessThan(1e-5);
    const out = fresh();
    const { verified, description } = await importSae(path, { out, verify: true });
    expect(description.dims).toEqual(transcoderDims(d, n, dOut));
    expect(description.skip ?? false).toBe(skip);
    expect(verified).toMatchObject({ rows: 64 });
    expect(await offOf(out, name)).toBeLessThan(1e-5);
    expect(await bitsAt(out)).toEqual(await bitsAt(path));
  });

  it("says what it is, and which hooks it reads and writes", async () => {
    expect(await inspect(join(FIXTURES, "saelens-jumprelu-skip-transcoder"))).toMatchObject({
      kind: "autoencoder of saelens",
      facts: { activation: "jumprelu", inputs: d, outputs: 7, skip: true, target_tensor: "blocks.8.hook_mlp_out" },
    });
    expect(await inspect(join(FIXTURES, "circuit-tracer-topk"))).toMatchObject({
      kind: "autoencoder of circuit_tracer",
      facts: {
        activation: "topk",
        k,
        model: "google/gemma-2-2b",
        tensor: "mlp.hook_in",
        target_tensor: "hook_mlp_out",
      },
      advice: [expect.stringContaining("keeps latents below 0")],
    });
    for (const file of ["config.yaml", "layer_3.safetensors"])
      expect(await offOf(join(FIXTURES, "circuit-tracer-relu", file), "circuit-tracer-relu")).toBeLessThan(1e-5);
  });

  it.each([
    "saelens-jumprelu-skip-transcoder",
    "circuit-tracer-topk",
  ])("%s is what a run can start from", async (name) => {
    const { output } = expected(name);
    const count = ROWS.length / d;
    const pair = () =>
      pairSources(
        fromRows(() => [ROWS], { dIn: d, rows: count }),
        fromRows(() => [output], { dIn: output.length / count, rows: count }),
      );
    const options = { engine: "reference", batch: 8, epochs: 1, lr: 1e-12, holdout: 0, out: false } as const;
    await using run = await train(await pair(), { ...options, init: join(FIXTURES, name) });
    const { sae } = await run.finished;
    expect(differences(await answer(sae), expected(name)).latents).toBeLessThan(1e-5);
    if (sae.description.skip === true)
      await expect(train(await pair(), { ...options, init: join(FIXTURES, name), skip: false })).rejects.toThrow(
        "has a skip connection, which --skip trains; leave out --no-skip",
      );
  });

  it("is no start for an autoencoder", async () => {
    const rows = fromRows(() => [ROWS], { dIn: d, rows: ROWS.length / d });
    const init = join(FIXTURES, "circuit-tracer-topk");
    await expect(train(rows, { init, engine: "reference", out: false })).rejects.toThrow(
      `${init}: is a transcoder, and the data has no targets; name them with --target`,
    );
  });
});

const JUMPRELU: ArchitectureSpec = { architecture: "jumprelu", targetL0: 0 };
const TOPK: ArchitectureSpec = { architecture: "topk", k: 4, auxk: 0 };
const BATCHTOPK: ArchitectureSpec = { architecture: "batchtopk", k: 4, auxk: 0 };

function description(spec: ArchitectureSpec, dOut: number, skip: boolean): SaeDescription {
  const hooks = { model: "gpt2", tensor: "blocks.6.hook_resid_mid", targetTensor: "blocks.6.hook_mlp_out" };
  const saetta = { version: "0.1.0", engine: "cpu", normalization: "none", ...hooks } as const;
  return { dims: transcoderDims(d, n, dOut), ...(skip ? { skip } : {}), spec, saetta };
}

/** Where each can be written. */
const WRITTEN: readonly (readonly [
  name: string,
  format: ExportOptions["format"],
  spec: ArchitectureSpec,
  dOut: number,
  skip: boolean,
])[] = [
  ["jumprelu", "saelens", JUMPRELU, 5, false],
  ["skip jumprelu", "saelens", JUMPRELU, 5, true],
  ["batchtopk", "saelens", BATCHTOPK, 20, true],
  ["topk", "sparsify", TOPK, d, false],
  ["skip topk", "sparsify", TOPK, d, true],
  ["topk", "circuit_tracer", TOPK, d, true],
  ["batchtopk", "circuit_tracer", BATCHTOPK, d, true],
];

describe("out and in again", () => {
  it.each(WRITTEN)("%s through %s: no bit of f32 weights changes", async (_, format, spec, dOut, skip) => {
    const run = await stored(f32, description(spec, dOut, skip));
    const [out, back] = [fresh(), fresh()];
    const exported = await exportSae(run, { format, out, verify: true });
    expect(exported.verified).toMatchObject({ rows: 64 });
    const imported = await importSae(out, { out: back, verify: true });
    expect(imported.description.dims).toEqual(transcoderDims(d, n, dOut));
    const { cut, sparsity: _s, ...bits } = await bitsAt(run);
    const again = await bitsAt(back);
    expect(again).toMatchObject(bits);
    if (cut !== undefined) expect(again.threshold).toBe(cut.repeat(n));
    expect(imported.description.saetta).toMatchObject({ model: "gpt2" });
  });

  it("circuit-tracer's folder has config.yaml and the file of the layer", async () => {
    const run = await stored(f32, description(TOPK, d, false));
    const out = fresh();
    const { files, notes } = await exportSae(run, { format: "circuit_tracer", out });
    expect(files).toEqual(["config.yaml", "layer_6.safetensors"]);
    expect(notes[0]).toContain("put the files of the other layers into the folder");
    expect(await readFile(join(out, "config.yaml"), "utf8")).toBe(
      "model_kind: transcoder_set\nmodel_name: gpt2\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\nscan: gpt2\nactivation: topk\nk: 4\n",
    );
    const other = fresh();
    await exportSae(run, { format: "circuit_tracer", out: other, layer: 0, hook: "mlp.hook_in", model: "a/b" });
    expect(await readFile(join(other, "config.yaml"), "utf8")).toContain(
      'model_name: "a/b"\nfeature_input_hook: "mlp.hook_in"\n',
    );
    await cp(join(other, "layer_0.safetensors"), join(out, "layer_0.safetensors"));
    await expect(loadSae(out, { engine })).rejects.toThrow(
      `${out}: has transcoders of 2 layers (layer_0.safetensors, layer_6.safetensors); name one of them: `,
    );
    await (await loadSae(join(out, "layer_6.safetensors"), { engine })).close();
  });

  it("ReLU goes back to SAELens' transcoder, and thresholds below 0 are 0 where they must be", async () => {
    const out = fresh();
    await exportSae(join(FIXTURES, "saelens-skip-transcoder"), { format: "saelens", out, verify: true });
    expect(JSON.parse(await readFile(join(out, "cfg.json"), "utf8"))).toMatchObject({
      ...{ architecture: "skip_transcoder", d_in: d, d_out: 7, apply_b_dec_to_input: false },
      metadata: { hook_name_out: "blocks.8.hook_mlp_out" },
    });
    expect(await offOf(out, "saelens-skip-transcoder")).toBeLessThan(1e-5);
    const run = await stored(f32, description(JUMPRELU, d, false), { threshold: -1 });
    const relu = fresh();
    await exportSae(run, { format: "circuit_tracer", out: relu, verify: true });
    expect(await readFile(join(relu, "config.yaml"), "utf8")).toContain("activation: relu\n");
  });

  it.each([
    ["saelens", TOPK, d, {}, /SAELens has no transcoder of TopK; use --format sparsify or circuit_tracer/],
    ["sparsify", TOPK, 5, {}, /sparsify's transcoders are as wide as their inputs; this one reads 12 and writes 5/],
    ["sparsify", JUMPRELU, d, {}, /which sparsify has no word for/],
    ["circuit_tracer", JUMPRELU, 5, {}, /circuit_tracer has transcoders, as wide as their inputs/],
    [
      "dictionary_learning",
      BATCHTOPK,
      d,
      {},
      /dictionary_learning has no transcoders; use --format saelens, sparsify or/,
    ],
    ["openai", TOPK, d, { bare: true }, /openai has no transcoders/],
    ["circuit_tracer", TOPK, d, { hook: "mid", targetHook: "out" }, /the hook mid has no number; give --layer N/],
  ] as const)("%s cannot say some", async (format, spec, dOut, options, message) => {
    const run = await stored(f32, description(spec, dOut, false));
    await expect(exportSae(run, { format, out: fresh(), ...options })).rejects.toThrow(message);
  });

  it("an autoencoder is none for circuit-tracer", async () => {
    await expect(
      exportSae(join(FIXTURES, "saelens-jumprelu"), { format: "circuit_tracer", out: fresh() }),
    ).rejects.toThrow("circuit_tracer has transcoders, not autoencoders; use --format saelens");
  });
});

describe("what computes something else, or is not whole, is refused in a line", () => {
  it.each([
    [
      "circuit-tracer-topk",
      "config.yaml",
      "transcoder_set",
      "cross_layer_transcoder",
      /model_kind "cross_layer_transcoder" is not/,
    ],
    ["circuit-tracer-topk", "config.yaml", "k: 4", "k: 0", /k must be a whole number of at least 1, but is 0/],
    ["circuit-tracer-topk", "config.yaml", "k: 4", "k: 99", /k is 99, but there are only 40 latents/],
    ["circuit-tracer-topk", "config.yaml", "k: 4", "", /does not say how many latents are active per row/],
    ["circuit-tracer-topk", "config.yaml", "scan:", "scan", /config\.yaml: line 5: is not NAME: VALUE/],
    ["circuit-tracer-jumprelu", "config.yaml", ": jumprelu", ": relu", /which the activation "relu" has not/],
    ["circuit-tracer-jumprelu", "config.yaml", ": gemma", ": [gemma, 2]", undefined],
    ["circuit-tracer-jumprelu", "config.yaml", ": mlp.hook_in", ": 3", /feature_input_hook must be text, but is 3/],
    [
      "saelens-transcoder",
      "cfg.json",
      '"d_out": 7',
      '"d_out": 8',
      /tensor "W_dec" is \[40, 7\], but cfg\.json says \[40, 8\]/,
    ],
    [
      "saelens-transcoder",
      "cfg.json",
      '"apply_b_dec_to_input": false',
      '"apply_b_dec_to_input": true',
      /means nothing for/,
    ],
    [
      "saelens-transcoder",
      "cfg.json",
      '"none",',
      '"layer_norm",',
      /"layer_norm", which means nothing for a transcoder/,
    ],
    ["saelens-transcoder", "cfg.json", '"d_out": 7,', "", /d_out/],
    [
      "saelens-skip-transcoder",
      "cfg.json",
      '"skip_transcoder"',
      '"transcoder"',
      /has a tensor "W_skip", which the arch/,
    ],
    ["saelens-transcoder", "cfg.json", '"transcoder"', '"skip_transcoder"', /has no tensor "W_skip"/],
  ])("%s, %s: %j as %j", async (fixture, file, from, to, message) => {
    const path = fresh();
    await cp(join(FIXTURES, fixture), path, { recursive: true });
    const text = await readFile(join(path, file), "utf8");
    expect(text).toContain(from);
    await writeFile(join(path, file), text.replace(from, to));
    if (message === undefined) await (await loadSae(path, { engine })).close();
    else await expect(importSae(path, { out: join(folder, "never") })).rejects.toThrow(message);
  });

  it("thresholds below 0 in circuit-tracer, where they let latents below 0 through", async () => {
    const path = fresh();
    await cp(join(FIXTURES, "circuit-tracer-jumprelu"), path, { recursive: true });
    const file = join(path, "layer_3.safetensors");
    const bytes = await readFile(file);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<
      string,
      { data_offsets: [number, number] }
    >;
    bytes.writeFloatLE(-0.5, 8 + length + header["activation_function.threshold"]!.data_offsets[0] + 4 * 9);
    await writeFile(file, bytes);
    await expect(loadSae(path, { engine })).rejects.toThrow(`${file}: the threshold of latent 9 is below 0, so that`);
  });
});

describe.skipIf(torch !== undefined)(
  `plain PyTorch by each format's rules${torch === undefined ? "" : ` (${torch})`}`,
  () => {
    it("gives the same latents and outputs for what Saetta writes", async () => {
      const jobs: { readonly form: string; readonly path: string; readonly name: string; readonly run: string }[] = [];
      for (const [name, format, spec, dOut, skip] of WRITTEN) {
        const [run, out] = [await stored(f32, description(spec, dOut, skip)), fresh()];
        await exportSae(run, { format, out });
        jobs.push({ form: format, path: out, name: `${format}-${name}`, run });
      }
      const list = join(folder, "jobs.json");
      const lines = jobs.map(({ name, ...job }) => ({ ...job, rows: ROWS_FILE, d, out: join(folder, name) }));
      await writeFile(list, JSON.stringify(lines));
      await promisify(execFile)(PYTHON, [fileURLToPath(new URL("rules.py", import.meta.url)), list]);
      for (const { name, run } of jobs) expect(await offOf(run, name, folder), name).toBeLessThan(1e-5);
    });
  },
);

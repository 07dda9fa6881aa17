/**
 * Published autoencoders as PyTorch wrote them: each gives the latents and reconstructions of its
 * own format's rules, on two engines, read, imported and exported.
 */

import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCpuEngine } from "../../src/engine/cpu/index.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import type { TorchDict, TorchPart } from "../../src/formats/torch-write.ts";
import { exportSae, importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { inspect } from "../../src/inspect/inspect.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { answer, changedTorch, d, differences, expected, FIXTURES, n, PUBLISHED } from "./fixtures.ts";
import { bitsAt } from "./stored.ts";

let folder: string;
let engine: Engine;
let f32: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-published-"));
  engine = createReferenceEngine();
  f32 = await createCpuEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await f32[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const isTranscoder = (name: string) => /transcoder|affine/.test(name);
let made = 0;
const fresh = () => join(folder, `out-${made++}`);

async function offOf(path: string, fixture: string, on: Engine): Promise<number> {
  await using sae = await loadSae(path, { engine: on });
  const off = differences(await answer(sae), expected(fixture));
  return Math.max(off.latents, off.output);
}

describe("a published autoencoder", () => {
  it.each(PUBLISHED)("%s gives what its rules give, read and imported", async (name, format, path) => {
    const at = join(FIXTURES, path);
    expect(await offOf(at, name, engine)).toBeLessThan(1e-5);
    expect(await offOf(at, name, f32)).toBeLessThan(1e-5);
    const out = fresh();
    const { verified, format: found } = await importSae(at, { out, verify: true });
    expect(found).toBe(format);
    expect(verified!.active).toBeGreaterThan(64);
    expect(await offOf(out, name, engine)).toBeLessThan(1e-5);
    expect(await bitsAt(out)).toEqual(await bitsAt(at));
  });

  it.each(PUBLISHED)("%s is inspected", async (name, format, path) => {
    const { kind, facts } = await inspect(join(FIXTURES, path));
    expect(kind).toBe(`autoencoder of ${format}`);
    expect(facts).toMatchObject({ inputs: d, latents: n, ...(isTranscoder(name) ? { transcoder: true } : {}) });
  });

  it.each(PUBLISHED)("%s is written for SAELens with the same answers", async (name, _, path) => {
    const out = fresh();
    await exportSae(join(FIXTURES, path), { format: "saelens", out, verify: true });
    expect(await offOf(out, name, engine)).toBeLessThan(1e-5);
  });
});

describe("what computes something else, or is not whole, is refused with the file's name", () => {
  const copied = async (fixture: string): Promise<string> => {
    const path = fresh();
    await cp(join(FIXTURES, fixture), path, { recursive: true });
    return path;
  };
  const refused = async (path: string, words: RegExp) => {
    await expect(loadSae(path, { engine })).rejects.toThrow(words);
    await expect(loadSae(path, { engine })).rejects.toThrow(path);
  };

  it.each<[fixture: string, config: string, changes: object, words: RegExp]>([
    ["gemma-scope-2", "config.json", { architecture: "topk" }, /architecture "topk" is not "jump_relu"/],
    ["gemma-scope-2", "config.json", { type: "crosscoder" }, /type "crosscoder" is not computed by Saetta/],
    [
      "gemma-scope-2-affine",
      "config.json",
      { hf_hook_point_out: null, type: "sae" },
      /has an array "affine_skip_connection", but nothing says that it is a transcoder/,
    ],
    [
      "llama-scope",
      "hyperparams.json",
      { act_fn: "batchtopk" },
      /act_fn "batchtopk" is not computed .*; convert it to jumprelu/,
    ],
    [
      "llama-scope",
      "hyperparams.json",
      { jump_relu_threshold: -1 },
      /jump_relu_threshold is -1, so that latents below 0/,
    ],
    ["llama-scope", "hyperparams.json", { jump_relu_threshold: null }, /"jump_relu_threshold" must be a finite number/],
    [
      "llama-scope",
      "hyperparams.json",
      { norm_activation: "token-wise" },
      /norm_activation "token-wise" is not computed/,
    ],
    [
      "llama-scope",
      "hyperparams.json",
      { dataset_average_activation_norm: { in: 0, out: 1 } },
      /must be above 0, but is 0/,
    ],
    [
      "llama-scope",
      "hyperparams.json",
      { dataset_average_activation_norm: null },
      /hold dataset_average_activation_norm of blocks\.7/,
    ],
    ["llama-scope", "hyperparams.json", { use_glu_encoder: true }, /use_glu_encoder is true/],
    ["llamascopium-jumprelu", "config.json", { sae_type: "clt" }, /sae_type "clt" is not computed by Saetta/],
    ["llamascopium-topk", "config.json", { top_k: 41 }, /k is 41, but there are only 40 latents/],
    ["llamascopium-topk", "config.json", { act_fn: "jumprelu" }, /"jump_relu_threshold" must be a finite number/],
    ["saelens-gated", "cfg.json", { d_sae: 39 }, /tensor "W_enc" is \[12, 40\], but cfg\.json says \[12, 39\]/],
    [
      "saelens-gated",
      "cfg.json",
      { architecture: "standard" },
      /has a tensor "b_gate", which the architecture "standard" has not/,
    ],
    [
      "dictionary_learning-GatedAutoEncoder",
      "config.json",
      { trainer: { dict_class: "AutoEncoder" } },
      /has no tensor "bias"|has no tensor "encoder.bias"/,
    ],
  ])("%s: %s with %j", async (fixture, config, changes, words) => {
    const path = await copied(fixture);
    const json = JSON.parse(await readFile(join(path, config), "utf8")) as object;
    await writeFile(join(path, config), JSON.stringify({ ...json, ...changes }));
    await refused(path, words);
  });

  it("factors of latents in SAELens 3 that are not 1", async () => {
    const path = await copied("saelens-3");
    const file = join(path, "sae_weights.safetensors");
    const bytes = await readFile(file);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as { scaling_factor: { data_offsets: [number] } };
    bytes.writeFloatLE(2, 8 + length + header.scaling_factor.data_offsets[0]);
    await writeFile(file, bytes);
    await refused(path, /its scaling_factor is not 1 for all latents/);
  });

  it("a threshold of dictionary_learning that was never set, and a norm_factor that is none", async () => {
    const path = await copied("dictionary_learning-resumable");
    const ae = join(path, "ae.pt");
    const scalar = (value: number): TorchPart => ({
      dtype: "f32",
      shape: [],
      bytes: async () => bytesOf(Float32Array.of(value)),
    });
    await changedTorch("dictionary_learning-resumable/ae.pt", ae, ({ ae: inner, ...rest }) => ({
      ...rest,
      norm_factor: 2,
      ae: { ...(inner as TorchDict), threshold: scalar(-1) },
    }));
    await refused(
      path,
      /threshold is -2: it was never set, so it does not say which latents are active; train it past/,
    );
    await changedTorch("dictionary_learning-resumable/ae.pt", ae, (items) => ({ ...items, norm_factor: 0 }));
    await refused(path, /norm_factor must be a number above 0, but is 0/);
  });

  it("a damaged archive of Gemma Scope", async () => {
    const path = await copied("gemma-scope/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_7");
    const bytes = await readFile(join(path, "params.npz"));
    await writeFile(join(path, "params.npz"), bytes.subarray(0, 700));
    await refused(path, /params\.npz: byte \d+: the archive has no end record/);
  });
});

describe("a bad file with thousands of active latents per row", () => {
  const [width, latents] = [8, 3000];

  it("is loaded, evaluated and written for others", async () => {
    const path = fresh();
    await mkdir(path);
    const draw = (...shape: readonly number[]): Float32Array =>
      Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(1 + i * 0.7));
    const arrays: Record<string, Float32Array> = {
      ...{ w_enc: draw(width, latents), w_dec: draw(latents, width), b_dec: draw(width) },
      ...{ b_enc: new Float32Array(latents).fill(100), threshold: new Float32Array(latents) },
    };
    const shapes: Record<string, readonly number[]> = { w_enc: [width, latents], w_dec: [latents, width] };
    const parts = Object.entries(arrays).map(([name, values]) => ({
      ...{ name, dtype: "F32" as const, shape: shapes[name] ?? [values.length], bytes: async () => bytesOf(values) },
    }));
    const pieces: Uint8Array[] = [];
    await writeSafetensors(async (bytes) => void pieces.push(bytes), parts, {});
    await writeFile(join(path, "params.safetensors"), Buffer.concat(pieces));
    await using sae = await loadSae(path, { engine: f32 });
    const codes = await sae.encode(draw(5, width));
    expect(codes.k).toBe(latents);
    expect(codes.value.every((value) => value > 0)).toBe(true);
    const { verified } = await exportSae(path, { format: "saelens", out: fresh(), verify: true });
    expect(verified!.active).toBe(64 * latents);
  });
});

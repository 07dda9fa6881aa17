import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fromRows } from "../../src/data/rows-source.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { TorchDict } from "../../src/formats/torch-write.ts";
import { importSae } from "../../src/inference/exchange.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { train } from "../../src/train/train.ts";
import { FormatError } from "../../src/util/errors.ts";
import { described } from "../topk.ts";
import {
  ALL,
  answer,
  changedTorch,
  d,
  differences,
  expected,
  FIXTURES,
  k,
  n,
  ROWS,
  type TorchItems,
} from "./fixtures.ts";

let folder: string;
let engine: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-interchange-"));
  engine = createReferenceEngine();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** A copy of a fixture that may be changed. */
async function copied(name: string, as: string): Promise<string> {
  const path = join(folder, as);
  await cp(join(FIXTURES, name), path, { recursive: true });
  return path;
}

async function changed(path: string, file: string, change: (cfg: Record<string, unknown>) => unknown): Promise<string> {
  const at = join(path, file);
  await writeFile(at, JSON.stringify(change(JSON.parse(await readFile(at, "utf8")) as Record<string, unknown>)));
  return path;
}

describe("an autoencoder that PyTorch wrote", () => {
  it.each(ALL)("%s gives the latents and reconstructions of its own rules", async (name, path) => {
    const told = name === "openai-bare" ? { k } : {};
    await using sae = await loadSae(join(FIXTURES, path), { engine, ...told });
    expect(sae.description).toMatchObject(described({ d, n, k, auxk: 0 }));
    const off = differences(await answer(sae), expected(name));
    expect(off.latents).toBeLessThan(1e-5);
    expect(off.output).toBeLessThan(1e-5);
  });

  it.each(ALL)("%s gives them when imported, too, verified by the rules of the file", async (name, path) => {
    const told = name === "openai-bare" ? { k } : {};
    const out = join(folder, `imported-${name}`);
    const { verified } = await importSae(join(FIXTURES, path), { out, verify: true, ...told });
    expect(verified).toMatchObject({ rows: 64 });
    await using sae = await loadSae(out, { engine });
    const off = differences(await answer(sae), expected(name));
    expect(off.latents).toBeLessThan(1e-5);
    expect(off.output).toBeLessThan(1e-5);
  });

  it("says where it is from, and what of it is not carried over", async () => {
    const about = async (path: string, told = {}) => {
      await using sae = await loadSae(join(FIXTURES, path), { engine, ...told });
      const { importedFrom, normalization, undoneWith, model, tensor } = sae.description.saetta!;
      return { importedFrom, normalization, undoneWith, model, tensor, notes: sae.found.notes ?? [] };
    };
    expect(await about("openai.pt")).toEqual({
      importedFrom: "openai",
      normalization: "layer_norm",
      undoneWith: "std",
      notes: [],
    });
    expect((await about("openai-strides.pt")).notes).toEqual([
      'openai-strides.pt also holds "trained_for", which the autoencoder does not use',
    ]);
    expect((await about("openai-bare.pt", { k })).notes).toEqual([
      "the file does not say its activation: taken for TopK, on rows as they are, as train.py trains",
    ]);
    expect(await about("dictionary_learning")).toMatchObject({
      model: "gpt2",
      tensor: "resid_post_layer_3",
      normalization: "none",
    });
    expect(await about("saelens")).toMatchObject({
      model: "gpt2-small",
      tensor: "blocks.8.hook_resid_post",
      normalization: "none",
    });
    expect(await about("saelens-layer-norm")).toMatchObject({ normalization: "layer_norm", undoneWith: "std" });
    expect((await about("saelens-no-subtraction")).notes[0]).toMatch(/^b_dec is not taken from the input: /);
    expect((await about("saelens-norms")).notes[0]).toMatch(/^latents are times the norms of their decoder rows/);
  });

  it("can be trained on from there, and is undone as Saetta does then", async () => {
    const rows = fromRows(() => [ROWS], { dIn: d, rows: ROWS.length / d });
    const init = join(FIXTURES, "openai.pt");
    const options = {
      init,
      engine: "reference",
      batch: 8,
      epochs: 1,
      lr: 1e-12,
      holdout: 0,
      out: join(folder, "tuned"),
    } as const;
    await using run = await train(rows, options);
    const { sae } = await run.finished;
    expect(sae.description.saetta).toMatchObject({ normalization: "layer_norm" });
    expect(sae.description.saetta?.undoneWith).toBeUndefined();
    expect(differences(await answer(sae), expected("openai")).latents).toBeLessThan(1e-5);
    // k of the run is taken where the file has none, and only there.
    const bare = join(FIXTURES, "openai-bare.pt");
    await expect(train(rows, { ...options, init: bare, out: false })).rejects.toThrow(
      "does not say how many latents are active per row",
    );
    await using told = await train(rows, { ...options, init: bare, k: 3, out: false });
    const { sae: three } = await told.finished;
    expect(three).toMatchObject({ dims: { dIn: d, n }, k: 3 });
  });

  it("whose decoder rows have other norms than 1 says so when it is trained on", async () => {
    const notes: string[] = [];
    const path = await copied("sparsify", "long-rows");
    const file = join(path, "sae.safetensors");
    const bytes = await readFile(file);
    const {
      data_offsets: [begin],
    } = (
      JSON.parse(bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE(0)))) as Record<
        string,
        { data_offsets: [number] }
      >
    ).W_dec!;
    const at = 8 + Number(bytes.readBigUInt64LE(0)) + begin;
    for (let i = 0; i < d; i++) bytes.writeFloatLE(3 * bytes.readFloatLE(at + 4 * i), at + 4 * i);
    await writeFile(file, bytes);
    const rows = fromRows(() => [ROWS], { dIn: d, rows: ROWS.length / d });
    for (const init of [path, join(FIXTURES, "sparsify-bfloat16")]) {
      const options = { init, engine: "reference", batch: 8, epochs: 1, holdout: 0, out: false } as const;
      await using run = await train(rows, { ...options, onNote: (note) => notes.push(note) });
      await run.finished;
    }
    expect(notes).toEqual([
      expect.stringContaining(`rows of the decoder of ${path} have norms from 1.00 to 3.00; training keeps them at 1`),
    ]);
  });

  it("of SAELens before 6 says topk as its activation function", async () => {
    const path = await copied("saelens", "saelens-5");
    await changed(path, "cfg.json", ({ architecture: _, k: __, metadata: ___, ...cfg }) => ({
      ...cfg,
      architecture: "standard",
      activation_fn_str: "topk",
      activation_fn_kwargs: { k },
      model_name: "gpt2-small",
      hook_name: "hook",
      normalize_activations: false,
    }));
    await using sae = await loadSae(path, { engine });
    expect(sae.description.saetta).toMatchObject({ model: "gpt2-small", tensor: "hook" });
    expect(differences(await answer(sae), expected("saelens")).output).toBeLessThan(1e-5);
  });
});

/** A torch file of the fixture's items, changed. */
async function retorched(fixture: string, as: string, change: (items: TorchItems) => TorchDict): Promise<string> {
  const path = join(folder, as);
  await changedTorch(fixture, path, change);
  return path;
}

const omitted = (name: string) => (items: TorchItems) => {
  const { [name]: _, ...rest } = items;
  return rest;
};

describe("what computes something else, or is not whole, is refused with the file's name", () => {
  it.each([
    [
      "an activation that is not TopK",
      "openai.pt",
      (items) => ({ ...items, activation: "ReLU" }),
      /activation "ReLU" is not computed by Saetta/,
    ],
    [
      "latents that may be negative",
      "openai.pt",
      (items) => ({ ...items, activation_state_dict: { k, postact_fn: "Identity" } }),
      /postact_fn "Identity" is not "ReLU"/,
    ],
    [
      "a k of 0",
      "openai.pt",
      (items) => ({ ...items, activation_state_dict: { k: 0, postact_fn: "ReLU" } }),
      /k must be a whole number of at least 1, but is 0/,
    ],
    [
      "a k beyond the latents",
      "openai.pt",
      (items) => ({ ...items, activation_state_dict: { k: 999, postact_fn: "ReLU" } }),
      /k is 999, but there are only 40 latents/,
    ],
    [
      "no activation beside the buffers",
      "openai.pt",
      omitted("activation"),
      /names no activation, which OpenAI's loader takes for "ReLU".*say so with --k K/,
    ],
    ["no activation_state_dict", "openai.pt", omitted("activation_state_dict"), /has no dict "activation_state_dict"/],
    [
      "no pre_bias",
      "openai.pt",
      omitted("pre_bias"),
      /is no autoencoder of OpenAI .*it holds "latent_bias"|it holds only "latent_bias"/,
    ],
    ["no decoder", "openai.pt", omitted("decoder.weight"), /has no tensor "decoder\.weight"/],
    ["no encoder", "openai.pt", omitted("encoder.weight"), /has no tensor "encoder\.weight"/],
    [
      "a matrix of another shape",
      "openai.pt",
      (items) => ({ ...items, "decoder.weight": items["encoder.weight"]! }),
      /tensor "decoder\.weight" is \[40, 12\], but encoder\.weight says \[12, 40\]/,
    ],
    [
      "text for a tensor",
      "openai.pt",
      (items) => ({ ...items, "encoder.weight": "no" }),
      /"encoder\.weight" is no tensor/,
    ],
    [
      "integers for weights",
      "openai.pt",
      (items) => ({ ...items, latent_bias: items.stats_last_nonzero! }),
      /tensor "latent_bias" is i64; weights are/,
    ],
  ] as [string, string, (items: TorchItems) => TorchDict, RegExp][])("%s", async (what, fixture, change, message) => {
    const path = await retorched(fixture, `${what.replaceAll(" ", "-")}.pt`, change);
    const error = await importSae(path, { out: join(folder, "never") }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FormatError);
    expect(String(error)).toMatch(message);
    expect(String(error)).toContain(path);
  });

  it("weights that are not finite", async () => {
    const bias = Float32Array.from({ length: n }, (_, i) => (i === 7 ? Number.NaN : 0));
    const path = await retorched("openai.pt", "nan.pt", (items) => ({
      ...items,
      latent_bias: { dtype: "f32", shape: [n], bytes: async () => new Uint8Array(bias.buffer) },
    }));
    await expect(loadSae(path, { engine })).rejects.toThrow(`${path}: tensor "latent_bias", element 7 is not finite`);
  });

  it.each([
    ["architecture", { architecture: "temporal" }, /cfg\.json: architecture "temporal" is not computed by Saetta/],
    [
      "activation",
      { architecture: "standard", activation_fn: "tanh-relu" },
      /cfg\.json: activation "tanh-relu" is not computed by Saetta/,
    ],
    [
      "a factor that is not there",
      { normalize_activations: "expected_average_only_in" },
      /by a factor .* that the file does not hold; fold it with/,
    ],
    [
      "another normalisation",
      { normalize_activations: "constant_norm_rescale" },
      /normalize_activations "constant_norm_rescale" is not computed/,
    ],
    ["no k", { k: null }, /does not say how many latents are active per row/],
    [
      "sizes",
      { d_sae: n + 1 },
      /sae_weights\.safetensors: tensor "W_enc" is \[12, 40\], but cfg\.json says \[12, 41\]/,
    ],
    ["fine-tuning", { finetuning_scaling_factor: true }, /finetuning_scaling_factor is not computed/],
  ])("of SAELens: %s", async (what, cfg, message) => {
    const path = await changed(await copied("saelens", `saelens-${what}`), "cfg.json", (old) => ({ ...old, ...cfg }));
    await expect(importSae(path, { out: join(folder, "never") })).rejects.toThrow(message);
  });

  it("of dictionary_learning: another class, or what may be BatchTopK", async () => {
    const path = await changed(await copied("dictionary_learning", "batch"), "config.json", ({ trainer, ...rest }) => ({
      ...rest,
      trainer: { ...(trainer as object), dict_class: "IdentityDict" },
    }));
    await expect(loadSae(path, { engine })).rejects.toThrow(
      'config.json: dict_class "IdentityDict" is not computed by Saetta (it computes MatryoshkaBatchTopKSAE, ',
    );
    await rm(join(path, "config.json"));
    await expect(loadSae(path, { engine })).rejects.toThrow(
      "without its config.json the file may be of BatchTopK as well as of TopK",
    );
    await using sae = await loadSae(path, { engine, k });
    expect(sae.found.notes).toEqual(["there is no config.json: taken for AutoEncoderTopK"]);
    await expect(loadSae(path, { engine, k: k + 1 })).rejects.toThrow(
      `the file says that k is ${k}, not ${k + 1}; leave out --k`,
    );
  });

  it("a folder of several torch files, and one of none", async () => {
    const path = join(folder, "several");
    await cp(join(FIXTURES, "openai.pt"), join(path, "a.pt"));
    await cp(join(FIXTURES, "openai.pt"), join(path, "b.pt"));
    await expect(loadSae(path, { engine })).rejects.toThrow("has 2 torch files (a.pt, b.pt); name one of them");
    await (await loadSae(join(path, "b.pt"), { engine })).close();
    await expect(importSae(join(FIXTURES, "rows"), { out: "x" })).rejects.toThrow(
      "is no autoencoder that Saetta reads",
    );
  });
});

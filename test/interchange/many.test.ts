/** Folders of many autoencoders: the list that inspect answers with, and the choice of one. */

import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { ListedFile, Listing } from "../../src/formats/listing.ts";
import { loadSae } from "../../src/inference/sae.ts";
import { inspect } from "../../src/inspect/inspect.ts";
import { saesIn, selected, withSizes } from "../../src/interchange/listing.ts";
import { answer, d, differences, expected, FIXTURES, k, n } from "./fixtures.ts";

let folder: string;
let engine: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-many-"));
  engine = createReferenceEngine();
  const put = (fixture: string, as: string) => cp(join(FIXTURES, fixture), join(folder, as), { recursive: true });
  const gemma = "gemma-scope/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_7";
  for (const [layer, l0] of [
    [2, 7],
    [2, 70],
    [12, 7],
  ])
    await put(gemma, `gemma/layer_${layer}/width_16k/average_l0_${l0}`);
  await put("gemma-scope-2", "gemma2/resid_post/layer_7_width_16k_l0_medium");
  await put("gemma-scope-2-affine", "gemma2/transcoder/layer_7_width_16k_l0_small_affine");
  await put("sparsify", "sparsify/layers.9");
  await put("sparsify", "sparsify/layers.10");
  await put("saelens", "mixed/blocks.8.hook_resid_post");
  await put("dictionary_learning", "mixed/trainer_0");
  await put("dictionary_learning/ae.pt", "mixed/trainer_0/checkpoints/ae_100.pt");
  await put("llama-scope", "mixed/L7R-8x");
  await put("llamascopium-jumprelu", "mixed/L7R");
  await put("llama-scope-r1", "mixed/L7R-r1");
  await put("circuit-tracer-jumprelu", "mixed/tracer");
  await put("circuit-tracer-jumprelu/layer_3.safetensors", "mixed/tracer/layer_4.safetensors");
  await put("SAE-Res-W40-L0_4/layer3.sae.pt", `mixed/SAE-Res-W40-L0_${k}/layer3.sae.pt`);
  await writeFile(join(folder, "mixed", "README.md"), "");
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const rowsOf = async (path: string) => (await inspect(path)).facts.autoencoders as readonly Record<string, unknown>[];

describe("inspect of a folder of many", () => {
  it("lists layers, widths and L0s of Gemma Scope", async () => {
    expect(await inspect(join(folder, "gemma"))).toMatchObject({ kind: "folder of 3 autoencoders" });
    const row = (layer: number, l0: number) => ({
      ...{ path: `layer_${layer}/width_16k/average_l0_${l0}`, format: "gemma_scope" },
      ...{ inputs: d, latents: n, l0 },
    });
    expect(await rowsOf(join(folder, "gemma"))).toMatchObject([row(2, 7), row(2, 70), row(12, 7)]);
    expect(await rowsOf(join(folder, "gemma2"))).toMatchObject([
      { path: "resid_post/layer_7_width_16k_l0_medium", format: "gemma_scope_2", inputs: d, latents: n, l0: 10 },
      { path: "transcoder/layer_7_width_16k_l0_small_affine", inputs: d, latents: n, l0: 10 },
    ]);
  });

  it("says of each the program, the sizes and the L0 that its files state", async () => {
    const sizes = { inputs: d, latents: n };
    expect(await rowsOf(join(folder, "mixed"))).toMatchObject([
      { path: "blocks.8.hook_resid_post", format: "saelens", ...sizes, l0: k },
      { path: "L7R", format: "llamascopium", ...sizes },
      { path: "L7R-8x", format: "llama_scope", ...sizes },
      { path: "L7R-r1", format: "llama_scope", ...sizes },
      { path: `SAE-Res-W40-L0_${k}/layer3.sae.pt`, format: "qwen_scope", l0: k },
      { path: "tracer/layer_3.safetensors", format: "circuit_tracer", ...sizes },
      { path: "tracer/layer_4.safetensors", format: "circuit_tracer", ...sizes },
      { path: "trainer_0", format: "dictionary_learning", ...sizes, l0: k },
    ]);
  });
});

describe("a choice among many", () => {
  const offOf = async (path: string, fixture: string) => {
    await using sae = await loadSae(path, { engine });
    return differences(await answer(sae), expected(fixture)).latents;
  };

  it.each([
    ["sparsify/layers.10", "sparsify"],
    ["gemma/layer_12", "gemma-scope"],
    ["gemma/layer_2/average_l0_70", "gemma-scope"],
    ["gemma/l0_70", "gemma-scope"],
    ["mixed/trainer", "dictionary_learning"],
    ["mixed/layer_4.safetensors", "circuit-tracer-jumprelu"],
    ["gemma2/layer_7_width_16k_l0_small_affine", "gemma-scope-2-affine"],
  ])("%s is found", async (path, fixture) => {
    const at = join(folder, path);
    // A folder on the way is one of many by itself.
    if (path === "gemma/layer_12") await expect(loadSae(at, { engine })).rejects.toThrow("holds an autoencoder: ");
    else expect(await offOf(at, fixture)).toBeLessThan(1e-5);
    const { kind } = await inspect(at);
    expect(kind).toMatch(/^(autoencoder|folder of an autoencoder|safetensors file)/);
  });

  it("is answered with those that fit where there are several, and with those that there are where none fits", async () => {
    const gemma = join(folder, "gemma");
    await expect(loadSae(join(gemma, "average_l0_7"), { engine })).rejects.toThrow(
      `${gemma}: "average_l0_7" chooses 2 autoencoders: layer_2/width_16k/average_l0_7, layer_12/width_16k/average_l0_7; name one: ${gemma}/layer_2`,
    );
    expect(await inspect(join(gemma, "average_l0_7"))).toMatchObject({ kind: "folder of 2 autoencoders" });
    await expect(loadSae(join(gemma, "layer_3"), { engine })).rejects.toThrow(
      `${gemma}: has no autoencoder "layer_3"; choose one of layer_2/width_16k/average_l0_7, `,
    );
    await mkdir(join(folder, "empty"));
    await expect(loadSae(join(folder, "empty", "x"), { engine })).rejects.toThrow("x: there is no such file or folder");
  });
});

describe("a listing of a repository", () => {
  it("is told from names alone, whatever their order, and reads no weights", async () => {
    const files: ListedFile[] = [];
    const widths: readonly (readonly [string, number])[] = [
      ["16k", 2 ** 14],
      ["65k", 2 ** 16],
      ["131k", 2 ** 17],
      ["1m", 2 ** 20],
    ];
    for (let layer = 25; layer >= 0; layer--)
      for (const [width] of widths)
        files.push({ path: `layer_${layer}/width_${width}/average_l0_72/params.npz`, bytes: 300e6 });
    files.push({ path: "README.md", bytes: 10 }, { path: "embedding/width_4k/average_l0_6/params.npz", bytes: 1e6 });
    const found = saesIn(files);
    expect(found.length).toBe(105);
    expect(found[0]).toMatchObject({ path: "embedding/width_4k/average_l0_6", latents: 4096, l0: 6 });
    expect(new Set(found.map(({ latents }) => latents))).toEqual(new Set([4096, ...widths.map(([, size]) => size)]));
    const ranges: number[] = [];
    const listing: Listing = {
      root: "hf://org/repo",
      entries: async () => files,
      readRange: async (_, begin, end) => {
        ranges.push(end - begin);
        return new Uint8Array(end - begin);
      },
    };
    const sized = await withSizes(listing, found);
    expect(sized.map(({ path }) => path)).toEqual(found.map(({ path }) => path));
    expect(Math.max(...ranges)).toBeLessThanOrEqual(16 * 1024);
    expect(selected(found, "layer_3/width_65k").map(({ path }) => path)).toEqual(["layer_3/width_65k/average_l0_72"]);
  });
});
